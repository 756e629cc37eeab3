"""The first Ctrl-C lets an epoch end that ends soon; a second one never waits."""

import signal

import pytest

from colabcnn.training import interruption
from colabcnn.training.interruption import Interruption


def test_second_signal_stops_at_once():
    messages, before = [], signal.getsignal(signal.SIGINT)
    with Interruption(messages.append) as interrupted:
        interrupted.allow(lambda: 0.0)
        signal.raise_signal(signal.SIGINT)
        interrupted.check()
        assert [message.partition(":")[0] for message in messages] == ["Stops soon"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_epoch_that_does_not_end_in_its_time_is_stopped(monkeypatch):
    with Interruption(lambda message: None) as interrupted:
        interrupted.allow(lambda: 0.0)
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(interruption, "EPOCH_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            interrupted.check()


@pytest.mark.parametrize("epoch_left", [None, lambda: 16.0])
def test_signal_stops_at_once_if_the_epoch_does_not_end_soon(epoch_left):
    with Interruption(lambda message: None) as interrupted:
        interrupted.allow(epoch_left)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
