"""Sockets that keep the newest message alone: lossy on purpose, and free for who sends."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgpack
import zmq

from apsber_bluesky.core import ConfigurationError, FrameError
from apsber_bluesky.streaming._authenticator import CurveAuthenticator
from apsber_bluesky.streaming._bounded_msgpack import unpack_map
from apsber_bluesky.streaming._fan_out import check_open_address
from apsber_bluesky.streaming._fan_out_client import ClientKeys
from apsber_bluesky.streaming._messages import bound_address

MAXIMUM_HEADER_BYTES: Final = 1024
_LENGTH: Final = struct.Struct("<I")
_Shown = TypeVar("_Shown")


class ConflatedPublisher:
    """A PUB socket whose slow readers miss all but the newest message.

    Parameters
    ----------
    address : str
        Where to bind.
    authenticator : CurveAuthenticator or None
        Who may look; without one, `address` must be of this machine alone.
    allow_plain : bool
        Whether everybody on the network may look.

    Attributes
    ----------
    address : str
        The bound address.

    Raises
    ------
    ConfigurationError
        If the address is none, is taken, or is open to others without an authenticator.
    """

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:*",
        *,
        authenticator: CurveAuthenticator | None = None,
        allow_plain: bool = False,
    ) -> None:
        check_open_address(address, secured=authenticator is not None or allow_plain)
        self._own_context = authenticator is None
        self._context = zmq.Context() if authenticator is None else authenticator.context
        self._lock = threading.Lock()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.conflate = True
        self._socket.linger = 0
        if authenticator is not None:
            authenticator.secure(self._socket)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigurationError(
                f"cannot show frames at {address!r}: {error.strerror}; give a free address"
            ) from error
        self.address = bound_address(self._socket)

    def send(self, header: Mapping[str, Any], *bodies: Any) -> None:
        """Send plain values and buffers; never waits."""
        packed = msgpack.packb(header)
        # A conflated socket keeps one part, so everything is in one.
        message = b"".join((_LENGTH.pack(len(packed)), packed, *bodies))
        with self._lock:
            self._socket.send(message, zmq.DONTWAIT)

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            self._socket.close(0)
            if self._own_context:
                self._context.term()


class ConflatedSubscriber(Generic[_Shown]):
    """The other end of a `ConflatedPublisher`.

    Parameters
    ----------
    address : str
        Where the publisher is.
    read : callable
        Makes of a message what was shown; raises `FrameError` if it is something else.
    maximum_bytes : int
        Larger messages are refused by the socket.
    keys : ClientKeys or None
        For a publisher that uses CURVE.

    Raises
    ------
    ConfigurationError
        If the address is none.
    """

    def __init__(
        self,
        address: str,
        read: Callable[[bytes], _Shown],
        *,
        maximum_bytes: int,
        keys: ClientKeys | None = None,
    ) -> None:
        self._read = read
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.conflate = True
        self._socket.linger = 0
        self._socket.maxmsgsize = maximum_bytes + MAXIMUM_HEADER_BYTES + _LENGTH.size
        if keys is not None:
            self._socket.curve_serverkey = keys.server
            self._socket.curve_publickey = keys.own.public
            self._socket.curve_secretkey = keys.own.secret
        self._socket.subscribe(b"")
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigurationError(
                f"cannot connect to {address!r}: {error.strerror}; give an address like"
                " 'tcp://beamline:5557'"
            ) from error

    def latest(self, timeout_s: float) -> _Shown | None:
        """The newest that has not been seen yet, None when nothing comes in time.

        Raises
        ------
        FrameError
            If something else was published.
        """
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        return self._read(self._socket.recv())

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)
        self._context.term()


def split_message(message: bytes, what: str, protocol: str) -> tuple[dict[str, Any], memoryview]:
    """Header and body of a message; the header's values are yet to be checked.

    Parameters
    ----------
    message : bytes
        As it came.
    what : str
        What it should be, for messages to the user.
    protocol : str
        What its header must name.

    Raises
    ------
    FrameError
        If it has no such header.
    """
    size = _LENGTH.unpack_from(message)[0] if len(message) >= _LENGTH.size else 0
    if not 0 < size <= MAXIMUM_HEADER_BYTES:
        raise FrameError(f"{what} header of {size} bytes refused")
    try:
        header = unpack_map(
            message[_LENGTH.size : _LENGTH.size + size], max_array_len=0, max_bin_len=0
        )
    except ValueError as error:
        raise FrameError(f"{what} header is not msgpack: {error}") from error
    if header.get("protocol") != protocol:
        raise FrameError(f"no message of {protocol}")
    return header, memoryview(message)[_LENGTH.size + size :]
