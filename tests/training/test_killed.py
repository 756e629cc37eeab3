"""A run that is killed or interrupted anywhere resumes as the uninterrupted run, bit for bit.

The numbers are those of the faults that a run must survive.
"""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import keras
import pytest

from colabcnn import run, status
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of
from colabcnn.store.history import read_history
from colabcnn.training.recorder import Recorder
from colabcnn.training.session import Session
from support.runs import BACKENDS, differences
from support.shared_files import COMPLETE

pytestmark = pytest.mark.kill


KILLED = -signal.SIGKILL
FINAL = {"recipe": "06_final"}  # With augmentation and dropout.


@pytest.fixture(scope="module")
def sessions(sessions_on):
    return sessions_on(os.environ.get("KERAS_BACKEND", "tensorflow"))


@pytest.fixture(scope="module")
def uninterrupted(sessions, tmp_path_factory):
    """Return a function from the options of a session to the folder of an uninterrupted run with them."""
    folders = {}

    def uninterrupted(epochs, **options):
        name = " ".join([str(epochs), *options.values()])
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("uninterrupted") / name
            sessions(folders[name], epochs=epochs, **options)
        return folders[name]

    return uninterrupted


def test_fault_01_sigkill_at_every_io_call_of_a_save(tmp_path, sessions, record_property):
    """Each session trains one epoch and is killed one call later in its save and its end than the previous one."""
    uninterrupted, killed, done = tmp_path / "uninterrupted", tmp_path / "killed", 3
    sessions(killed, epochs=done)  # So that a save has an old file to delete and one to resume from.
    for call in itertools.count(1):
        sessions.start(killed, epochs=done + 1, kill={"io": call})
        ended, output = sessions.finish()
        if ended != KILLED:
            break
        before, done = done, status(killed)["epoch"] if checkpoint_files(killed / "checkpoints") else 0
        assert done in (before, before + 1), output
    assert ended == 0, output
    done = status(killed)["epoch"]
    sessions(uninterrupted, epochs=done)
    assert differences(uninterrupted, killed) == []
    record_property(
        "counted", f"SIGKILL at {call - 1} I/O calls of a save, one after another: all resumed as the same run"
    )
    assert call > 12


@pytest.mark.parametrize("kill", [{"step": [2, 4]}, {"validation": 2}], ids=["02 step", "03 validation"])
def test_fault_02_and_03_sigkill_within_an_epoch_replays_it(tmp_path, sessions, uninterrupted, kill):
    options = {"epochs": 3, **FINAL}
    sessions(tmp_path, kill=kill, ends=KILLED, **options)
    sessions(tmp_path, **options)
    assert differences(uninterrupted(**options), tmp_path) == []
    assert read_history(tmp_path / "history.csv")["epoch"] == [1, 2, 3]


def test_fault_03_sigkill_between_history_and_checkpoint(tmp_path, sessions, uninterrupted):
    """The history has a row of epoch 2, but the checkpoint of epoch 2 is missing."""
    killed = shutil.copytree(uninterrupted(2), tmp_path / "killed")
    sorted((killed / "checkpoints").iterdir())[-1].unlink()
    assert read_history(killed / "history.csv")["epoch"] == [1, 2]
    output = sessions(killed, epochs=3)
    assert "history.csv ends with epoch 2, the newest checkpoint that verifies is of epoch 1" in output
    assert differences(uninterrupted(3), killed) == []
    assert read_history(killed / "history.csv")["epoch"] == [1, 2, 3]


def test_fault_04_killed_several_times_during_restore(tmp_path, sessions, uninterrupted):
    sessions(tmp_path, epochs=3, kill={"step": [2, 0]}, ends=KILLED)
    before = checkpoint_files(tmp_path / "checkpoints")
    for call in (3, 9, 15):
        sessions(tmp_path, epochs=3, kill={"restore": call}, ends=KILLED)
        assert checkpoint_files(tmp_path / "checkpoints") == before
    sessions(tmp_path, epochs=3)
    assert differences(uninterrupted(3), tmp_path) == []


def test_fault_05_and_06_killed_every_few_epochs_with_dropout_augmentation_and_batchnorm(
    tmp_path, sessions, uninterrupted
):
    options = {"epochs": 12, **FINAL}
    rng = random.Random(5)
    epoch = 1
    while epoch < 12:
        epoch += rng.randrange(1, 5)
        sessions(tmp_path, kill={"step": [min(epoch, 12), rng.randrange(7)]}, ends=KILLED, **options)
    sessions(tmp_path, **options)
    assert differences(uninterrupted(**options), tmp_path) == []
    settings = json.loads((tmp_path / "run.json").read_text())["experiment"]
    assert settings["dropout"] > 0
    assert settings["augmentation"] is not None


def test_fault_16_mount_lost_during_training_is_reported_and_training_ends(tmp_path, sessions, uninterrupted, mount):
    """The server is killed after epoch 1; the same call delivers the waiting checkpoints when the mount is back."""
    options = {"epochs": 12, "drive_folder": str(mount.path / "run"), "drive_minutes": 0}
    sessions.start(tmp_path / "run", **options)
    deadline = time.monotonic() + 60
    while not checkpoint_files(mount.files / "run" / "checkpoints"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    mount.kill()
    code, output = sessions.finish()
    assert code == 0, output
    assert "Transport endpoint is not connected" in output
    assert f"Epoch 12 is not in {mount.path / 'run'} yet" in output
    mount.unmount()
    mount.mount()
    output = sessions(tmp_path / "run", **options)
    assert f"Epoch 12 is in {mount.path / 'run'}, read back and verified." in output
    assert differences(uninterrupted(12), tmp_path / "run") == []
    assert differences(uninterrupted(12), mount.files / "run") == []
    assert (mount.files / "run" / "model.keras").exists()


def test_fault_20_full_local_disk_keeps_the_last_checkpoint(tmp_path, sessions, uninterrupted):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=450k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        output = sessions(disk / "run", epochs=9, ends=2)
        assert "No space left on device. The run stays at its last checkpoint; make room" in output
        done = status(disk / "run")["epoch"]
        assert done > 0
        assert not list(disk.rglob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
        sessions(disk / "run", epochs=done + 1)
        assert differences(uninterrupted(done + 1), disk / "run") == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("step", [1, 5])
def test_fault_27_ctrl_c_then_the_same_call_in_the_same_process(
    tmp_path, small_options, uninterrupted, step, monkeypatch
):
    # The first epoch, by which the second one is judged, holds the compilation.
    monkeypatch.setattr("colabcnn.training.interruption.EPOCH_SECONDS", 1000)

    class CtrlC(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.model.optimizer.iterations == 7 + step:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    options = {**small_options, "epochs": 3}
    with pytest.raises(KeyboardInterrupt):
        run(COMPLETE, tmp_path, callbacks=[CtrlC()], **options)
    assert signal.getsignal(signal.SIGINT) is before
    assert status(tmp_path)["epoch"] == 2
    run(COMPLETE, tmp_path, **options)
    assert differences(uninterrupted(3, **FINAL), tmp_path) == []


def test_interrupt_between_long_epochs_begins_no_other_one(tmp_path, small_experiment, small_options, monkeypatch):
    class Epochs(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            begun.append(epoch + 1)

    def interrupt_and_save(recorder, seconds):
        os.kill(os.getpid(), signal.SIGINT)
        save(recorder, seconds)

    begun, save = [], Recorder._save
    monkeypatch.setattr(Recorder, "_save", interrupt_and_save)
    for module in ("interruption", "recorder"):  # Each epoch is a long one.
        monkeypatch.setattr(f"colabcnn.training.{module}.EPOCH_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        run(small_experiment, tmp_path, callbacks=[Epochs()], **{**small_options, "epochs": 3})
    assert begun == [1]
    assert status(tmp_path)["epoch"] == 1


def test_interrupt_in_the_first_epoch_ends_the_run_at_once(tmp_path, small_experiment, small_options):
    class CtrlC(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGINT)
            assert batch < 3

    with pytest.raises(KeyboardInterrupt):
        run(small_experiment, tmp_path, callbacks=[CtrlC()], **small_options)


@pytest.mark.parametrize("damage", ["torn", "replayed", "missing"])
def test_fault_28_damaged_history_is_repaired_to_one_row_an_epoch(tmp_path, sessions, uninterrupted, damage):
    damaged = shutil.copytree(uninterrupted(2), tmp_path / "damaged")
    path = damaged / "history.csv"
    text = path.read_text()
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(text[:-20] if damage == "torn" else text + text.splitlines()[-1] + "\n")
    sessions(damaged, epochs=3)
    assert differences(uninterrupted(3), damaged) == []
    assert read_history(path)["epoch"] == [1, 2, 3]


def test_last_delivery_has_the_time_that_is_reserved_for_it_though_the_hours_have_passed():
    left, now = [None], time.monotonic()
    session = SimpleNamespace(deadline=now - 5, delivery=SimpleNamespace(reserved_seconds=30.0))
    session.interruption = SimpleNamespace(seconds_left=lambda: left[0])
    assert Session.seconds_for_delivery(session, 300) == 30
    assert Session.seconds_for_delivery(session, 20) == 20
    session.deadline = now + 1000
    assert Session.seconds_for_delivery(session, 300) == 300
    left[0] = 12.0  # Of a machine that is shut down.
    assert Session.seconds_for_delivery(session, 300) == 12


def test_fault_31_limit_of_hours_ends_with_the_epoch_saved_and_delivered(
    tmp_path, small_experiment, small_options, monkeypatch, capsys
):
    skipped = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + skipped[0])
    for module in ("recorder", "run", "session"):
        monkeypatch.setattr(f"colabcnn.training.{module}.time", clock)

    class Slow(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            skipped[0] += 20

    seconds, began = 400, clock.monotonic()
    options = {**small_options, "epochs": 100, "drive_folder": tmp_path / "drive", "drive_minutes": 0, "quiet": False}
    result = run(small_experiment, tmp_path / "run", hours=seconds / 3600, callbacks=[Slow()], **options)
    assert clock.monotonic() - began < seconds
    done = status(tmp_path / "run")["epoch"]
    assert done > 1
    assert not result.complete
    assert result.reason.startswith(f"the hours have passed after epoch {done};")
    assert f"Epoch {done} is in {tmp_path / 'drive'}, read back and verified." in capsys.readouterr().out
    assert status(tmp_path / "drive") == status(tmp_path / "run")
    assert result.reason in json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0].values()


@pytest.mark.versions
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.colab
def test_fault_32_sigterm_ends_the_epoch_then_saves_and_delivers_within_20_seconds(tmp_path, backend):
    command = [sys.executable, "-m", "colabcnn", "train", "06_final", "--data", "synthetic", "--train-size", "32"]
    command += ["--val-size", "20", "--run-dir", tmp_path / "run", "--drive-folder", tmp_path / "drive"]
    # The time limit is for what a person runs, so XLA optimizes here, unlike in the other tests.
    environment = {**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": ""}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 600
        while len(read_rows(tmp_path / "run" / "history.csv")) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        began = time.monotonic()
        process.terminate()
        output, _ = process.communicate(timeout=60)
        assert time.monotonic() - began < 20
    finally:
        process.kill()
    assert process.returncode == 3, output
    done = status(tmp_path / "run")["epoch"]
    assert done >= 2
    assert len(read_rows(tmp_path / "run" / "history.csv")) == done
    assert [epoch_of(path) for path in checkpoint_files(tmp_path / "drive" / "checkpoints")][:1] == [done]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]["ended"] == "interrupted"


def read_rows(path):
    return path.read_text().splitlines()[1:] if path.exists() else []
