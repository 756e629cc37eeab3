"""A run's local folder, and deliveries from it."""

import pytest

from colabcnn.drive.delivery import Delivery
from support.deliveries import Clock, wait_for_response


@pytest.fixture
def local(tmp_path):
    (tmp_path / "local").mkdir()
    return tmp_path / "local"


@pytest.fixture
def deliver_to(local):
    """Return a function that starts a `Delivery` from `local`, with its `messages` and a `clock` that the test sets."""
    started = []

    def deliver_to(drive, minutes=0, begin=True, folder=local):
        messages, clock = [], Clock()
        delivery = Delivery(folder, drive, minutes=minutes, info=messages.append, clock=clock)
        delivery.messages, delivery.clock = messages, clock
        started.append(delivery)
        if begin:
            delivery.begin("this run")
            wait_for_response(delivery)
        return delivery

    yield deliver_to
    for delivery in started:
        delivery.close()
