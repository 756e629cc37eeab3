"""`CheckpointToDrive` in a user's own `fit`: the same call resumes it."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest

from colabcnn import CheckpointToDrive, Error, status
from colabcnn.drive.sessions import write_session
from colabcnn.store.checkpoint_files import checkpoint_files, epoch_of

pytestmark = [pytest.mark.versions, pytest.mark.kill]

EPOCHS = 8


def images_and_labels():
    rng = np.random.default_rng(0)
    images = rng.random((96, 8), dtype=np.float32)
    return images, (images.sum(axis=1) > 4).astype("int32")


def compiled_model(units=8):
    keras.utils.set_random_seed(3)
    layers = [keras.Input((8,)), keras.layers.Dense(units, "relu"), keras.layers.Dropout(0.3)]
    model = keras.Sequential([*layers, keras.layers.BatchNormalization(), keras.layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def stock_callbacks(folder):
    """Return stock callbacks that act within the run, each by a state that it keeps over several epochs."""
    return [
        keras.callbacks.ReduceLROnPlateau("loss", patience=2, min_delta=9, factor=0.5, cooldown=1),
        keras.callbacks.EarlyStopping("loss", patience=6, min_delta=9, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras", monitor="val_loss", save_best_only=True),
    ]


class StopBefore(keras.callbacks.Callback):
    """Interrupt as Ctrl-C does, before an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.at:
            raise KeyboardInterrupt


def fit(drive, local, callbacks=(), *, epochs=EPOCHS, place=0, stop=None, model=None, checkpoint_minutes=0):
    """Train as a user's cell does; return the model and the history."""
    model = model or compiled_model()
    images, labels = images_and_labels()
    listed = list(callbacks)
    options = {"checkpoint_minutes": checkpoint_minutes, "drive_minutes": 0}
    listed.insert(place, CheckpointToDrive(drive, local_folder=local, **options))
    listed += [StopBefore(stop)] if stop is not None else []
    options = {"validation_data": (images, labels), "batch_size": 32, "shuffle": False, "verbose": 0}
    return model, model.fit(images, labels, epochs=epochs, callbacks=listed, **options)


def same(one, other):
    """Return whether two fits ended with the same weights, optimizer and history."""
    (model, history), (other_model, other_history) = one, other
    pairs = zip(
        [*model.variables, *model.optimizer.variables],
        [*other_model.variables, *other_model.optimizer.variables],
        strict=True,
    )
    return (
        history.epoch == other_history.epoch
        and history.history == other_history.history
        and all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "best").mkdir()
    result = fit(folder / "drive", folder / "local", stock_callbacks(folder / "best"))
    assert result[1].epoch == list(range(7))  # EarlyStopping has acted.
    assert len({*result[1].history["learning_rate"]}) > 2  # ReduceLROnPlateau has acted twice.
    return result, sorted(path.name for path in (folder / "best").iterdir())


# Each of the stock callbacks is first once, with ours before or behind all of them.
@pytest.mark.parametrize(
    "order, place", [((0, 1, 2), 3), ((1, 2, 0), 0), pytest.param((2, 0, 1), 3, marks=pytest.mark.newest)]
)
def test_fault_09_result_does_not_depend_on_the_order_of_callbacks(tmp_path, uninterrupted, order, place):
    result, best = uninterrupted
    (tmp_path / "best").mkdir()

    def callbacks():
        listed = stock_callbacks(tmp_path / "best")
        return [listed[number] for number in order]

    for stop in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "drive", tmp_path / "local", callbacks(), place=place, stop=stop)
    assert same(fit(tmp_path / "drive", tmp_path / "local", callbacks(), place=place), result)
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == best


def test_checkpoint_is_taken_after_its_minutes_and_at_the_end(tmp_path):
    fit(tmp_path / "drive", tmp_path / "local", checkpoint_minutes=60)
    assert [epoch_of(path) for path in checkpoint_files(tmp_path / "local" / "checkpoints")] == [EPOCHS]


def test_fit_stops_in_order_if_a_newer_session_has_taken_over(tmp_path, capsys):
    class TakeOver(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            deadline = time.monotonic() + 60
            while epoch == 2 and not (tmp_path / "drive" / "session-1.json").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            if epoch == 2:
                write_session(tmp_path / "drive", {"session": 2, "identity": "another machine's"})
            elif epoch > 2:
                time.sleep(0.05)  # As an epoch takes longer than a response of Drive.

    _, history = fit(tmp_path / "drive", tmp_path / "local", [TakeOver()], epochs=600)
    assert 3 <= len(history.epoch) < 600
    assert f"A newer session trains this run in {tmp_path / 'drive'}: this one stops." in capsys.readouterr().out


def test_fit_resumes_from_drive_on_another_machine(tmp_path):
    expected = fit(tmp_path / "other drive", tmp_path / "other local")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "drive", tmp_path / "one", stop=5)
    result = fit(tmp_path / "drive", tmp_path / "two")
    assert checkpoint_files(tmp_path / "two" / "checkpoints")
    assert same(result, expected)


@pytest.mark.colab
def test_finished_fit_trains_nothing_and_more_epochs_extend_it(tmp_path):
    first = fit(tmp_path / "drive", tmp_path / "local", epochs=3)
    steps = first[0].optimizer.iterations.numpy() if hasattr(first[0].optimizer.iterations, "numpy") else 9
    again = fit(tmp_path / "drive", tmp_path / "local", epochs=3)
    assert int(again[0].optimizer.iterations) == int(steps) == 9
    assert same(again, first)
    longer = fit(tmp_path / "drive", tmp_path / "local", epochs=5)
    assert same(longer, fit(tmp_path / "d", tmp_path / "l", epochs=5))


@pytest.mark.colab
def test_same_model_object_in_the_same_process_resumes(tmp_path):
    """As in a notebook: the cell that trains runs again, the cell that builds the model does not."""
    model = compiled_model()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "drive", tmp_path / "local", model=model, stop=4)
    result = fit(tmp_path / "drive", tmp_path / "local", model=model)
    assert same(result, fit(tmp_path / "d", tmp_path / "l"))
    images, labels = images_and_labels()
    assert model.fit(images, labels, epochs=2, verbose=0).epoch == [0, 1]


@pytest.mark.colab
def test_fit_that_another_callback_stopped_resumes(tmp_path):
    class TimeIsUp(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 2

    assert fit(tmp_path / "drive", tmp_path / "local", [TimeIsUp()])[1].epoch == [0, 1, 2]
    assert same(fit(tmp_path / "drive", tmp_path / "local"), fit(tmp_path / "d", tmp_path / "l"))


@pytest.mark.colab
def test_extended_fit_after_early_stopping_is_not_finished_when_interrupted(tmp_path):
    def callbacks():
        return [keras.callbacks.EarlyStopping("loss", patience=3, min_delta=9, mode="max", start_from_epoch=0)]

    assert fit(tmp_path / "drive", tmp_path / "local", callbacks(), epochs=5)[1].epoch == [0, 1, 2, 3]
    patient = keras.callbacks.EarlyStopping("loss", patience=100, min_delta=9, mode="max")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "drive", tmp_path / "local", [patient], epochs=8, stop=6)
    patient = keras.callbacks.EarlyStopping("loss", patience=100, min_delta=9, mode="max")
    assert fit(tmp_path / "drive", tmp_path / "local", [patient], epochs=8)[1].epoch == list(range(8))


def test_best_weights_in_bfloat16_are_restored(tmp_path):
    def model():
        keras.utils.set_random_seed(3)
        layers = [keras.Input((8,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")]
        model = keras.Sequential(layers)
        for layer in model.layers:
            layer.dtype_policy = "bfloat16"
        model = keras.Sequential.from_config(model.get_config())
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        assert keras.backend.standardize_dtype(model.weights[0].dtype) == "bfloat16"
        return model

    def callbacks():
        return [keras.callbacks.EarlyStopping("loss", patience=100, restore_best_weights=True)]

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "drive", tmp_path / "local", callbacks(), model=model(), stop=3)
    result = fit(tmp_path / "drive", tmp_path / "local", callbacks(), model=model())
    assert result[1].epoch == list(range(EPOCHS))


@pytest.mark.newest
def test_full_disk_is_one_error_and_the_next_call_resumes(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Error, match="No space left on device"):
        patch.setattr(os, "fsync", no_room)
        fit(tmp_path / "drive", tmp_path / "local", epochs=3)
    fit(tmp_path / "drive", tmp_path / "local", epochs=3)


def no_room(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.newest
def test_partial_file_of_a_killed_write_is_removed(tmp_path):
    fit(tmp_path / "drive", tmp_path / "local", epochs=1)
    partial = tmp_path / "local" / "checkpoints" / ".epoch-000002-0.safetensors.9.partial"
    partial.write_bytes(b"half")
    fit(tmp_path / "drive", tmp_path / "local", epochs=2)
    assert not partial.exists()


@pytest.mark.newest
def test_folder_of_one_kind_is_refused_by_the_other(tmp_path):
    fit(tmp_path / "drive", tmp_path / "local", epochs=1)
    for folder in ("drive", "local"):
        with pytest.raises(Error, match="holds a fit of CheckpointToDrive"):
            status(tmp_path / folder)


@pytest.mark.newest
def test_checkpoint_of_another_model_is_refused_and_kept(tmp_path):
    fit(tmp_path / "drive", tmp_path / "local", epochs=1)
    before = checkpoint_files(tmp_path / "local" / "checkpoints")
    with pytest.raises(Error, match=r"holds the checkpoints of another model: .* than the \d+ of this one\."):
        fit(tmp_path / "drive", tmp_path / "new", model=compiled_model(units=9))
    assert not (tmp_path / "new" / "checkpoints").exists()
    with pytest.raises(Error, match="do not fit this model"):
        fit(tmp_path / "other drive", tmp_path / "local", model=compiled_model(units=9))
    assert checkpoint_files(tmp_path / "local" / "checkpoints") == before


@pytest.mark.newest
def test_checkpoint_reaches_drive_within_the_next_epoch(tmp_path):
    """An epoch may take longer than the time between two deliveries."""

    class LongEpoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            deadline = time.monotonic() + 60
            while epoch == 1 and not delivered and time.monotonic() < deadline:
                callback.on_train_batch_begin(0)  # As at each of its steps.
                delivered.extend(map(epoch_of, checkpoint_files(tmp_path / "drive" / "checkpoints")))
                time.sleep(0.05)

    delivered = []
    callback = CheckpointToDrive(
        tmp_path / "drive", local_folder=tmp_path / "local", checkpoint_minutes=0, drive_minutes=0
    )
    compiled_model().fit(*images_and_labels(), epochs=2, callbacks=[LongEpoch(), callback], verbose=0)
    assert delivered == [1]


@pytest.mark.newest
def test_finished_fit_names_what_another_one_needs(tmp_path, capsys):
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9)
    fit(tmp_path / "drive", tmp_path / "local", [stop], epochs=5)
    capsys.readouterr()
    fit(tmp_path / "drive", tmp_path / "local", [stop], epochs=5)
    output = capsys.readouterr().out
    assert "Epoch 2 of 5 is restored, and this `fit` trains nothing. It was ended by EarlyStopping." in output
    assert "To train longer, give more than 5 epochs. Another run, fold or trial needs another folder." in output


@pytest.mark.newest
def test_best_model_whose_file_is_lost_is_saved_again(tmp_path, capsys):
    def saver(machine):
        return keras.callbacks.ModelCheckpoint(
            tmp_path / machine / "best.keras", "score", save_best_only=True, mode="max"
        )

    class Score(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = 9.0 - epoch

    for machine, epochs in (("one", 2), ("one", 3), ("two", 4)):
        (tmp_path / machine).mkdir(exist_ok=True)
        fit(tmp_path / "drive", tmp_path / machine / "local", [Score(), saver(machine)], epochs=epochs, place=2)
        assert (tmp_path / machine / "best.keras").exists()
        assert ("which ModelCheckpoint saved before, is missing here" in capsys.readouterr().out) == (machine == "two")


def model_without_input():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.3), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_model_that_the_first_step_builds_resumes_and_is_delivered(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "drive", tmp_path / "local", model=model_without_input(), stop=4)
    resumed = fit(tmp_path / "drive", tmp_path / "local", model=model_without_input())
    assert same(resumed, fit(tmp_path / "d", tmp_path / "l", model=model_without_input()))
    assert epoch_of(checkpoint_files(tmp_path / "drive" / "checkpoints")[0]) == EPOCHS


@pytest.mark.colab
def test_later_fits_of_a_model_that_the_first_step_built_resume_in_a_new_one(tmp_path):
    model = model_without_input()
    for stop in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "drive", tmp_path / "local", model=model, stop=stop)
    resumed = fit(tmp_path / "drive", tmp_path / "local", model=model_without_input())
    assert same(resumed, fit(tmp_path / "d", tmp_path / "l", model=model_without_input()))


@pytest.mark.parametrize("bad", [{"checkpoint_minutes": -1}, {"drive_minutes": "ten"}, {"local_folder": "same"}])
@pytest.mark.newest
def test_bad_argument_is_refused_by_name(tmp_path, bad):
    with pytest.raises(Error, match=next(iter(bad))):
        CheckpointToDrive(tmp_path / "same", **{key: tmp_path / v if v == "same" else v for key, v in bad.items()})


def test_evaluation_outside_a_fit_touches_neither_folder(tmp_path):
    callback = CheckpointToDrive(tmp_path / "drive", local_folder=tmp_path / "local", drive_minutes=np.int64(0))
    model = compiled_model()
    model.evaluate(*images_and_labels(), callbacks=[callback], verbose=0)
    assert not any(tmp_path.iterdir())
    model.fit(*images_and_labels(), callbacks=[callback], verbose=0)
    shutil.rmtree(tmp_path / "drive")
    model.evaluate(*images_and_labels(), callbacks=[callback], verbose=0)
    assert not callback._delivery._process.busy


@pytest.mark.newest
def test_default_local_folder_depends_on_the_drive_folder_only(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    one, other = CheckpointToDrive("/drive/a/run"), CheckpointToDrive("/drive/b/run")
    assert one.local_folder.parent == tmp_path / ".colabcnn"
    assert one.local_folder == CheckpointToDrive("/drive/a/run").local_folder
    assert one.local_folder != other.local_folder


@pytest.mark.newest
def test_fit_that_another_process_trains_is_refused(tmp_path):
    code = """
        import sys, fcntl, os
        lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.read()
    """
    (tmp_path / "local").mkdir()
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "local" / "lock")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Error, match="is being trained in"):
        fit(tmp_path / "drive", tmp_path / "local", epochs=1)
    holder.communicate()
    fit(tmp_path / "drive", tmp_path / "local", epochs=1)
