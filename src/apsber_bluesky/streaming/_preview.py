"""The newest frame for whoever looks on: lossy on purpose, and free for everybody else."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import numpy as np
import zmq
from numpy.typing import NDArray

from apsber_bluesky.core import ConfigurationError, FrameError, InputError
from apsber_bluesky.streaming._authenticator import CurveAuthenticator
from apsber_bluesky.streaming._bounded_msgpack import unpack_map
from apsber_bluesky.streaming._fan_out import check_open_address
from apsber_bluesky.streaming._fan_out_client import ClientKeys
from apsber_bluesky.streaming._messages import bound_address
from apsber_bluesky.streaming._series_messages import (
    DTYPES,
    MAXIMUM_FRAME_BYTES,
    MAXIMUM_PIXELS_PER_SIDE,
)

PROTOCOL: Final = "apsber-preview/1"
_MAXIMUM_HEADER_BYTES: Final = 1024
_LENGTH: Final = struct.Struct("<I")
_KEYS: Final = ("protocol", "run_uid", "stream", "index", "dtype", "rows", "columns")


@dataclass(frozen=True, slots=True)
class Preview:
    """A frame to look at.

    Attributes
    ----------
    run_uid, stream : str
        What it belongs to.
    index : int
        Its number in the stream; numbers in between were not shown.
    pixels : ndarray, shape (rows, columns)
        The frame, binned.
    """

    run_uid: str
    stream: str
    index: int
    pixels: NDArray[Any]


class PreviewPublisher:
    """Show the newest frame on a conflated PUB socket; showing never waits.

    Parameters
    ----------
    address : str
        Where to bind.
    binning : int
        Side of the square of pixels that becomes one, their mean.
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
    InputError
        If `binning` is below 1.
    """

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:*",
        *,
        binning: int = 1,
        authenticator: CurveAuthenticator | None = None,
        allow_plain: bool = False,
    ) -> None:
        if binning < 1:
            raise InputError(f"binning of the preview is {binning}; give 1 or more")
        check_open_address(address, secured=authenticator is not None or allow_plain)
        self._binning = binning
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

    def show(self, run_uid: str, stream: str, index: int, pixels: NDArray[Any]) -> None:
        """Show a frame, shape ``(rows, columns)``; one not yet seen by somebody is replaced."""
        small = bin_frame(pixels, self._binning)
        rows, columns = small.shape
        values = (PROTOCOL, run_uid, stream, index, small.dtype.str, rows, columns)
        header = msgpack.packb(dict(zip(_KEYS, values, strict=True)))
        # A conflated socket keeps one part, so everything is in one.
        message = b"".join((_LENGTH.pack(len(header)), header, small.data))
        with self._lock:
            self._socket.send(message, zmq.DONTWAIT)

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            self._socket.close(0)
            if self._own_context:
                self._context.term()


class PreviewSubscriber:
    """See the newest frame.

    Parameters
    ----------
    address : str
        Where the publisher is.
    keys : ClientKeys or None
        For a publisher that uses CURVE.

    Raises
    ------
    ConfigurationError
        If the address is none.
    """

    def __init__(self, address: str, *, keys: ClientKeys | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.conflate = True
        self._socket.linger = 0
        self._socket.maxmsgsize = MAXIMUM_FRAME_BYTES + _MAXIMUM_HEADER_BYTES + _LENGTH.size
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

    def latest(self, timeout_s: float) -> Preview | None:
        """The newest frame that has not been seen yet, None when none comes in time.

        Raises
        ------
        FrameError
            If something else was published.
        """
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        return parse_preview(self._socket.recv())

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)
        self._context.term()


def bin_frame(pixels: NDArray[Any], binning: int) -> NDArray[Any]:
    """Mean of squares of pixels, in the same dtype; an incomplete square at the edge is left out.

    Parameters
    ----------
    pixels : ndarray, shape (rows, columns)
        The frame.
    binning : int
        Side of a square [pixel]; no more than the frame has.
    """
    side = min(binning, *pixels.shape)
    if side == 1:
        return np.ascontiguousarray(pixels)
    rows, columns = (size // side for size in pixels.shape)
    squares = pixels[: rows * side, : columns * side].reshape(rows, side, columns, side)
    mean = squares.mean(axis=(1, 3), dtype=np.float64)
    if np.issubdtype(pixels.dtype, np.integer):
        np.rint(mean, out=mean)
    binned: NDArray[Any] = mean.astype(pixels.dtype)
    return binned


def parse_preview(message: bytes) -> Preview:
    """Read one message.

    Raises
    ------
    FrameError
        If it is no preview.
    """
    size = _LENGTH.unpack_from(message)[0] if len(message) >= _LENGTH.size else 0
    if not 0 < size <= _MAXIMUM_HEADER_BYTES:
        raise FrameError(f"preview header of {size} bytes refused")
    body = memoryview(message)[_LENGTH.size + size :]
    try:
        header = unpack_map(
            message[_LENGTH.size : _LENGTH.size + size], max_array_len=0, max_bin_len=0
        )
    except ValueError as error:
        raise FrameError(f"preview header is not msgpack: {error}") from error
    if header.get("protocol") != PROTOCOL:
        raise FrameError(f"no message of {PROTOCOL}")
    values: tuple[Any, ...] = tuple(header.get(key) for key in _KEYS)
    _, run_uid, stream, index, dtype, rows, columns = values
    sides = all(type(n) is int and 0 < n <= MAXIMUM_PIXELS_PER_SIDE for n in (rows, columns))
    texts = isinstance(run_uid, str) and isinstance(stream, str) and isinstance(dtype, str)
    if not sides or not texts or dtype not in DTYPES or type(index) is not int or index < 0:
        raise FrameError(f"preview header {header!r:.200} is not allowed")
    if len(body) != rows * columns * np.dtype(dtype).itemsize:
        raise FrameError(f"preview of {len(body)} bytes is no {dtype} {rows} x {columns}")
    return Preview(run_uid, stream, index, np.frombuffer(body, dtype).reshape(rows, columns))
