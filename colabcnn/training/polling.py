"""Drive, polled at the end of each epoch."""

from colabcnn.drive.delivery import Delivery
from colabcnn.network.keras_types import FitCallback, Logs


class PollDrive(FitCallback):
    """Take in Drive's response and begin a delivery when one is due; never waits.

    The `Recorder` then stops training if a newer session trains the run.

    Args:
        delivery: `Delivery`, begun.
    """

    def __init__(self, delivery: Delivery):
        super().__init__()
        self._delivery = delivery

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._delivery.tick()
