"""A run survives each fault: callbacks' state, other devices, other sessions, another run in its folders.

The numbers are those of the faults that a run must survive; tests without training are in `drive/`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import keras
import numpy as np
import pytest

from colabcnn import Adam, Error, load_model, run, status
from colabcnn.colab import seconds_since_start
from colabcnn.store.checkpoint_files import checkpoint_files
from colabcnn.store.history import read_history
from colabcnn.store.lock import Lock
from colabcnn.store.run_folder import RunFolder
from support.runs import differences
from support.shared_files import EXPERIMENT, OPTIONS

pytestmark = pytest.mark.kill


@pytest.fixture(scope="module")
def sessions(sessions_on):
    return sessions_on(os.environ.get("KERAS_BACKEND", "tensorflow"))


def callback_of(kind):
    return {
        "ReduceLROnPlateau": lambda: keras.callbacks.ReduceLROnPlateau("loss", patience=2, min_delta=9, factor=0.5),
        "EarlyStopping": lambda: keras.callbacks.EarlyStopping("loss", patience=3, min_delta=9),
        "schedule": lambda: keras.callbacks.LearningRateScheduler(
            lambda epoch, rate: rate * (0.5 if epoch == 2 else 1)
        ),
    }[kind]()


@pytest.mark.parametrize("kind", ["ReduceLROnPlateau", "EarlyStopping", "schedule"])
def test_fault_07_callback_acts_at_the_same_epoch_after_a_resume(tmp_path, small_experiment, small_options, kind):
    uninterrupted, resumed = tmp_path / "uninterrupted", tmp_path / "resumed"
    result = run(small_experiment, uninterrupted, callbacks=[callback_of(kind)], **{**small_options, "epochs": 5})
    acts = len(result.history["epoch"]) == 4 if kind == "EarlyStopping" else len({*result.history["learning_rate"]}) > 1
    assert acts
    for epochs in (2, 5):
        run(small_experiment, resumed, callbacks=[callback_of(kind)], **{**small_options, "epochs": epochs})
    assert differences(uninterrupted, resumed) == []


def test_fault_08_earlier_best_weights_are_kept_on_a_new_machine(tmp_path, small_experiment, small_options):
    class Worse(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                best.extend(self.model.network.get_weights())
            logs["val_accuracy"] = 0.5 - epoch / 10

    best, drive = [], tmp_path / "drive"
    for machine, epochs in (("one", 2), ("two", 3)):
        options = {**small_options, "epochs": epochs, "drive_folder": drive, "drive_minutes": 0}
        run(small_experiment, tmp_path / machine, callbacks=[Worse()], **options)
    assert status(tmp_path / "two")["best_epoch"] == 1
    assert all(np.array_equal(a, b) for a, b in zip(load_model(tmp_path / "two").get_weights(), best, strict=True))


PLAN_AND_IMAGES = """
import hashlib, sys
import numpy as np
from colabcnn import ABLATIONS
from colabcnn.network import training_model as trainer
from colabcnn.network.augmentation import augment
from colabcnn.data.synthetic import load_synthetic

plans = []
callback = trainer.PlanEpoch(ABLATIONS["06_final"], 7, 64)
trainer.reseed_dropout = lambda *arguments: None
device_data = type("DeviceData", (), {"load_plan": lambda self, plan: plans.append(plan)})()
callback.set_model(type("Model", (), {"device_data": device_data, "network": None})())
callback.on_epoch_begin(2)
(plan,) = plans
digest = hashlib.sha256(plan.rows.tobytes())
for name in sorted(plan.transforms):
    digest.update(plan.transforms[name].tobytes())
images = load_synthetic(64, 1)[0][0][plan.rows]
np.save(sys.argv[1], np.asarray(augment(images, **plan.transforms)))
print(digest.hexdigest())
"""


def test_fault_10_same_order_and_augmentation_on_both_backends(tmp_path):
    digests, images = [], []
    for backend in ("tensorflow", "jax"):
        path = tmp_path / f"{backend}.npy"
        command = [sys.executable, "-c", PLAN_AND_IMAGES, str(path)]
        environment = {**os.environ, "KERAS_BACKEND": backend}
        completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.append(completed.stdout.split()[-1])
        images.append(np.load(path))
    assert digests[0] == digests[1]
    assert np.abs(images[0] - images[1]).max() < 0.01  # On a scale of 255.


def test_fault_19_unreadable_drive_without_a_local_run_is_refused(tmp_path, sessions, mount):
    mount.kill()
    output = sessions(tmp_path / "run", epochs=1, drive_folder=str(mount.path / "run"), ends=2)
    assert "Nothing was started, since the run may be there: try again" in output
    assert not (tmp_path / "run" / "history.csv").exists()


def test_fault_24_second_run_in_a_folder_is_refused(tmp_path, sessions, run_cli):
    (tmp_path / "run").mkdir()
    with Lock(tmp_path / "run"):
        refused = run_cli("train", "06_final", "--run-dir", tmp_path / "run", "--data", "synthetic")
        assert sessions(tmp_path / "run", epochs=1, ends=2).startswith("colabcnn: ")
    sessions(tmp_path / "run", epochs=1)
    assert refused.returncode == 2
    assert "is being trained in by process" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_fault_24_older_session_stops_in_order_when_another_machine_takes_over(tmp_path, sessions):
    options = {"drive_folder": str(tmp_path / "drive"), "drive_minutes": 0}
    sessions.start(tmp_path / "older", epochs=400, **options)
    while not checkpoint_files(tmp_path / "drive" / "checkpoints"):
        time.sleep(0.01)
    (tmp_path / "drive" / "session-2.json").write_text(
        json.dumps({"session": 2, "identity": "", "run": None, "newest": None})
    )
    code, output = sessions.finish()
    assert code == 3, output
    starts = json.loads((tmp_path / "older" / "run.json").read_text())["starts"]
    assert "a newer session trains this run" in starts[0]["ended"]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_fault_25_run_resumes_on_another_device_or_version_and_reports_it(
    tmp_path, small_experiment, small_options, capsys, dropout
):
    small_experiment = replace(small_experiment, dropout=dropout)
    run(small_experiment, tmp_path, **{**small_options, "epochs": 1})
    path = tmp_path / "run.json"
    record = json.loads(path.read_text())
    record["starts"][0]["versions"]["keras"] = "3.0.0"
    record["starts"][0]["device"] = "Tesla T4"
    record["starts"][0]["commit"] = "ab" * 20
    path.write_text(json.dumps(record))
    result = run(small_experiment, tmp_path, **{**small_options, "epochs": 2, "quiet": False})
    assert result.history["epoch"] == [1, 2]
    output = capsys.readouterr().out
    assert "Tesla T4 before" in output
    assert "keras 3.0.0 before" in output
    assert f'set CODE = "{"ab" * 20}"' in output
    assert "the last bits may differ" in output
    assert ("dropout may draw other masks" in output) == bool(dropout)


def test_fault_26_run_ended_by_early_stopping_is_finished_until_it_is_extended(
    tmp_path, small_experiment, small_options
):
    def train(epochs):
        callbacks = [keras.callbacks.EarlyStopping("loss", patience=1, min_delta=9)]
        return run(small_experiment, tmp_path, callbacks=callbacks, **{**small_options, "epochs": epochs})

    assert train(9).history["epoch"] == [1, 2]
    before = sorted((tmp_path / "checkpoints").iterdir())
    assert train(9).complete
    assert sorted((tmp_path / "checkpoints").iterdir()) == before
    assert train(10).history["epoch"] == [1, 2, 3]


def test_hours_count_from_the_start_of_a_colab_runtime(monkeypatch):
    assert seconds_since_start() == 0
    if not shutil.which("ps"):
        pytest.skip("procps is not installed, whose ps knows the age of the first process")
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260101")
    before = seconds_since_start()
    age = subprocess.run(["ps", "-o", "etimes=", "-p", "1"], capture_output=True, text=True, check=True).stdout
    assert before - 2 < int(age) < seconds_since_start() + 2


@pytest.fixture(scope="module")
def other_on_drive(tmp_path_factory):
    """A folder on Drive with a run of another seed; tests copy it."""
    folder = tmp_path_factory.mktemp("other")
    run(EXPERIMENT, folder / "run", drive_folder=folder / "drive", seed=1, epochs=2, **OPTIONS)
    return folder / "drive"


@pytest.mark.parametrize("local", ["nothing", "the run"])
@pytest.mark.parametrize("lost", [(), ("run.json",)], ids=["complete", "run.json lost"])
def test_another_run_on_drive_is_refused_and_not_fetched(
    tmp_path, other_on_drive, small_experiment, small_options, local, lost
):
    drive = shutil.copytree(other_on_drive, tmp_path / "drive")
    for name in lost:
        (drive / name).unlink()
    if local == "the run":
        run(small_experiment, tmp_path / "mine", **{**small_options, "epochs": 1})
    before = sorted((tmp_path / "mine").rglob("epoch-*"))
    with pytest.raises(Error, match=f"{drive} holds another run: its seed is 1, now given 0"):
        run(small_experiment, tmp_path / "mine", drive_folder=drive, **small_options)
    assert sorted((tmp_path / "mine").rglob("epoch-*")) == before
    assert run(small_experiment, tmp_path / "mine", **{**small_options, "epochs": 2}).complete


def test_shorter_run_of_another_seed_on_drive_is_refused_though_its_record_is_lost(
    tmp_path, other_on_drive, small_experiment, small_options
):
    drive = shutil.copytree(other_on_drive, tmp_path / "drive")
    (drive / "run.json").unlink()
    run(small_experiment, tmp_path / "mine", **small_options)
    with pytest.raises(Error, match=f"{drive} holds another run; use another folder") as caught:
        run(small_experiment, tmp_path / "mine", drive_folder=drive, **small_options)
    assert caught.value.kind == "another_run"


def test_start_over_moves_the_run_aside_here_and_on_drive(tmp_path, small_experiment, small_options, capsys):
    options = {**small_options, "drive_folder": tmp_path / "drive", "drive_minutes": 0}
    other = {**options, "epochs": 1, "seed": 3}
    first = run(small_experiment, tmp_path / "run", **{**options, "epochs": 2})
    again = run(small_experiment, tmp_path / "run", start_over=True, **{**other, "quiet": False})
    output = capsys.readouterr().out
    assert first.history["loss"][0] != again.history["loss"][0]
    for folder in (tmp_path / "run", tmp_path / "drive"):
        assert status(folder)["epoch"] == 1
        assert read_history(folder / "moved-aside-1" / "history.csv")["epoch"] == [1, 2]
        assert status(folder / "moved-aside-1")["epoch"] == 2  # What was moved is a run.
        assert f"The former run is kept in {folder / 'moved-aside-1'}." in output
    shutil.rmtree(tmp_path / "run")
    assert run(small_experiment, tmp_path / "run", **other).history == again.history


def test_run_whose_folder_vanishes_ends_in_one_error(tmp_path, small_experiment, small_options):
    def lose(epoch, logs):
        if epoch:
            (tmp_path / "run").rename(tmp_path / "lost")

    gone = keras.callbacks.LambdaCallback(on_epoch_begin=lose)
    with pytest.raises(Error, match="No such file or directory"):
        run(small_experiment, tmp_path / "run", **{**small_options, "callbacks": [gone]})


def test_full_disk_is_found_before_anything_is_trained(mount_tmpfs):
    folder = mount_tmpfs("size=64k")
    with contextlib.suppress(OSError):
        (folder / "full").write_bytes(bytes(2**17))
    with pytest.raises(Error, match=r"No space left on device.*; make room"):
        RunFolder(folder).create()


def test_start_over_with_bad_data_moves_nothing(tmp_path, trained, small_experiment, small_options):
    folder = shutil.copytree(trained, tmp_path / "run")
    with pytest.raises(Error, match="nothing does not exist; expected a folder with"):
        run(small_experiment, folder, start_over=True, **{**small_options, "data": tmp_path / "nothing"})
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in trained.iterdir())


def test_stopped_run_that_started_over_is_continued_without_start_over(
    tmp_path, small_experiment, small_options, capsys
):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            signal.raise_signal(signal.SIGINT)

    options = {**small_options, "quiet": False, "callbacks": [Interrupt()]}
    with pytest.raises(KeyboardInterrupt):
        run(small_experiment, tmp_path / "run", start_over=True, **options)
    assert "the same call without start_over " in capsys.readouterr().out


@pytest.mark.parametrize("new_epochs", [0, 1])
def test_run_that_another_machine_has_extended_keeps_its_length_and_all_starts(
    tmp_path, small_experiment, small_options, new_epochs
):
    class StopWithinFirst(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not new_epochs:
                raise KeyboardInterrupt

    small_options["epochs"] = None
    options = {**small_options, "drive_folder": tmp_path / "drive"}
    assert run(small_experiment, tmp_path / "one", **{**options, "epochs": 1}).complete
    # The first machine's clock is fast.
    record = json.loads((tmp_path / "one" / "run.json").read_text())
    record["starts"][0]["time"] = "2099-01-01T00:00:00+00:00"
    (tmp_path / "one" / "run.json").write_text(json.dumps(record))
    with pytest.raises(KeyboardInterrupt) if not new_epochs else contextlib.nullcontext():
        longer = {**options, "epochs": 3, "hours": 1e-9, "callbacks": [StopWithinFirst()]}
        assert not run(small_experiment, tmp_path / "two", **longer).complete
    result = run(small_experiment, tmp_path / "one", **options)
    assert (result.complete, result.history["epoch"]) == (True, [1, 2, 3])
    for folder in ("one", "drive"):
        record = json.loads((tmp_path / folder / "run.json").read_text())
        assert record["experiment"]["epochs"] == 3
        starts = [(start["first_epoch"], start["last_epoch"]) for start in record["starts"]]
        assert starts == [(1, 1), (2, 1 + new_epochs), (2 + new_epochs, 3)]


def test_setting_as_a_whole_number_is_the_same_run_here_and_on_drive(tmp_path, small_experiment, small_options, capsys):
    options = {**small_options, "drive_folder": tmp_path / "drive", "quiet": False}
    for epochs, rate in ((1, 1), (2, 1.0)):
        experiment = replace(small_experiment, optimizer=Adam(rate))
        assert run(experiment, tmp_path / "run", **{**options, "epochs": epochs}).complete
        assert f"Epoch {epochs} is in {tmp_path / 'drive'}, read back and verified." in capsys.readouterr().out


def test_start_over_without_its_drive_starts_no_run(tmp_path, small_experiment, small_options, mount):
    mount.kill()
    with pytest.raises(Error, match="Transport endpoint"):
        run(small_experiment, tmp_path / "run", drive_folder=mount.path / "run", start_over=True, **small_options)
