"""The two lines of a training run."""

import time
from types import SimpleNamespace

from colabcnn.training.display import Display
from support.explorer_page import saturating


def lines(session_seconds, epochs_done=326, so_far=""):
    history = saturating(0.9, 1, epochs=epochs_done)
    history["seconds"] = [180.0] * epochs_done
    folder = SimpleNamespace(path="/runs/seed-0")
    record = SimpleNamespace(train_size=50_000, val_size=10_000)
    session = SimpleNamespace(
        folder=folder,
        record=record,
        progress=SimpleNamespace(show_html=None),
        interruption=SimpleNamespace(at=None),
        deadline=time.monotonic() + session_seconds,
    )
    recorder = SimpleNamespace(history=history, epoch=epochs_done + 1, epoch_seconds=lambda: 180.0)
    display = Display(session, recorder)
    display.set_params({"epochs": 700})
    return display._lines("step 391/391", so_far).splitlines()


def test_both_lines_fit_80_columns():
    first, second = lines(11.4 * 3600)
    assert first == "epoch 327/700 · step 391/391 · 19 h left · session ends in 11 h · 333 images/s"
    assert second.startswith("epoch 326: loss ")
    assert max(len(first), len(second)) < 80


def test_current_epoch_is_shown_beside_the_last_complete_one():
    _, second = lines(3600, so_far="now loss 0.421, accuracy 0.851")
    assert second.startswith("epoch 326: validation 0.")
    assert second.endswith("; now loss 0.421, accuracy 0.851")
    assert len(second) < 80


def test_narrow_terminal_cuts_the_speed_and_not_the_time_left():
    first, _ = lines(2 * 3600 + 600)
    assert first.index("session ends in 2 h 10 min") < 70 < first.index("images/s")
