"""A fit's state beside weights and optimizer comes back, or the callback names what does not."""

import collections
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from colabcnn import CheckpointToDrive, Error
from colabcnn.store.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from colabcnn.store.lock import Lock
from colabcnn.training import checkpoint_to_drive
from support.random_fits import KINDS, LATE, OWN_STEP
from support.runs import BACKENDS

pytestmark = [pytest.mark.versions, pytest.mark.kill]

ROOT = Path(__file__).resolve().parents[2]
# Together they have everything that `random_fits.py` can draw.
SEEDS = [2, 10, 11, 27, 33, 45, 57, 58]
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="this train_step is TensorFlow's")


@pytest.mark.colab
@pytest.mark.parametrize("backend", BACKENDS)
def test_random_fits_resume_as_the_uninterrupted_ones(tmp_path, backend):
    """One process is killed in the last of several fits, another one resumes them all."""
    script, environment = ROOT / "tests" / "support" / "random_fits.py", {**os.environ, "KERAS_BACKEND": backend}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    outputs = []
    for verb, status in ("train", -signal.SIGKILL), ("resume", 0):
        command = [sys.executable, str(script), verb, str(tmp_path), *map(str, SEEDS)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        outputs.append(done.stdout)
    found = [json.loads(line) for line in outputs[1].splitlines() if line.startswith("{")]
    assert [fit["seed"] for fit in found] == SEEDS
    assert [fit for fit in found if fit["differing"]] == []
    drawn = {kind for fit in found for kind in fit["kinds"]}
    assert drawn == {*KINDS} - ({OWN_STEP, LATE} if backend == "jax" else set())
    assert "is not restored" not in outputs[0] + outputs[1]


def test_documented_table_has_all_kinds_that_are_tried():
    table = (ROOT / "docs" / "reliability.md").read_text().partition("<!-- random fits -->\n")[2]
    rows = [line.split(" | ")[0][2:] for line in table.partition("<!-- end -->")[0].splitlines()[2:]]
    assert rows == [*KINDS]


@pytest.fixture
def callback(tmp_path):
    """Return a function that makes the callback of one run."""

    def callback(**options):
        options = {"local_folder": tmp_path / "local", "checkpoint_minutes": 0, "drive_minutes": 100, **options}
        return CheckpointToDrive(tmp_path / "drive", **options)

    return callback


class StopBefore(keras.callbacks.Callback):
    """Interrupt as Ctrl-C does, before an epoch, and keep the numbers of the epochs that began."""

    def __init__(self, epoch):
        super().__init__()
        self.at, self.epochs = epoch, []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)
        if epoch == self.at:
            raise KeyboardInterrupt


def dense():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def fit(model, callbacks, epochs=3):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(32, 6)).astype("float32")
    return model.fit(x, x[:, :1], epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)


def epochs_of(folder):
    return sorted(int(path.name.split("-")[1]) for path in (folder / "checkpoints").iterdir())


def test_weight_without_dimensions_keeps_its_shape_in_the_best_weights(callback):
    def model():
        normalization = keras.layers.Normalization()
        normalization.adapt(np.random.default_rng(0).normal(size=(32, 6)))
        model = keras.Sequential([keras.Input((6,)), normalization, keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    for _ in range(2):
        best = keras.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)
        fit(model(), [best, callback()])
    assert any(weight.shape == () for weight in best.best_weights)


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_number_of_epochs_may_be_numpys(callback, kind):
    assert len(fit(dense(), [callback()], epochs=kind(3)).epoch) == 3
    assert len(fit(dense(), [callback()], epochs=kind(5)).epoch) == 5


def test_value_in_the_logs_comes_back_or_is_left_out_by_name(callback, capsys):
    class Log(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs |= {"count": np.int64(epoch), "note": f"epoch {epoch}", "object": object()}

    fit(dense(), [Log(), callback()], epochs=2)
    assert capsys.readouterr().out.count("History.history.object[0] is not restored") == 1
    history = fit(dense(), [Log(), callback()], epochs=3).history
    assert history["note"] == ["epoch 0", "epoch 1", "epoch 2"]
    assert [type(count) for count in history["count"]] == [np.int64] * 3
    assert history["object"][:2] == [None, None]


@pytest.mark.parametrize("name", ["loss", "g_loss", "energy"])
def test_epoch_with_a_log_that_is_not_finite_replaces_no_checkpoint(callback, tmp_path, capsys, name):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs[name] = np.float32("inf") if epoch in (2, 3) else 1.0

    fit(dense(), [Spoil(), callback()], epochs=4)
    assert epochs_of(tmp_path / "local") == [1, 2]
    output = capsys.readouterr().out
    assert f"{name}: NaN or infinite in epoch 3" in output
    assert output.count("NaN or infinite") == 1
    fit(dense(), [Spoil(), StopBefore(4), callback()], epochs=4)
    assert epochs_of(tmp_path / "local") == [1, 2]


def test_log_that_was_never_finite_is_no_reason_against_a_checkpoint(callback, tmp_path, capsys):
    class Undefined(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["correlation"] = np.nan

    fit(dense(), [Undefined(), callback()], epochs=2)
    assert epochs_of(tmp_path / "local") == [1, 2]
    assert "NaN or infinite" not in capsys.readouterr().out


def test_weights_that_are_not_finite_replace_no_checkpoint(callback, tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.layers[-1].bias.assign([np.nan])

    fit(dense(), [Spoil(), callback()], epochs=2)
    assert epochs_of(tmp_path / "local") == [1]


def test_weight_that_was_never_finite_is_kept(callback, tmp_path):
    class Lowest(keras.layers.Layer):
        def build(self, shape):
            self.lowest = self.add_weight(initializer=keras.initializers.Constant(np.inf), trainable=False)

        def call(self, x):
            return x

    model = keras.Sequential([keras.Input((6,)), Lowest(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    fit(model, [callback()], epochs=2)
    assert epochs_of(tmp_path / "local") == [1, 2]


def test_epoch_that_another_callback_has_restored_is_left_alone(callback, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(dense(), [keras.callbacks.BackupAndRestore(tmp_path / "backup"), StopBefore(2)], epochs=4)
    seen = StopBefore(None)
    fit(dense(), [keras.callbacks.BackupAndRestore(tmp_path / "backup"), callback(), seen], epochs=4)
    assert seen.epochs == [2, 3]


def test_newer_epoch_of_another_callback_is_not_replaced_by_an_older_checkpoint(callback, tmp_path, capsys):
    fit(dense(), [callback()], epochs=1)
    with pytest.raises(KeyboardInterrupt):
        fit(dense(), [keras.callbacks.BackupAndRestore(tmp_path / "backup"), StopBefore(3)], epochs=4)
    seen = StopBefore(None)
    fit(dense(), [keras.callbacks.BackupAndRestore(tmp_path / "backup"), callback(), seen], epochs=4)
    assert seen.epochs == [3]
    assert "Another callback has restored epoch 3" in capsys.readouterr().out


def test_epoch_of_another_callback_is_left_alone_when_an_interrupted_fit_is_cleaned_up(callback, tmp_path):
    model = dense()
    stop, seen = StopBefore(2), StopBefore(None)
    for last in stop, seen:
        listed = [keras.callbacks.BackupAndRestore(tmp_path / "backup"), callback(checkpoint_minutes=60), last]
        with pytest.raises(KeyboardInterrupt) if last is stop else contextlib.nullcontext():
            fit(model, listed, epochs=4)
    assert seen.epochs == [2, 3]


def test_later_fit_of_the_same_model_starts_with_its_first_epoch(callback):
    class StopWithin(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.model.optimizer.iterations == 2:
                raise KeyboardInterrupt

    model = dense()
    for _ in range(2):  # The second one resumes.
        with pytest.raises(KeyboardInterrupt):
            fit(model, [callback(), StopWithin()])
    assert fit(model, []).epoch == [0, 1, 2]


@on_tensorflow
def test_attribute_that_changes_and_is_no_variable_is_named_once(callback, capsys):
    class Counting(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer, self.steps, self.fixed = keras.layers.Dense(1), 0, 7

        def call(self, x):
            return self.layer(x)

        def train_step(self, data):
            self.steps += 1
            return super().train_step(data)

    model = Counting()
    model(np.ones((1, 6)))
    model.compile("adam", "mse", run_eagerly=True)
    fit(model, [callback()])
    output = capsys.readouterr().out
    assert output.count("steps is not restored by a resume: it changes and is no variable") == 1
    assert "fixed" not in output


@on_tensorflow
@pytest.mark.parametrize(
    ("first", "later", "named"),
    [
        (None, 0.5, "note"),
        ("warm", "cold", "note"),
        ({"best": 1.0, "kept": 2}, {"best": 0.5, "kept": 2}, "note.best"),
        ([1, [2, 3]], [1, [2, 4]], "note.1.1"),
        ([], [0.5], "note"),
    ],
    ids=["none", "text", "dict", "list", "growing"],
)
def test_plain_value_that_changes_is_named_wherever_it_lies(callback, capsys, first, later, named):
    class Noting(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.holder = Holder(first)

        def call(self, x):
            return x

    class Holder:
        def __init__(self, note):
            self.note = note

    model = keras.Sequential([keras.Input((6,)), Noting(), keras.layers.Dense(1)])
    model.compile("adam", "mse")

    class Note(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            model.layers[0].holder.note = later

    fit(model, [Note(), callback()])
    output = capsys.readouterr().out
    assert output.count("is not restored by a resume: it changes and is no variable") == 1
    assert f"holder.{named} is not restored" in output


def test_variables_in_a_set_are_named(callback, capsys):
    class InSet(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.tools = types.SimpleNamespace(made={Tool(), Tool()})

        def call(self, x):
            return x

    class Tool:
        def __init__(self):
            self.count = keras.Variable(0.0)

    model = keras.Sequential([keras.Input((6,)), InSet(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    fit(model, [callback()])
    output = capsys.readouterr().out
    assert output.count("tools.made is not restored by a resume: a set has no order") == 1


def averaged(made_before):
    """Return a model that keeps a moving average of a kernel by TensorFlow's own class."""
    import tensorflow as tf

    class Averaged(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer, self.average = keras.layers.Dense(1), tf.train.ExponentialMovingAverage(0.9)

        def call(self, x):
            return self.layer(x)

        def train_step(self, data):
            logs = super().train_step(data)
            self.average.apply([self.layer.kernel.value])
            return logs

    keras.utils.set_random_seed(1)
    model = Averaged()
    model(np.ones((1, 6)))
    if made_before:
        model.average.apply([model.layer.kernel.value])
    model.compile("adam", "mse")
    return model


@on_tensorflow
def test_moving_average_made_before_the_fit_resumes(callback):
    def average(model):
        return keras.ops.convert_to_numpy(model.average.average(model.layer.kernel.value))

    uninterrupted, stopped, resumed = (averaged(made_before=True) for _ in range(3))
    fit(uninterrupted, [])
    fit(stopped, [callback()], epochs=2)
    fit(resumed, [callback()])
    np.testing.assert_array_equal(average(resumed), average(uninterrupted))


@on_tensorflow
def test_variable_that_the_first_step_makes_is_named_when_it_is_saved(callback, capsys):
    fit(averaged(made_before=False), [callback()])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "is not restored" in line]
    assert "average._averages.[0] is not restored by a resume: the first step makes it" in line


@on_tensorflow
def test_variable_of_a_class_resumes(callback):
    import tensorflow as tf

    class Counting(keras.Model):
        steps = tf.Variable(0, trainable=False)

        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, x):
            return self.layer(x)

        def train_step(self, data):
            self.steps.assign_add(1)
            return super().train_step(data)

    def model():
        model = Counting()
        model(np.ones((1, 6)))
        model.compile("adam", "mse")
        return model

    fit(model(), [callback()], epochs=2)
    Counting.steps.assign(100)
    fit(model(), [callback()], epochs=3)
    assert int(Counting.steps) == 3


def test_attribute_that_keras_changes_is_not_named(callback, capsys):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def call(self, x):
            return self.layer(x)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    model = Own()
    model(np.ones((1, 6)))
    model.compile("adam", "mse")
    assert fit(model, [Stop(), callback()]).epoch == [0, 1]
    assert "is not restored" not in capsys.readouterr().out


@on_tensorflow
def test_layer_that_only_train_step_calls_resumes(callback, capsys):
    import tensorflow as tf

    class Headed(keras.Model):
        def __init__(self):
            super().__init__()
            self.body, self.head = keras.layers.Dense(8), keras.layers.Dense(1)

        def build(self, shape):
            self.body.build(shape)

        def call(self, x):
            return self.body(x)

        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self.head(self(data[0])) - data[1]) ** 2)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return {"loss": loss}

    def model():
        keras.utils.set_random_seed(1)
        model = Headed()
        model(np.ones((1, 6)))
        model.compile(keras.optimizers.Adam(0.01))
        return model

    fit(model(), [callback()], epochs=2)
    resumed, uninterrupted = model(), model()
    fit(resumed, [callback()], epochs=4)
    fit(uninterrupted, [], epochs=4)
    for one, other in zip(resumed.variables, uninterrupted.variables, strict=True):
        assert np.array_equal(one.numpy(), other.numpy())
    assert "not restored" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("build", {"layers": 7}),
        ("others", ["a", "b"]),
        ("callbacks", [{"class": "History"}]),
        ("callbacks", [{"class": "History", "monitor": None, "values": {"epoch": {"timedelta": [10**10, 0, 0]}}}]),
    ],
)
def test_altered_checkpoint_is_one_error(callback, tmp_path, name, value):
    folder = tmp_path / "local" / "checkpoints"
    fit(dense(), [callback()], epochs=1)
    checkpoint, _ = newest_checkpoint(folder)
    write_checkpoint(folder, Checkpoint(2, "fit", checkpoint.arrays, {**checkpoint.metadata, name: value}))
    with pytest.raises(Error, match=r"does not fit this model|is damaged or altered"):
        fit(dense(), [callback()], epochs=3)


def test_csv_logger_that_empties_its_file_is_named(callback, tmp_path, capsys):
    fit(dense(), [keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True), callback()], epochs=1)
    assert "CSVLogger" not in capsys.readouterr().out
    fit(dense(), [keras.callbacks.CSVLogger(tmp_path / "log.csv"), callback()], epochs=2)
    assert "append=True keeps it" in capsys.readouterr().out


def test_cell_that_was_interrupted_delivers_and_releases_the_folder(callback, tmp_path, monkeypatch):
    interactive = pytest.importorskip("IPython.core.interactiveshell", reason="IPython is not installed")
    shell = interactive.InteractiveShell()
    monkeypatch.setattr(checkpoint_to_drive, "running_shell", lambda: shell)
    monkeypatch.setattr(checkpoint_to_drive, "STOPPED_SECONDS", 120)
    shell.push({"cell": lambda: fit(dense(), [callback(), StopBefore(1)])})
    shell.run_cell("cell()")
    Lock(tmp_path / "local").release()
    assert tmp_path / "local" not in checkpoint_to_drive._training
    assert epochs_of(tmp_path / "drive") == [1]


@dataclasses.dataclass(slots=True)
class Slots:
    variable: object


class ClosedFile(collections.UserDict):
    """Raises as a closed h5py.File does."""

    def __len__(self):
        raise ValueError("Invalid group id")

    __iter__ = __len__


class UnreadableMapping(collections.UserDict):
    def items(self):
        raise ValueError("the file is gone")


def holder_of(kind, variable):
    """Return an object in which a person may keep a variable."""
    import tensorflow as tf

    module = tf.Module()
    module.variable = variable
    return {
        "namespace": types.SimpleNamespace(variable=variable),
        "slots": Slots(variable),
        "deque": collections.deque([variable]),
        "module": module,
        "numbered": {1: variable},
    }[kind]


@on_tensorflow
@pytest.mark.parametrize("kind", ["namespace", "slots", "deque", "module", "numbered"])
def test_variable_in_any_holder_comes_back(callback, kind):
    import tensorflow as tf

    class Counting(keras.Model):
        def __init__(self, count):
            super().__init__()
            self.layer = keras.layers.Dense(1)
            self.texts, self.objects = np.array(["cat", "dog"]), np.array([object()])
            # Past Keras's own tracking, and next to what cannot be looked into.
            object.__setattr__(self, "closed", ClosedFile())
            object.__setattr__(self, "unreadable", UnreadableMapping())
            object.__setattr__(self, "holder", holder_of(kind, count))
            self.counted = lambda: count.assign_add(1.0)

        def call(self, x):
            return self.layer(x)

        def train_step(self, data):
            self.counted()
            return super().train_step(data)

    def counted(epochs):
        count = tf.Variable(0.0)
        model = Counting(count)
        model(np.ones((1, 6)))
        model.compile("adam", "mse")
        fit(model, [callback()], epochs=epochs)
        return float(count)

    assert counted(epochs=2) == 2
    assert counted(epochs=3) == 3


@on_tensorflow
def test_layer_that_train_step_makes_is_named_when_it_is_saved(callback, capsys):
    class Making(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer, self.parts = keras.layers.Dense(1), types.SimpleNamespace(made=None)

        def call(self, x):
            return self.layer(x)

        def train_step(self, data):
            self.parts.made = self.parts.made or keras.layers.Dense(1)
            self.parts.made(data[0])
            return super().train_step(data)

    model = Making()
    model(np.ones((1, 6)))
    model.compile("adam", "mse", run_eagerly=True)
    fit(model, [callback()], epochs=1)
    assert "parts.made is not restored by a resume: the first step makes it" in capsys.readouterr().out


def test_nested_log_that_is_not_finite_replaces_no_checkpoint_and_a_strange_one_stops_nothing(callback, tmp_path):
    class Strange:
        def __array__(self, *arguments, **options):
            raise RuntimeError("it requires a gradient")

    class Log(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs |= {"strange": Strange(), "per_class": {"cat": float("nan") if epoch else 1.0}}

    fit(dense(), [Log(), callback()], epochs=2)
    assert epochs_of(tmp_path / "local") == [1]
