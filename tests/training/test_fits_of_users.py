"""`CheckpointToDrive` in fits that people write: values in many places, fits that fail, several in one process."""

import collections
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from colabcnn import CheckpointToDrive, Error
from colabcnn.store.checkpoint_files import checkpoint_files

pytestmark = [pytest.mark.versions, pytest.mark.kill]
X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


@pytest.fixture
def callback(tmp_path):
    """Return a function that makes the callback of a run with these folders."""

    def callback(drive="drive", local="local"):
        folders = tmp_path / drive, tmp_path / local
        return CheckpointToDrive(folders[0], local_folder=folders[1], checkpoint_minutes=0, drive_minutes=0)

    return callback


def dense(kind=keras.Model, metrics=(), units=4):
    keras.utils.set_random_seed(1)
    images = keras.Input((6,))
    model = kind(images, keras.layers.Dense(1)(keras.layers.Dense(units)(images)))
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=[*metrics])
    return model


def fit(model, callbacks=(), epochs=4):
    return model.fit(X, X[:, :1], epochs=epochs, verbose=0, shuffle=False, callbacks=[*callbacks])


class AtEnd(keras.callbacks.Callback):
    """Call a function with the model at the end of each epoch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_epoch_end(self, epoch, logs=None):
        self.function(self.model)


class KeptMetrics(keras.Model):
    def reset_metrics(self):
        pass


def kept_metric():
    metric = keras.metrics.MeanAbsoluteError()
    metric.reset_state = lambda: None
    return metric


@pytest.mark.parametrize("kind", ["of the model", "of the metric"])
def test_metric_whose_reset_is_switched_off_resumes(callback, kind):
    def model():
        if kind == "of the model":
            return dense(KeptMetrics, [keras.metrics.MeanAbsoluteError()])
        return dense(metrics=[kept_metric()])

    uninterrupted = fit(model()).history
    fit(model(), [callback()], epochs=2)
    assert fit(model(), [callback()]).history == uninterrupted


def test_variables_whose_paths_read_the_same_all_resume(callback):
    def model():
        made = dense()
        variables = [keras.Variable(1.0, trainable=False) for _ in range(4)]
        made.own = Own(held={"layer.0": variables[0], "layer": [variables[1]], 1: variables[2], "1": variables[3]})
        return made, variables, AtEnd(lambda _: [variable.assign(variable * 2) for variable in variables])

    stopped, _, doubles = model()
    fit(stopped, [callback(), doubles], epochs=2)
    resumed, variables, doubles = model()
    fit(resumed, [callback(), doubles])
    assert [float(variable) for variable in variables] == [16.0] * 4


class WithAttribute(keras.Model):
    average = None


@pytest.mark.parametrize("first", ["in the first epoch", "before"])
@pytest.mark.parametrize("kind", ["tensor", "array", "complex"])
def test_value_that_changes_is_named_also_if_the_first_epoch_makes_it(callback, capsys, first, kind):
    def average(model):
        value = model.average if model.average is not None else start
        model.average = value * 0.5

    start = {"tensor": keras.ops.ones(()), "array": np.ones(3), "complex": 1 + 2j}[kind]
    model = dense(WithAttribute)
    if first == "before":
        model.average = start
    fit(model, [callback(), AtEnd(average)])
    output = capsys.readouterr().out
    assert "average is not restored by a resume: it changes and is no variable" in output
    assert output.count("is not restored") == 1


@pytest.mark.parametrize("override", [False, True])
def test_what_keras_itself_keeps_is_not_named(callback, capsys, override):
    class Own(keras.Model):
        def reset_metrics(self):
            super().reset_metrics()

    for epochs in (2, 4):
        fit(dense(Own if override else WithAttribute, ["mae"]), [callback()], epochs=epochs)
    assert "not restored" not in capsys.readouterr().out


def test_container_that_changes_is_named_without_its_members(callback, capsys):
    model = dense(WithAttribute)
    model.own = Own(recent=collections.deque(maxlen=50), kept={"sizes": [1]})
    fit(model, [callback(), AtEnd(lambda model: model.own.recent.extend(np.random.default_rng().random(50)))])
    output = capsys.readouterr().out
    assert "own.recent is not restored by a resume: it changes and is no variable" in output
    assert output.count("is not restored") == 1


class Own:
    def __init__(self, **attributes):
        vars(self).update(attributes)


def test_normalization_computes_with_the_restored_statistics(callback):
    def model():
        keras.utils.set_random_seed(1)
        made = keras.Sequential([keras.Input((6,)), keras.layers.Normalization(), keras.layers.Dense(1)])
        made.compile("sgd", "mse")
        return made

    adapted, resumed = model(), model()
    adapted.layers[0].adapt(5 * X + 3)
    fit(adapted, [callback()])
    fit(resumed, [callback()])
    assert resumed.evaluate(X, X[:, :1], verbose=0) == adapted.evaluate(X, X[:, :1], verbose=0)


def unbuilt(units):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Dense(units), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_checkpoint_of_another_model_on_drive_is_not_kept(callback, tmp_path):
    fit(unbuilt(5), [callback("other", "there")])
    fit(unbuilt(4), [callback("mine", "there as well")], epochs=2)
    with pytest.raises(Error, match=r"has the shape \(6, 5\) instead of \(6, 4\)|holds another run"):
        fit(unbuilt(4), [callback("other", "here")])
    assert checkpoint_files(tmp_path / "here" / "checkpoints") == []
    assert fit(unbuilt(4), [callback("mine", "here")]).epoch == [0, 1, 2, 3]


@pytest.mark.parametrize("again", ["the same callback", "a new callback"])
def test_fit_that_failed_is_tried_again_with_the_same_model(callback, again):
    def fail(model):
        raise RuntimeError("a fit that failed")

    model, made = dense(), callback()
    with pytest.raises(RuntimeError, match="a fit that failed") as failed:
        fit(model, [made, AtEnd(fail)])
    assert fit(model, [made if again == "the same callback" else callback()], epochs=2).epoch == [0, 1]
    assert failed.tb  # It keeps the frames of the fit that failed.


def test_fit_that_failed_in_another_thread_is_tried_again(callback):
    def fail(model):
        raise RuntimeError("a fit that failed")

    def failing_fit():
        fit(dense(), [callback(), AtEnd(fail)])

    with ThreadPoolExecutor(1) as threads:
        failed = threads.submit(failing_fit)
        assert "failed" in str(failed.exception())
        assert fit(dense(), [callback()]).epoch == [0, 1, 2, 3]


def test_second_fit_of_a_folder_in_another_thread_is_refused(callback, tmp_path):
    entered, leave, histories = threading.Event(), threading.Event(), []

    def wait(model):
        entered.set()
        leave.wait(60)

    first = threading.Thread(target=lambda: histories.append(fit(dense(), [callback(), AtEnd(wait)], epochs=2)))
    first.start()
    assert entered.wait(60)
    try:
        with pytest.raises(Error, match="is being trained in by another `fit`"):
            fit(dense(), [callback()])
    finally:
        leave.set()
        first.join()
    assert histories[0].epoch == [0, 1]
    assert fit(dense(), [callback()]).epoch == [0, 1, 2, 3]


def test_callback_that_another_one_calls_is_called_once(callback, capsys):
    class Wrapping(keras.callbacks.Callback):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def set_params(self, params):
            self.inner.set_params(params)

        def set_model(self, model):
            self.inner.set_model(model)

        def on_train_begin(self, logs=None):
            self.inner.on_train_begin(logs)

        def on_epoch_begin(self, epoch, logs=None):
            self.inner.on_epoch_begin(epoch, logs)

        def on_epoch_end(self, epoch, logs=None):
            self.inner.on_epoch_end(epoch, logs)

        def on_train_end(self, logs=None):
            self.inner.on_train_end(logs)

    fit(dense(), [Wrapping(callback())], epochs=2)
    assert capsys.readouterr().out.count("Checkpoints in ") == 1
