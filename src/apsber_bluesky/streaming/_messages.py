"""Messages between the processes of a session: bounded msgpack maps over loopback ZMQ.

Nothing on these sockets is ever unpickled.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

import msgpack
import zmq

from apsber_bluesky.core import ServiceError
from apsber_bluesky.streaming._bounded_msgpack import unpack_map

logger = logging.getLogger(__name__)

MAXIMUM_MESSAGE_BYTES: Final = 16 << 20
MAXIMUM_CONTAINERS: Final = 1 << 18


def pack_message(message: Mapping[str, Any]) -> bytes:
    """Pack plain values.

    Raises
    ------
    ServiceError
        If the message is too large to be accepted at the other end.
    """
    packed: bytes = msgpack.packb(message)
    if len(packed) > MAXIMUM_MESSAGE_BYTES:
        raise ServiceError(
            f"message {message.get('type')!r} of {len(packed)} bytes exceeds"
            f" {MAXIMUM_MESSAGE_BYTES}"
        )
    return packed


def unpack_message(packed: bytes) -> dict[str, Any]:
    """Unpack what `pack_message` packed.

    Raises
    ------
    ServiceError
        If it is anything else.
    """
    if len(packed) > MAXIMUM_MESSAGE_BYTES:
        raise ServiceError(f"message of {len(packed)} bytes exceeds {MAXIMUM_MESSAGE_BYTES}")
    try:
        message: dict[str, Any] = unpack_map(packed, maximum_containers=MAXIMUM_CONTAINERS)
    except ValueError as error:
        raise ServiceError(f"message of {len(packed)} bytes is not msgpack: {error}") from error
    if not isinstance(message.get("type"), str):
        raise ServiceError("message is not a map with a type")
    return message


def bound_address(socket: zmq.Socket[bytes]) -> str:
    """The address that a socket was really bound to, with the port that was free."""
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


class Inbox:
    """A PULL socket on a free loopback port.

    Attributes
    ----------
    address : str
        Where others send to.
    """

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.rcvhwm = 0
        self._socket.maxmsgsize = MAXIMUM_MESSAGE_BYTES
        self._socket.linger = 0
        self._socket.bind("tcp://127.0.0.1:*")
        self.address = bound_address(self._socket)

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Take the next message, or None when none comes in time.

        What is no message is refused with a line in the log: anybody on this machine can send to
        the port, and that must not end the service behind it.
        """
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        try:
            return unpack_message(self._socket.recv())
        except ServiceError as error:
            logger.warning("refused: %s", error)
            return None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._context.term()


class Outbox:
    """A PUSH socket to somebody's `Inbox`; sending never waits for the other side.

    Parameters
    ----------
    address : str
        Address of the inbox.
    linger_s : float
        How long closing may wait for messages still under way [s].
    """

    def __init__(self, address: str, *, linger_s: float = 2.0) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.sndhwm = 0
        self._socket.linger = int(linger_s * 1000)
        self._socket.connect(address)
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send plain values with a ``type``."""
        packed = pack_message(message)
        with self._lock:
            self._socket.send(packed)

    def close(self) -> None:
        """Close the socket when what was sent has gone out."""
        with self._lock:
            self._socket.close()
            self._context.term()
