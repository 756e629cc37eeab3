"""`CheckpointToDrive` in fits that people write: values in many places, fits that fail, several in one process."""

import collections
import threading
import types
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
    with pytest.raises(
        Error, match=r"has the shape \(6, 5\) instead of \(6, 4\)|holds the checkpoints of another model"
    ):
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


def test_second_fit_of_a_folder_in_another_thread_is_refused(callback):
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


def weights_of(model):
    return [np.asarray(weight) for weight in model.get_weights()]


def test_learning_rate_that_the_checkpoint_replaces_is_named(callback, capsys):
    model = dense()
    fit(model, [callback()], epochs=2)
    model.compile(keras.optimizers.SGD(0.001), "mse")
    fit(model, [callback()], epochs=3)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    message = "The learning rate stays 0.01, from the checkpoint; 0.001 is not used."
    assert capsys.readouterr().out.count(message) == 1
    fit(dense(), [callback()])
    assert "The learning rate is" not in capsys.readouterr().out


@pytest.mark.parametrize("again", ["the same model", "a new model"])
@pytest.mark.parametrize("by", ["LearningRateScheduler", "ReduceLROnPlateau"])
def test_learning_rate_that_a_callback_changes_is_not_named(callback, capsys, by, again):
    def changing():
        if by == "LearningRateScheduler":
            return keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / 2**epoch)
        return keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=9, factor=0.5)

    model = dense()
    for epochs in (2, 4):
        fit(model, [changing(), callback()], epochs)
        model = dense() if again == "a new model" and epochs == 2 else model
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(0.00125)
    assert "The learning rate is" not in capsys.readouterr().out


class FreezeWithinEpochs(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.layers[1].trainable = False


class TrainsAPart(keras.optimizers.SGD):
    def build(self, variables):
        super().build([variable for variable in variables if len(variable.shape) == 2])

    def apply(self, gradients, trainable_variables=None):
        pairs = zip(gradients, trainable_variables or self._trainable_variables, strict=False)
        gradients, variables = zip(*((one, two) for one, two in pairs if len(two.shape) == 2), strict=True)
        return super().apply(gradients, variables)


def train_the_last_layer(model, data):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        outputs = model(data[0])
        loss = model.compute_loss(x=data[0], y=data[1], y_pred=outputs)
    trained = model.layers[-1].trainable_variables
    model.optimizer.apply(tape.gradient(loss, trained), trained)
    return model.compute_metrics(data[0], data[1], outputs)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a compiled step of JAX trains what it began with")
@pytest.mark.parametrize("kind", ["freezes within epochs", "trains a part", "step of the object"])
def test_what_is_trained_may_differ_from_what_is_trainable(callback, kind):
    def model():
        model = dense()
        if kind == "trains a part":
            model.compile(TrainsAPart(0.01), "mse")
        if kind == "step of the object":
            model.train_step = types.MethodType(train_the_last_layer, model)
        return model

    def callbacks():
        return [FreezeWithinEpochs(), callback()] if kind == "freezes within epochs" else [callback()]

    fit(model(), callbacks(), epochs=2)
    assert fit(model(), callbacks()).epoch == [0, 1, 2, 3]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's")
def test_fit_under_a_distribution_strategy_resumes(callback):
    import tensorflow as tf

    for epochs in (2, 4):
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            model = dense()
        assert fit(model, [callback()], epochs).epoch == list(range(epochs))


@pytest.mark.parametrize("frozen", [(True, False), (False, True)])
def test_another_phase_of_fine_tuning_is_refused_and_trains_in_another_folder(callback, frozen):
    def phase(frozen):
        model.layers[1].trainable = not frozen
        model.compile(keras.optimizers.Adam(0.01), "mse")

    model = dense()
    phase(frozen[0])
    fit(model, [callback()], epochs=2)
    model.set_weights([weight * 0.5 for weight in model.get_weights()])
    before = weights_of(model)
    phase(frozen[1])
    with pytest.raises(Error, match=r"other variables are trained now.*another folder"):
        fit(model, [callback()])
    assert all(map(np.array_equal, weights_of(model), before))
    assert fit(model, [callback("drive 2", "local 2")]).epoch == [0, 1, 2, 3]


def test_refused_optimizer_changes_no_weights(callback):
    model = dense()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    fit(model, [callback()], epochs=2)
    model.set_weights([weight * 0.5 for weight in model.get_weights()])
    before = weights_of(model)
    model.compile(keras.optimizers.Adam(0.01, amsgrad=True), "mse")
    with pytest.raises(Error, match="optimizer variables"):
        fit(model, [callback()])
    assert all(map(np.array_equal, weights_of(model), before))


def test_optimizer_of_another_class_is_refused(callback):
    model = dense()
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    fit(model, [callback()], epochs=2)
    model.compile(keras.optimizers.RMSprop(0.01), "mse")
    with pytest.raises(Error, match="the checkpoint's optimizer is 'SGD', now 'RMSprop'; use another folder"):
        fit(model, [callback()])


def test_callback_with_another_monitor_keeps_its_initial_state(callback, capsys):
    def stop(monitor):
        return keras.callbacks.EarlyStopping(monitor, mode="min", patience=3)

    def model():
        return dense(metrics=["mae"])

    fit(model(), [stop("mae"), callback()], epochs=2)
    fit(model(), [kept := stop("mae"), callback()], epochs=3)
    assert "keeps its initial state" not in capsys.readouterr().out
    history = fit(model(), [changed := stop("loss"), callback()], epochs=4).history
    assert "EarlyStopping of loss was not among the callbacks before" in capsys.readouterr().out
    assert (kept.best, changed.best) == (history["mae"][2], history["loss"][3])


@pytest.mark.parametrize("monitor", [min, ("loss", "val_loss")])
def test_monitor_of_another_type_keeps_its_state(callback, capsys, monitor):
    class Own(keras.callbacks.EarlyStopping):
        def get_monitor_value(self, logs):
            return logs["loss"]

    def own():
        stop = Own("loss", mode="min", patience=9)
        stop.monitor = monitor
        return stop

    fit(dense(), [own(), callback()], epochs=2)
    history = fit(dense(), [resumed := own(), callback()]).history
    assert "initial state" not in capsys.readouterr().out
    assert resumed.best == min(history["loss"])


def test_monitor_with_the_number_that_keras_adds_keeps_its_state(callback, capsys):
    for epochs in (2, 4):
        metric = keras.metrics.MeanAbsoluteError(name=f"own_{epochs}")
        stop = keras.callbacks.EarlyStopping(metric.name, mode="min", patience=9)
        fit(dense(metrics=[metric]), [stop, callback()], epochs)
    assert "initial state" not in capsys.readouterr().out


@pytest.mark.newest
def test_fit_in_colab_outside_drive_is_named(callback, capsys, monkeypatch):
    fit(dense(), [callback()], epochs=1)
    assert "IS NOT ON GOOGLE DRIVE" not in capsys.readouterr().out
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == "/")
    fit(dense(), [callback()], epochs=2)
    assert "drive IS NOT ON GOOGLE DRIVE: what is kept there is lost" in capsys.readouterr().out


class WithOwnStep(keras.Model):
    """Two networks that the first step builds: one is a layer, one in an object that is not Keras's."""

    def __init__(self):
        super().__init__()
        self.body = keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
        self.nets = Own(head=keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.5)]))

    def call(self, images, training=False):
        return self.body(images, training=training)

    def train_step(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            outputs = self.nets.head(self(data[0], training=True), training=True)
            loss = tf.reduce_mean((outputs - data[1]) ** 2)
        trained = [*self.trainable_variables, *self.nets.head.trainable_variables]
        self.optimizer.apply(tape.gradient(loss, trained), trained)
        return {"loss": loss}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="this train_step is TensorFlow's")
def test_sequential_that_the_first_step_builds_resumes_in_a_new_model(callback, capsys):
    def model():
        keras.utils.set_random_seed(1)
        model = WithOwnStep()
        model.compile(keras.optimizers.Adam(0.01))
        return model

    uninterrupted, resumed = model(), model()
    fit(uninterrupted)
    fit(model(), [callback()], epochs=2)
    fit(resumed, [callback()])
    for one, other in zip(weights_of(resumed.nets.head), weights_of(uninterrupted.nets.head), strict=True):
        assert np.array_equal(one, other)
    assert all(map(np.array_equal, weights_of(resumed), weights_of(uninterrupted)))
    output = capsys.readouterr().out
    assert "not restored" not in output
    assert "has no variable" not in output
