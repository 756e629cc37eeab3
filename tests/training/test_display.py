"""The two lines of a training run."""

import time
from types import SimpleNamespace

import pytest

import colabcnn
from colabcnn.store.history import read_history
from colabcnn.training import display
from colabcnn.training.display import Display
from support.explorer_page import saturating
from support.shared_files import EXPERIMENT, OPTIONS


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


@pytest.mark.kill
@pytest.mark.parametrize(("seconds", "pictures"), [(0, [1, 2]), (3600, [2])])
def test_picture_is_drawn_when_it_is_due_and_at_the_end(tmp_path, monkeypatch, seconds, pictures):
    drawn, save = [], display.save_curves_if_possible

    def save_and_note(folder, path, info):
        drawn.append(read_history(folder / "history.csv")["epoch"][-1])
        return save(folder, path, info)

    monkeypatch.setattr(display, "PICTURE_SECONDS", seconds)
    monkeypatch.setattr(display, "PICTURE_SHARE", float("inf"))
    monkeypatch.setattr(display, "save_curves_if_possible", save_and_note)
    colabcnn.run(EXPERIMENT, tmp_path / "run", epochs=2, **OPTIONS)
    assert drawn == pictures
    assert (tmp_path / "run" / "curves.png").exists()
