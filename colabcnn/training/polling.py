"""Drive, polled at the end of each epoch."""

from colabcnn.drive.delivery import Delivery
from colabcnn.network.keras_types import FitCallback, Logs


class PollDrive(FitCallback):
    """Begin a delivery when one is due, and stop training where a newer session trains the run; never waits.

    Args:
        delivery: `Delivery`, begun.
    """

    def __init__(self, delivery: Delivery):
        super().__init__()
        self._delivery = delivery

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._delivery.tick()
