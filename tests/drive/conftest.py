"""A run's local folder, and deliveries from it."""

import pytest

from colabcnn.drive.delivery import Delivery
from support.deliveries import Clock, Told, answered


@pytest.fixture
def local(tmp_path):
    (tmp_path / "local").mkdir()
    return tmp_path / "local"


@pytest.fixture
def deliver_to(local):
    """Return a function that begins a `Delivery` from `local`; it has `said` and a `clock` of the test's."""
    begun = []

    def deliver_to(drive, minutes=0, begin=True, folder=local):
        said, clock = Told(), Clock()
        delivery = Delivery(folder, drive, minutes=minutes, info=said, clock=clock)
        delivery.said, delivery.clock = said, clock
        begun.append(delivery)
        if begin:
            delivery.begin("this run")
            answered(delivery)
        return delivery

    yield deliver_to
    for delivery in begun:
        delivery.close()
