"""Fit models that a seed has drawn, stop each in the middle, and compare with fits that were never stopped.

random_fits.py train FOLDER SEED... stops each fit before its fourth epoch, the last one by SIGKILL.
random_fits.py resume FOLDER SEED... resumes each, and prints a line of JSON for each.
"""

import gc
import json
import os
import random
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from colabcnn import CheckpointToDrive
from colabcnn.network.fit_state import FitState

L = keras.layers
O = keras.optimizers  # noqa: E741
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
EPOCHS, STOPPED_AT, BATCH = 6, 3, 16


class NoiseFromGenerator(L.Layer):
    """Add noise of a generator: under TensorFlow in a dict of lists, which Keras does not track, as JAX needs."""

    def __init__(self):
        super().__init__()
        generator = keras.random.SeedGenerator(5)
        if ON_TENSORFLOW:
            self.tools = {"generators": [generator]}
        else:
            self.generator = generator

    def call(self, x, training=False):
        generator = self.tools["generators"][0] if ON_TENSORFLOW else self.generator
        noise = keras.random.normal(keras.ops.shape(x), dtype=x.dtype, seed=generator)
        return x + 0.1 * noise if training else x


class RunningMean(L.Layer):
    """Subtract a running mean, which is a weight of shape ()."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False, name="mean")

    def call(self, x, training=False):
        if training:
            mean = keras.ops.cast(keras.ops.mean(x), self.mean.dtype)
            self.mean.assign(keras.ops.add(keras.ops.multiply(self.mean, 0.9), 0.1 * mean))
        return keras.ops.subtract(x, keras.ops.cast(self.mean, x.dtype))


class CountOfSteps(keras.metrics.Metric):
    """Count the steps of all epochs: it is not reset."""

    def __init__(self):
        super().__init__(name="steps")
        self.count = self.add_variable(shape=(), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.count.assign(keras.ops.add(self.count, 1))

    def result(self):
        return keras.ops.convert_to_tensor(self.count)

    def reset_state(self):
        pass


LAYERS = {
    "dense layers": lambda: [L.Dense(8, "gelu")],
    "dropout": lambda: [L.Dense(8), L.Dropout(0.3)],
    "Gaussian noise": lambda: [L.GaussianNoise(0.2), L.Dense(8)],
    "batch normalization": lambda: [L.Dense(8), L.BatchNormalization(momentum=0.9)],
    "spectral normalization": lambda: [L.SpectralNormalization(L.Dense(8))],
    "layer normalization": lambda: [L.LayerNormalization(), L.Dense(8)],
    "a layer with a scalar weight of its own": lambda: [RunningMean(), L.Dense(8)],
    "a layer with a generator of its own": lambda: [NoiseFromGenerator(), L.Dense(8)],
    "convolution": lambda: [L.Reshape((4, 3)), L.Conv1D(4, 2), L.GlobalAveragePooling1D(), L.Dense(8)],
    "a recurrent layer that keeps its state": lambda: [L.Reshape((4, 3)), L.GRU(8, stateful=True)],
    "recurrent dropout": lambda: [L.Reshape((4, 3)), L.LSTM(8, recurrent_dropout=0.2)],
}
OPTIONS = {
    "": {},
    "an average of weights (EMA)": {"use_ema": True, "ema_overwrite_frequency": 3},
    "gradient clipping": {"clipnorm": 0.5},
    "weight decay": {"weight_decay": 0.01},
    "gradient accumulation": {"gradient_accumulation_steps": 2},
}
OPTIMIZERS = (O.Adam, O.SGD, O.RMSprop, O.Adagrad, O.Nadam, O.Lion, O.Adamax)
SCHEDULE, METRIC, PLATEAU = "a schedule of the rate", "a metric that is never reset", "ReduceLROnPlateau"
PRECISIONS = {"float32": "", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16 with loss scaling"}
OWN_STEP, LATE = "an own train_step, two optimizers, a tf.Variable", "a layer that only train_step calls"
KINDS = (*LAYERS, *filter(None, OPTIONS), *filter(None, PRECISIONS.values()), SCHEDULE, METRIC, PLATEAU, OWN_STEP, LATE)
"""What a drawn model may have; the last two under TensorFlow only."""


def drawn_optimizer(draw):
    """Return `(kinds, optimizer)`."""
    scheduled, option = draw.random() < 0.3, draw.choice([*OPTIONS])
    rate = O.schedules.ExponentialDecay(0.01, 5, 0.8) if scheduled else 0.01
    return [option, SCHEDULE if scheduled else ""], draw.choice(OPTIMIZERS)(rate, **OPTIONS[option])


def custom_model(has_late_layer, body, head):
    """Return a model with a training step of its own: two optimizers, a counter that is no weight, a late layer."""
    import tensorflow as tf

    class Custom(keras.Model):
        def __init__(self):
            super().__init__()
            self.body, self.head = body, head
            self.late = L.Dense(1) if has_late_layer else None
            self.seen = tf.Variable(0.0, trainable=False)
            self.built = True

        def call(self, x, training=False):
            return self.head(self.body(x, training=training))

        def compile(self, first, second):
            super().compile(optimizer=first)
            self.parts = {"head": second}

        def train_step(self, data):
            x, y = data
            with tf.GradientTape(persistent=True) as tape:
                features = self.body(x, training=True)
                loss = tf.reduce_mean((self.head(features) - y) ** 2)
                if self.late is not None:
                    loss += 0.1 * tf.reduce_mean((self.late(features) - y) ** 2)
            body, head = self.body.trainable_variables, self.head.trainable_variables
            head = head + (self.late.trainable_variables if self.late is not None else [])
            self.optimizer.apply_gradients(zip(tape.gradient(loss, body), body, strict=True))
            self.parts["head"].apply_gradients(zip(tape.gradient(loss, head), head, strict=True))
            self.seen.assign_add(1.0)
            return {"energy": loss, "seen": self.seen}

    return Custom()


def drawn_model(seed):
    """Return `(kinds, model)`, compiled; the same seed gives the same one."""
    keras.utils.set_random_seed(seed)
    draw = random.Random(seed)
    names, precision = draw.sample([*LAYERS], 2), draw.choice(["float32", *PRECISIONS])
    own_step, late = ON_TENSORFLOW and draw.random() < 0.4, draw.random() < 0.5
    precision = "float32" if own_step else precision
    kinds, optimizer = drawn_optimizer(draw)
    inputs = keras.Input((12,), batch_size=BATCH)
    keras.config.set_dtype_policy(precision)
    try:
        layers = [inputs, *LAYERS[names[0]](), L.Dense(12), *LAYERS[names[1]]()]
        if own_step:
            second_kinds, second = drawn_optimizer(draw)
            model = custom_model(late, keras.Sequential(layers), keras.Sequential([keras.Input((8,)), L.Dense(1)]))
            model.compile(optimizer, second)
            kinds += [*second_kinds, OWN_STEP, LATE if late else ""]
        else:
            model = keras.Sequential([*layers, L.Dense(1, dtype="float32")])
            metrics = draw.choice([[], ["mae"], [CountOfSteps()]])
            model.compile(optimizer, "mse", metrics=metrics)
            kinds += [METRIC if metrics and metrics != ["mae"] else "", PRECISIONS[precision]]
    finally:
        keras.config.set_dtype_policy("float32")
    return sorted({*names, *filter(None, kinds)}, key=KINDS.index), model


class Stop(keras.callbacks.Callback):
    """End before an epoch as nothing that `fit` could notice does."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == STOPPED_AT and self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        if epoch == STOPPED_AT:
            raise KeyboardInterrupt


def fit(seed, callbacks):
    """Fit a drawn model; return `(kinds, model, history)`."""
    kinds, model = drawn_model(seed)
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(4 * BATCH, 12)).astype("float32")
    y = (x @ draw.normal(size=(12, 1))).astype("float32")
    own = []
    if seed % 2 and not {SCHEDULE, PRECISIONS["mixed_float16"]} & {*kinds}:
        loss = "energy" if OWN_STEP in kinds else "loss"
        own = [keras.callbacks.ReduceLROnPlateau(loss, patience=1, min_delta=9, mode="min")]
        kinds.append(PLATEAU)
    keras.utils.set_random_seed(seed)
    history = model.fit(x, y, epochs=EPOCHS, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[*own, *callbacks])
    return kinds, model, history.history


def state_of(model):
    """Return each variable's bytes by a name, those of weights, optimizers and all else that the model holds."""
    found = {f"weight {v.path}#{index}": v for index, v in enumerate(model.variables)}
    found |= {f"optimizer {v.path}#{index}": v for index, v in enumerate(model.optimizer.variables)}
    found |= FitState.of(model).variables()
    return {name: np.asarray(keras.ops.convert_to_numpy(variable)).tobytes() for name, variable in found.items()}


def drive(folder, seed):
    return CheckpointToDrive(
        folder / f"drive-{seed}", local_folder=folder / f"local-{seed}", checkpoint_minutes=0, drive_minutes=100
    )


def train(folder, seeds):
    for seed in seeds:
        try:
            fit(seed, [drive(folder, seed), Stop(seed == seeds[-1])])
        except KeyboardInterrupt:
            keras.backend.clear_session()


def resume(folder, seeds):
    for seed in seeds:
        kinds, resumed, history = fit(seed, [drive(folder, seed)])
        _, uninterrupted, expected = fit(seed, [])
        one, other = state_of(resumed), state_of(uninterrupted)
        names = list(zip(one, other, strict=False))
        differing = [name for name, theirs in names if one[name] != other[theirs]]
        differing += ["number of variables"] if len(one) != len(other) else []
        differing += ["history"] if repr(history) != repr(expected) else []
        print(json.dumps({"seed": seed, "kinds": kinds, "differing": differing}), flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    gc.freeze()  # No look for unused objects among those of TensorFlow.
    {"train": train, "resume": resume}[sys.argv[1]](Path(sys.argv[2]), list(map(int, sys.argv[3:])))
