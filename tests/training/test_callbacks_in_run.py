"""Keras's callbacks work with `run`, or are refused before anything begins."""

import keras
import numpy as np
import pytest

from colabcnn import CheckpointToDrive, Error, load_model, run, status
from support.runs import differences
from support.shared_files import COMPLETE

pytestmark = [pytest.mark.versions, pytest.mark.kill]


@pytest.mark.colab
def test_callbacks_that_save_and_log_work_and_resume(tmp_path, small_options, capsys):
    def callbacks():
        return [
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True, save_freq=2),
            keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau(patience=1),
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
            keras.callbacks.TerminateOnNaN(),
            LoadsAtTheEnd(),
        ]

    class LoadsAtTheEnd(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            self.model.load_weights(tmp_path / "last.weights.h5")

    for epochs in (1, 2):
        options = {**small_options, "epochs": epochs, "quiet": False}
        run(COMPLETE, tmp_path / "run", callbacks=callbacks(), **options)
    assert "CSVLogger empties" in capsys.readouterr().out
    # A plain network, which Keras opens without this library.
    images = np.random.default_rng(0).random((2, 32, 32, 3), dtype=np.float32)
    saved = keras.saving.load_model(tmp_path / "2.keras")
    assert saved.count_params() == load_model(tmp_path / "run").count_params()
    assert saved.predict(images, verbose=0).shape == (2, 10)
    load_model(tmp_path / "run").load_weights(tmp_path / "last.weights.h5")


class StopWithinFirstEpoch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        logs |= {"epoch": 7, "learning_rate": "none", "seconds": -1}


def test_epoch_in_which_a_callback_stops_is_complete_and_its_row_is_the_runs_own(tmp_path, trained, small_options):
    small_options["epochs"] = 2
    stopped = run(COMPLETE, tmp_path / "run", callbacks=[StopWithinFirstEpoch()], **small_options)
    assert (stopped.complete, stopped.reason) == (False, "stopped by a callback after epoch 1")
    assert stopped.history["epoch"] == [1]
    assert stopped.history["seconds"][0] > 0
    run(COMPLETE, tmp_path / "run", **small_options)
    assert differences(tmp_path / "run", trained) == []


@pytest.mark.newest
def test_run_that_a_callback_stops_in_its_last_epoch_is_complete(tmp_path, small_experiment, small_options):
    run(small_experiment, tmp_path / "run", callbacks=[StopWithinFirstEpoch()], **{**small_options, "epochs": 1})
    assert status(tmp_path / "run")["complete"]


@pytest.mark.parametrize("kind", ["BackupAndRestore", "CheckpointToDrive", "SwapEMAWeights"])
def test_callback_that_would_spoil_the_run_is_refused_before_it_begins(tmp_path, small_experiment, small_options, kind):
    callback = {
        "BackupAndRestore": lambda: keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        "CheckpointToDrive": lambda: CheckpointToDrive(tmp_path / "drive", local_folder=tmp_path / "local"),
        "SwapEMAWeights": keras.callbacks.SwapEMAWeights,
    }[kind]()
    with pytest.raises(Error, match=f"callbacks contain {kind}"):
        run(small_experiment, tmp_path / "run", callbacks=[callback], **small_options)
    assert not (tmp_path / "run").exists()
