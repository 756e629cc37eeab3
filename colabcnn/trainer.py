"""Stock `fit` over images that stay on the device: a step receives row numbers and transforms, gathers and augments."""

import keras
import numpy as np
from keras import ops

from colabcnn.augmentation import augment
from colabcnn.epoch_plan import EpochPlan, plan_epoch
from colabcnn.experiments import IMAGE_SIZE
from colabcnn.model import reseed_dropout


class TrainingModel(keras.Model):
    """A network together with the images that it is trained on and validated on.

    The network is its one child; the images are no variables of it, so counting, saving and digesting `network` sees
    the network alone. `fit` and `evaluate` take `Batches`.

    Args:
        network: compiled on this model's `compile`, as `build_model` makes it.
        split: `Split`; the images go to the device here, as uint8.
    """

    def __init__(self, network, split):
        super().__init__(name="training")
        self.network = network
        self.resident = _Resident(split)

    def call(self, images, training=False):
        return self.network(images, training=training)

    def build_state(self):
        """Create the optimizer's, the metrics' and the loss's state, after `compile`.

        A checkpoint is restored into it, and Keras under JAX would otherwise try to build it from the first batch,
        which holds no images.
        """
        images, labels = ops.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3)), ops.zeros((1,), dtype="int64")
        predictions = self(images)
        self.compute_loss(x=images, y=labels, y_pred=predictions)
        self.compute_metrics(images, labels, predictions)
        self.reset_metrics()
        self.optimizer.build(self.trainable_variables)

    def train_step(self, *args):
        *state, data = args
        return super().train_step(*state, _images_and_labels(data, self.resident.train))

    def test_step(self, *args):
        *state, data = args
        return super().test_step(*state, _images_and_labels(data, self.resident.validation))

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = _with_resident(self.train_function, self.resident.train)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super().make_test_function(force)
            self.test_function = _with_resident(self.test_function, self.resident.validation)


class _Resident:
    """Images and labels on the device, in an object that Keras does not track."""

    def __init__(self, split):
        self.train = ops.convert_to_tensor(split.train_images), ops.convert_to_tensor(split.train_labels)
        self.validation = ops.convert_to_tensor(split.val_images), ops.convert_to_tensor(split.val_labels)


def _with_resident(function, arrays):
    """Under JAX, hand the resident arrays to the compiled step as arguments.

    An array that a jitted function closes over is compiled into it, 150 MB of constants. TensorFlow captures it.
    """
    if keras.backend.backend() != "jax":
        return function

    def with_arrays(state, iterator):
        return function(state, ((arrays, *batch) for batch in iterator))

    return with_arrays


def _images_and_labels(data, arrays):
    *given, batch = data
    images, labels = given[0] if given else arrays
    transforms = {name: values for name, values in batch.items() if name != "rows"}
    images, labels = ops.take(images, batch["rows"], axis=0), ops.take(labels, batch["rows"], axis=0)
    images = augment(images, **transforms) if transforms else ops.cast(images, "float32")
    return images * (1 / 255), labels


class Batches(keras.utils.PyDataset):
    """An `EpochPlan`, one step's slice at a time.

    Args:
        plan: `EpochPlan`; may be replaced between epochs.
        batch_size: images a step; the last step takes what is left.
    """

    def __init__(self, plan, batch_size):
        super().__init__()
        self.plan = plan
        self.batch_size = batch_size

    def __len__(self):
        return -(-len(self.plan.rows) // self.batch_size)

    def __getitem__(self, step):
        return (self.plan.batch(step, self.batch_size),)


def in_order(size, batch_size):
    """Return `Batches` of all images as they lie, for validation."""
    return Batches(EpochPlan(np.arange(size)), batch_size)


class PlanEpoch(keras.callbacks.Callback):
    """Lay out each epoch before it begins: the plan for `batches`, and dropout's random states."""

    def __init__(self, experiment, seed, size):
        super().__init__()
        self.experiment = experiment
        self.seed = seed
        self.size = size
        self.batches = Batches(self._plan(1), experiment.batch_size)

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.plan = self._plan(epoch + 1)
        reseed_dropout(self.model.network, self.seed, epoch + 1)

    def _plan(self, epoch):
        return plan_epoch(self.seed, epoch, size=self.size, augmentation=self.experiment.augmentation)
