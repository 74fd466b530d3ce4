"""A state on its way to another process: the newest, and nothing else."""

from __future__ import annotations

import time

import pytest

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming import StatusPublisher, StatusSubscriber
from apsber_bluesky.streaming._conflated import ConflatedPublisher


def read(publisher, subscriber, header, body):
    """Publish until somebody listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        publisher.send(header, body)
        subscriber.latest(0.05)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"protocol": "apsber-status/1"}, b"{"),
        ({"protocol": "apsber-status/1"}, b"[1]"),
        ({"protocol": "apsber-status/1"}, b"[" * 100_000),
        ({"protocol": "other"}, b"{}"),
    ],
)
def test_what_is_no_status_is_refused(header, body):
    publisher = ConflatedPublisher()
    subscriber = StatusSubscriber(publisher.address)
    with pytest.raises(FrameError):
        read(publisher, subscriber, header, body)
    subscriber.close()
    publisher.close()


def test_a_slow_reader_gets_the_newest():
    publisher = StatusPublisher()
    subscriber = StatusSubscriber(publisher.address)
    while subscriber.latest(0.05) is None:
        publisher.show({"number": -1})
    for number in range(1000):
        publisher.show({"number": number})
    state = subscriber.latest(20)
    while state != {"number": 999}:
        state = subscriber.latest(20)
        assert state is not None
    subscriber.close()
    publisher.close()
