"""BatchNorm as one TensorFlow operation on a CPU, and the average of its statistics over training images."""

from typing import Any

import keras

from colabcnn.experiments.experiment import IMAGE_SIZE
from colabcnn.network.keras_types import FitCallback, Logs, ops


def call_fused(network: keras.Model, images: Any, training: bool) -> Any:
    """Return `network(images, training=training)`, with each BatchNorm as one operation.

    Keras computes BatchNorm with some ten operations in float32, whatever the layer's precision, and each of them
    passes once over all activations. One operation in the layer's precision makes an epoch on a CPU with bfloat16
    instructions about a quarter shorter. XLA fuses the ten by itself, so this is for TensorFlow without XLA. The
    layers stay Keras's own: only their variables are used here.

    Args:
        network: as `build_model` makes it: a sequence of layers.
        images: `(batch, 32, 32, 3) float32`.
        training: bool.
    """
    outputs = images
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            outputs = _batch_norm(layer, outputs, training and layer.trainable)
        elif isinstance(layer, keras.layers.Dropout):
            outputs = layer(outputs, training=training)
        elif not isinstance(layer, keras.layers.InputLayer):
            outputs = layer(outputs)
    return outputs


def _batch_norm(layer, inputs, training):
    import tensorflow as tf

    # tf.nn's batch norm is the slow one, made of single operations.
    fused = tf.compat.v1.nn.fused_batch_norm
    scale, offset = layer.gamma.value, layer.beta.value
    if not training:
        moving = layer.moving_mean.value, layer.moving_variance.value
        return fused(inputs, scale, offset, *moving, epsilon=layer.epsilon, is_training=False)[0]
    outputs, mean, variance = fused(inputs, scale, offset, epsilon=layer.epsilon, is_training=True)
    # TensorFlow returns the unbiased variance; Keras uses the biased one.
    count = ops.cast(ops.prod(ops.shape(inputs)[:-1]), variance.dtype)
    for moving, current in ((layer.moving_mean, mean), (layer.moving_variance, variance * ((count - 1) / count))):
        moving.assign(moving * layer.momentum + current * (1 - layer.momentum))
    return outputs


IMAGES, BATCH_SIZE = 5000, 250


class RenewStatistics(FitCallback):
    """Renew the statistics of a `TrainingModel`'s network before each validation.

    Training itself does not change: a training step uses the statistics of its own batch.
    """

    def on_test_begin(self, logs: Logs | None = None) -> None:
        pixels, *_ = self.model.device_data.training()
        renew_statistics(self.model.network, ops.reshape(pixels[:IMAGES], (-1, IMAGE_SIZE, IMAGE_SIZE, 3)))


def renew_statistics(network: keras.Model, images: Any, *, batch_size: int = BATCH_SIZE) -> None:
    """Replace BatchNorm's moving statistics by their average over these images.

    Training computes its moving statistics with dropout and augmentation; inference has neither, so its means and
    variances differ (arXiv:1801.05134 on dropout, arXiv:2105.07576 on averaging again).

    Args:
        network: as `build_model` makes it: a sequence of layers; changed in place, except frozen layers.
        images: `(count, 32, 32, 3)`, 0 to 255, of any dtype, on the device or not.
        batch_size: images per batch; a smaller last batch counts as much as the others.
    """
    layers = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]
    normalizations = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    # Keras does not update frozen layers.
    renewed: dict[Any, float] = {layer: layer.momentum for layer in normalizations if layer.trainable}
    for layer in renewed:  # An infinite statistic would stay infinite in the average.
        layer.moving_mean.assign(ops.zeros(layer.moving_mean.shape))
        layer.moving_variance.assign(ops.zeros(layer.moving_variance.shape))
    try:
        for number, start in enumerate(range(0, len(images), batch_size)):
            for layer in renewed:
                layer.momentum = number / (number + 1)  # The mean of all batches so far.
            outputs = ops.cast(images[start : start + batch_size], "float32") * (1 / 255)
            for layer in layers:
                outputs = layer(outputs, training=True) if layer in renewed else layer(outputs)
    finally:
        for layer, momentum in renewed.items():
            layer.momentum = momentum
