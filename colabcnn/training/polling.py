"""Drive, polled at the end of each epoch."""

import keras

from colabcnn.drive.delivery import Delivery


class PollDrive(keras.callbacks.Callback):
    """Begin a delivery when one is due, and stop training where a newer session trains the run; never waits.

    Args:
        delivery: `Delivery`, begun.
    """

    def __init__(self, delivery: Delivery):
        super().__init__()
        self._delivery = delivery

    def on_epoch_end(self, epoch, logs=None):
        self._delivery.tick()
