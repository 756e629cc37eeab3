"""BatchNorm's moving statistics, averaged anew over the training images as they are."""

import keras
from keras import ops

IMAGES, BATCH_SIZE = 5000, 250


class RenewStatistics(keras.callbacks.Callback):
    """Renew the statistics of a `TrainingModel`'s network before each validation.

    What training itself computes is not touched: a training step takes the statistics of its own batch.
    """

    def on_test_begin(self, logs=None):
        images, *_ = self.model.resident.train()
        renew_statistics(self.model.network, images[:IMAGES])


def renew_statistics(network, images, *, batch_size=BATCH_SIZE):
    """Replace BatchNorm's moving statistics by their average over these images.

    The moving statistics that training leaves are those of dropped-out activations of augmented images; at inference
    there is neither dropout nor augmentation, so means and variances are others (arXiv:1801.05134 on dropout,
    arXiv:2105.07576 on averaging anew).

    Args:
        network: as `build_model` makes it: one layer after the other; changed in place, but for frozen layers.
        images: `(count, 32, 32, 3)`, uint8, on the device or not.
        batch_size: images a batch; a smaller last one counts as much as the others.
    """
    layers = [layer for layer in network.layers if not isinstance(layer, keras.layers.InputLayer)]
    normalizations = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    renewed = {layer: layer.momentum for layer in normalizations if layer.trainable}  # Keras moves no frozen one.
    for layer in renewed:  # What has overflowed stays so in any average.
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
