"""Keras's own `fit` over images that stay on the device: a step receives positions, gathers, augments and trains."""

from functools import partial
from typing import Any

import keras
import numpy as np

from colabcnn.data.epoch_plan import plan_epoch
from colabcnn.data.split import Split
from colabcnn.experiments.execution import Execution
from colabcnn.experiments.experiment import IMAGE_SIZE, Experiment
from colabcnn.network.augmentation import apply_transforms
from colabcnn.network.batch_norm import call_fused
from colabcnn.network.devices import is_cpu
from colabcnn.network.keras_types import FitCallback, Logs, ops
from colabcnn.network.model import reseed_dropout

VALIDATION_BATCH_SIZE = 250


class TrainingModel(keras.Model):
    """A network with its training images, its validation images and the epoch's plan.

    The network is its only child; images and plan are not among its variables, so that counting, saving and digesting
    `network` concern the network alone. Its `fit` takes positions in the epoch's plan, 0 to `train_size - 1` in order;
    `PlanEpoch` loads the plan before each epoch. Its `evaluate` and `validation_data` take the positions of the
    validation images. `fit` feeds positions without running Python for each step. Batches would come from a Python
    generator: TensorFlow 2.21 then sets `M_TRIM_THRESHOLD` for the process, and the page faults that follow took a
    third of a CPU's time.

    Args:
        network: as `build_model` makes it.
        split: `Split`; its images are copied to the device here.
        experiment: `Experiment`; its batch size and its augmentation are used.
        execution: `Execution`. Under TensorFlow the steps of a call are Keras's `steps_per_execution`. Under JAX that
            would be a loop in Python, so `fit` receives the positions of several batches as one batch, and the model
            separates them.
    """

    def __init__(self, network: keras.Model, split: Split, experiment: Experiment, execution: Execution):
        super().__init__(name="training", dtype="float32")  # Otherwise the images get a global policy's precision.
        self.network = network
        self.batch_size = experiment.batch_size
        self.execution = execution
        steps, on_jax = execution.steps_per_call, keras.backend.backend() == "jax"
        self.steps_per_batch, self.batches_per_call = (steps, 1) if on_jax else (1, steps)
        self.device_data = _DeviceData(split)
        transform = partial(apply_transforms, augmentation=experiment.augmentation)
        self._transform = _compiled_by_xla(transform) if execution.xla_augmentation else transform

    within_epoch = False  # As `PlanEpoch` sets it.

    @property
    def stop_training(self) -> bool:
        """Whether `fit` stops; never within an epoch, which would otherwise be recorded as a complete one."""
        return self._stop_training and not self.within_epoch

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self._stop_training = value

    def call(self, images: Any, training: bool = False) -> Any:
        if self.execution.fused_batch_norm:
            return call_fused(self.network, images, training)
        return self.network(images, training=training)

    # Keras's callbacks save their `model`; a person wants the network, which plain Keras opens.

    def save(self, *args: Any, **options: Any) -> None:
        self.network.save(*args, **options)

    def save_weights(self, *args: Any, **options: Any) -> None:
        self.network.save_weights(*args, **options)

    def load_weights(self, *args: Any, **options: Any) -> None:
        self.network.load_weights(*args, **options)

    def build_state(self) -> None:
        """Create the optimizer's, the metrics' and the loss's state, after `compile`.

        A checkpoint needs it to be restored. Under JAX, Keras would otherwise build it from the first batch, which
        holds no images.
        """
        images, labels = ops.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3)), ops.zeros((1,), dtype="int32")
        predictions = self(images)
        self.compute_loss(x=images, y=labels, y_pred=predictions)
        self.compute_metrics(images, labels, predictions)
        self.reset_metrics()
        self.optimizer.build(self.trainable_variables)

    # Under JAX a step receives `(state, data)`, and `data` includes the arrays on the device: a closure over them would
    # be compiled as 150 MB of constants. TensorFlow captures them, and a step receives `(data,)`.

    def train_step(self, *args: Any) -> Any:
        return self._steps(self._train_step, args, self.batch_size)

    def test_step(self, *args: Any) -> Any:
        return self._steps(self._test_step, args, VALIDATION_BATCH_SIZE)

    def _steps(self, step, args, batch_size):
        """Make one step, or for a batch of several steps each of them, in a loop on the device."""
        if self.steps_per_batch == 1:
            return step(*args)
        import jax

        state, (arrays, batch) = args
        positions = keras.utils.unpack_x_y_sample_weight(batch)[0]
        full, rest = divmod(len(positions), batch_size)

        def step_at(index, state):
            part = jax.lax.dynamic_slice(positions, (index * batch_size,), (batch_size,))
            return step(state, (arrays, (part,)))

        logs = None
        if full:
            # The loop carries a step's logs: callbacks read them.
            shapes = jax.eval_shape(step_at, 0, state)[0]
            logs = jax.tree.map(lambda log: jax.numpy.zeros(log.shape, log.dtype), shapes)
            logs, state = jax.lax.fori_loop(0, full, lambda index, carried: step_at(index, carried[1]), (logs, state))
        if rest:
            logs, state = step(state, (arrays, (positions[full * batch_size :],)))
        return logs, state

    def _train_step(self, *args):
        *state, data = args
        positions, (images, labels, plan) = self._unpack(data, self.device_data.training)
        transforms = {name: ops.take(values, positions, axis=0) for name, values in plan.items()}
        rows = transforms.pop("rows")
        images = self._transform(_take_images(images, rows), transforms)
        return super().train_step(*state, (images * (1 / 255), ops.take(labels, rows, axis=0)))

    def _test_step(self, *args):
        *state, data = args
        rows, (images, labels) = self._unpack(data, self.device_data.validation)
        images = ops.cast(_take_images(images, rows), "float32")
        return super().test_step(*state, (images * (1 / 255), ops.take(labels, rows, axis=0)))

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._with_device_data(self.train_function, self.device_data.training)

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = self._with_device_data(self.test_function, self.device_data.validation)

    def _with_device_data(self, function, arrays_of):
        if keras.backend.backend() != "jax":
            return function
        return lambda state, iterator: function(state, ((arrays_of(), batch) for batch in iterator))

    def _unpack(self, data, arrays_of):
        arrays, batch = data if keras.backend.backend() == "jax" else (arrays_of(), data)
        return keras.utils.unpack_x_y_sample_weight(batch)[0], arrays


def _compiled_by_xla(function):
    import tensorflow as tf

    # Without AutoGraph, which would take a second to convert code that has no control flow over tensors.
    return tf.function(function, jit_compile=True, autograph=False)


def _take_images(pixels, rows):
    return ops.reshape(ops.take(pixels, rows, axis=0), (-1, IMAGE_SIZE, IMAGE_SIZE, 3))


class _DeviceData:
    """The images (whole numbers, 0 to 255), labels and plan on the device, in an object that Keras does not track.

    An image is a row of 3,072 pixels. Of images with four dimensions, XLA makes the number of the image the innermost
    dimension on a TPU, and then copies all of them at each call to gather some (614 MB, compiled for a v5e).
    """

    def __init__(self, split):
        # TensorFlow gathers uint8 on a GPU only with XLA; plain steps would copy all images to the host each time.
        dtype = "uint8" if keras.backend.backend() == "jax" or is_cpu() else "float16"

        def arrays(images, labels):
            return ops.convert_to_tensor(images.reshape(len(images), -1), dtype), ops.convert_to_tensor(labels)

        self._training = arrays(split.train_images, split.train_labels)
        self._validation = arrays(split.val_images, split.val_labels)
        self._plan = {}

    def training(self):
        return *self._training, {name: variable.value for name, variable in self._plan.items()}

    def validation(self):
        return self._validation

    def load_plan(self, plan):
        """Load a plan in place: a compiled TensorFlow step keeps the variables that it was traced with."""
        # A GPU has no kernels for bool variables, nor for TensorFlow's int32 variables; JAX converts int64 to int32.
        transforms = {name: values.astype(np.float32) for name, values in plan.transforms.items()}
        for name, values in {"rows": plan.rows, **transforms}.items():
            values = ops.convert_to_tensor(values)
            if name in self._plan:
                self._plan[name].assign(values)
            else:
                dtype = keras.backend.standardize_dtype(values.dtype)
                self._plan[name] = keras.Variable(values, dtype=dtype, trainable=False, name=name)


class PlanEpoch(FitCallback):
    """Load each epoch's plan into a `TrainingModel` before the epoch begins, and set dropout's random states.

    It must be the first of the callbacks: from its `on_epoch_end` on, `stop_training` has effect.
    """

    def __init__(self, experiment: Experiment, seed: int, size: int):
        super().__init__()
        self.experiment = experiment
        self.seed = seed
        self.size = size

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        plan = plan_epoch(self.seed, epoch + 1, size=self.size, augmentation=self.experiment.augmentation)
        self.model.device_data.load_plan(plan)
        reseed_dropout(self.model.network, self.seed, epoch + 1)
        self.model.within_epoch = True

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.model.within_epoch = False


def in_batches(array: np.ndarray, batch_size: int) -> dict[str, Any]:
    """Return the keyword arguments with which `fit` and `predict` read an array in order, in batches.

    Under TensorFlow it becomes a `tf.data.Dataset` without autotuning. With autotuning, as Keras makes one from a plain
    array, the end of a `fit` waits for a sleeping thread (TensorFlow 2.20, 2.21): as long as training has taken, a
    minute at most.

    Args:
        array: the inputs.
        batch_size: items per batch.
    """
    if keras.backend.backend() != "tensorflow":
        return {"x": array, "batch_size": batch_size}
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return {"x": tf.data.Dataset.from_tensor_slices((array,)).batch(batch_size).with_options(options)}
