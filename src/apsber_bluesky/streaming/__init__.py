"""Frames in motion: received, accounted for, spooled and handed on."""

from apsber_bluesky.streaming._client import ReceiverClient
from apsber_bluesky.streaming._messages import Inbox, Outbox
from apsber_bluesky.streaming._publisher import FramePublisher
from apsber_bluesky.streaming._receiver import Receiver
from apsber_bluesky.streaming._ring import FrameRing, create_ring_memory
from apsber_bluesky.streaming._source import RingOrFileSource, path_of_uri

__all__ = [
    "FramePublisher",
    "FrameRing",
    "Inbox",
    "Outbox",
    "Receiver",
    "ReceiverClient",
    "RingOrFileSource",
    "create_ring_memory",
    "path_of_uri",
]
