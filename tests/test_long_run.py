"""A run that would take days on a CPU stops after its first steps, says what would fit, and stands in nobody's way."""

import json
import re
import time

import keras
import pytest

from colabcnn import Error, long_run, run, status

pytestmark = pytest.mark.versions

# Between a hundred and some ten thousand hours, on anything from a fast to a slow machine.
TOO_MANY = 600_000


@pytest.fixture
def long_options(small_options, monkeypatch):
    """A run that is too long, with many validation images, of which three cost what one training image costs."""
    monkeypatch.setattr(long_run, "MEASURED_SECONDS", 0.2)
    return {**small_options, "train_size": 6000, "val_size": 1500, "epochs": TOO_MANY}


class Steps(keras.callbacks.Callback):
    """Note when each step ended."""

    def on_train_begin(self, logs=None):
        self.ended = []

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])
        self.ended.append(time.monotonic())


def refusal(experiment, folder, **options):
    with pytest.raises(Error, match="there is no GPU") as raised:
        run(experiment, folder, **options)
    return str(raised.value)


def number(pattern, message):
    return float(re.search(pattern, message)[1])


def test_message_names_what_would_fit_at_the_measured_speed(tmp_path, small_experiment, long_options):
    steps = Steps()
    message = refusal(small_experiment, tmp_path, hours=20, callbacks=[steps], **long_options)
    assert 4 <= len(steps.ended) < 375, "not in the first epoch"
    assert "\n" not in message
    assert f"the {TOO_MANY} epochs left" in message
    assert "ALLOW_LONG = True (allow_long=True)" in message
    assert "would fit into 20 hours" in message
    step_seconds = (steps.ended[-1] - steps.ended[0]) / (len(steps.ended) - 1)
    total_hours = number(r"would take (\d+) hours", message)
    assert total_hours == pytest.approx(TOO_MANY * step_seconds * (6000 + 1500 / 3) / 16 / 3600, rel=0.05)
    epochs, train_size = number(r"EPOCHS = (\d+)", message), number(r"TRAIN_SIZE = (\d+)", message)
    assert 0.95 * 20 < total_hours * epochs / TOO_MANY < 1.01 * 20
    hours = total_hours * (train_size + 1500 / 3) / (6000 + 1500 / 3)
    assert 20 - total_hours * 100 / 6500 < hours * 1.01
    assert hours < 1.01 * 20


@pytest.mark.parametrize("hours", [None, 11.5])
def test_hours_are_those_of_a_session_or_else_forty(tmp_path, small_experiment, long_options, hours):
    message = refusal(small_experiment, tmp_path, hours=hours, **long_options)
    assert f"would fit into {hours or 40:g} hours" in message


def test_nothing_that_would_not_help_is_named(tmp_path, small_experiment, long_options):
    """Not even a single step an epoch would fit, nor one epoch."""
    message = refusal(small_experiment, tmp_path / "size", **{**long_options, "epochs": 10**12})
    assert "TRAIN_SIZE" not in message
    assert "EPOCHS = " in message
    message = refusal(small_experiment, tmp_path / "epochs", hours=1e-9, **long_options)
    assert "would fit" not in message
    assert "Without one, ALLOW_LONG = True" in message


def test_folders_can_be_used_with_another_size_since_nothing_had_come_of_it(tmp_path, small_experiment, long_options):
    options = {**long_options, "drive_folder": tmp_path / "drive", "drive_minutes": 0}
    refusal(small_experiment, tmp_path / "run", **options)
    ended = json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]["ended"]
    assert "ALLOW_LONG" in ended
    result = run(small_experiment, tmp_path / "run", **{**options, "train_size": 200, "epochs": 2})
    assert result.complete
    assert status(tmp_path / "drive") == status(tmp_path / "run")
    assert json.loads((tmp_path / "drive" / "run.json").read_text())["train_size"] == 200
    with pytest.raises(Error, match="its train_size is 200, now given 300"):
        run(small_experiment, tmp_path / "run", **{**options, "train_size": 300, "epochs": 2})


def test_same_call_with_fewer_epochs_goes_through(tmp_path, small_experiment, long_options):
    refusal(small_experiment, tmp_path, **long_options)
    result = run(small_experiment, tmp_path, **{**long_options, "epochs": 1})
    assert result.history["epoch"] == [1]


def test_resumed_run_is_not_told_to_take_another_size(tmp_path, small_experiment, long_options):
    run(small_experiment, tmp_path, **{**long_options, "epochs": 1})
    message = refusal(small_experiment, tmp_path, **long_options)
    assert "TRAIN_SIZE" not in message
    assert f"the {TOO_MANY - 1} epochs left" in message
    assert number(r"EPOCHS = (\d+)", message) > 1
    assert status(tmp_path)["epoch"] == 1
    assert run(small_experiment, tmp_path, **{**long_options, "epochs": 2}).history["epoch"] == [1, 2]


def test_allow_long_trains_on(tmp_path, small_experiment, long_options):
    class StopAtOne(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    result = run(small_experiment, tmp_path, allow_long=True, callbacks=[StopAtOne()], **long_options)
    assert result.reason == "stopped by a callback after epoch 1"


def test_short_run_is_left_alone_and_measured_once(tmp_path, small_experiment, long_options, monkeypatch):
    decided = []
    decide = long_run.LongRunGuard._decide
    monkeypatch.setattr(
        long_run.LongRunGuard, "_decide", lambda guard, seconds: (decided.append(seconds), decide(guard, seconds))
    )
    assert run(small_experiment, tmp_path, **{**long_options, "epochs": 2}).complete
    assert len(decided) == 1
