"""A run that would take days on a CPU stops after its first steps, names what would fit, and blocks no other run."""

import itertools
import json
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import keras
import pytest

from colabcnn import Error, RiseAndFall, run, status
from colabcnn.training import long_run
from support.shared_files import COMPLETE

TOO_MANY = 100_000_000


@pytest.fixture
def small_experiment():
    return COMPLETE  # Its steps last long enough.


@pytest.fixture
def long_options(small_options, monkeypatch):
    """Epochs of 50 steps, for days; one epoch is longer than the guard measures, so it decides in the first."""
    monkeypatch.setattr(long_run, "MEASURED_SECONDS", 0.1)
    return {**small_options, "train_size": 800, "epochs": TOO_MANY}


@pytest.fixture
def steady_clock(monkeypatch):
    """A clock on which every step takes 10 ms, so that two runs have the same speed even on a busy machine."""
    reading = itertools.count()
    monkeypatch.setattr(long_run, "time", SimpleNamespace(monotonic=lambda: 0.01 * next(reading)))


def refusal(experiment, folder, **options):
    with pytest.raises(Error, match="there is no GPU") as raised:
        run(experiment, folder, **options)
    return str(raised.value)


def number(pattern, message):
    return float(re.search(pattern, message)[1])


def hours_of(message):
    return number(r"would take (\d+) hours", message)


@pytest.mark.colab
@pytest.mark.versions
def test_total_time_follows_from_the_real_speed(tmp_path, small_experiment, long_options, monkeypatch):
    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            steps.append(batch)

    def clock():
        ended.append(time.monotonic())
        return ended[-1]

    steps, ended = [], []
    monkeypatch.setattr(long_run, "time", SimpleNamespace(monotonic=clock))
    message = refusal(small_experiment, tmp_path, callbacks=[Steps()], **long_options)
    assert 4 <= len(ended) == len(steps) < 50
    step_seconds = (ended[-1] - ended[0]) / (len(ended) - 1)
    total_hours = TOO_MANY * step_seconds * (800 + 40 / 3) / 16 / 3600
    assert hours_of(message) == pytest.approx(total_hours, rel=0.05)


def test_message_names_sizes_that_fit_at_the_measured_speed(tmp_path, small_experiment, long_options, steady_clock):
    total_hours = TOO_MANY * 0.01 * (800 + 150 / 3) / 16 / 3600
    hours = total_hours / 4
    message = refusal(small_experiment, tmp_path, hours=hours, **{**long_options, "val_size": 150})
    assert "\n" not in message
    assert f"the {TOO_MANY} epochs left would take {total_hours:.0f} hours" in message
    assert f"would fit into {hours:g} hours" in message
    assert "allow_long=True trains all of them" in message
    assert number(r"epochs=(\d+)", message) == pytest.approx(TOO_MANY / 4, abs=1)
    assert number(r"train_size=(\d+)", message) == 100  # (800 + 150 / 3) / 4 - 150 / 3 = 162.5, in hundreds


def test_default_limit_is_forty_hours(tmp_path, small_experiment, long_options, steady_clock):
    assert "would fit into 40 hours" in refusal(small_experiment, tmp_path, hours=None, **long_options)


def test_message_names_no_size_that_does_not_fit(tmp_path, small_experiment, long_options):
    message = refusal(small_experiment, tmp_path, hours=1e-9, **long_options)
    assert "would fit" not in message
    assert "EPOCHS =" not in message
    assert "hours; allow_long=True" in message


def test_refused_run_leaves_its_folders_usable_for_another_size(tmp_path, small_experiment, long_options):
    options = {**long_options, "drive_folder": tmp_path / "drive", "drive_minutes": 0}
    refusal(small_experiment, tmp_path / "run", **options)
    (start,) = json.loads((tmp_path / "run" / "run.json").read_text())["starts"]
    assert "there is no GPU" in start["ended"]
    result = run(small_experiment, tmp_path / "run", **{**options, "train_size": 200, "epochs": 2})
    assert result.complete
    assert status(tmp_path / "drive") == status(tmp_path / "run")
    for folder in ("run", "drive"):
        assert json.loads((tmp_path / folder / "run.json").read_text())["train_size"] == 200
    with pytest.raises(Error, match="its train_size is 200, now given 300"):
        run(small_experiment, tmp_path / "run", **{**options, "train_size": 300, "epochs": 2})


def test_message_for_a_resumed_run_suggests_no_other_size(tmp_path, small_experiment, long_options, steady_clock):
    first = refusal(small_experiment, tmp_path, **long_options)
    options = {**long_options, "hours": hours_of(first) / 3}
    assert "train_size=" in refusal(small_experiment, tmp_path, **options)
    assert run(small_experiment, tmp_path, **{**options, "epochs": 1}).complete
    message = refusal(small_experiment, tmp_path, **options)
    assert "train_size" not in message
    assert f"the {TOO_MANY - 1} epochs left" in message
    assert number(r"epochs=(\d+)", message) > 1
    assert status(tmp_path)["epoch"] == 1


def test_message_for_a_resumed_run_with_a_falling_rate_suggests_no_fewer_epochs(
    tmp_path, small_experiment, long_options, steady_clock
):
    falling = replace(small_experiment, schedule=RiseAndFall())
    options = {**long_options, "hours": hours_of(refusal(falling, tmp_path, **long_options)) / 3}
    assert "epochs=" in refusal(falling, tmp_path, **options)
    run(falling, tmp_path, allow_long=True, **{**options, "hours": 1e-9})
    message = refusal(falling, tmp_path, **options)
    assert f"the {TOO_MANY - 1} epochs left" in message
    assert "would fit" not in message


def test_message_names_the_limit_even_if_more_hours_are_given(tmp_path, small_experiment, long_options):
    message = refusal(small_experiment, tmp_path, hours=1e9, **long_options)
    assert "would fit into 40 hours" in message
    assert number(r"epochs=(\d+)", message) < TOO_MANY


@pytest.mark.colab
@pytest.mark.versions
def test_allow_long_continues_the_run(tmp_path, small_experiment, long_options):
    class StopAtOne(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    result = run(small_experiment, tmp_path, allow_long=True, callbacks=[StopAtOne()], **long_options)
    assert result.reason == "stopped by a callback after epoch 1"


def test_run_that_fits_is_not_stopped(tmp_path, small_experiment, long_options, monkeypatch):
    options = {**long_options, "epochs": 2}
    with monkeypatch.context() as patched:
        patched.setattr(long_run, "LIMIT_HOURS", 1e-9)
        refusal(small_experiment, tmp_path, **options)
    assert run(small_experiment, tmp_path, **options).complete
