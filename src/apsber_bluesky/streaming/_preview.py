"""The newest frame for whoever looks on: lossy on purpose, and free for everybody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.streaming._authenticator import CurveAuthenticator
from apsber_bluesky.streaming._conflated import (
    ConflatedPublisher,
    ConflatedSubscriber,
    split_message,
)
from apsber_bluesky.streaming._fan_out_client import ClientKeys
from apsber_bluesky.streaming._series_messages import (
    DTYPES,
    MAXIMUM_FRAME_BYTES,
    MAXIMUM_PIXELS_PER_SIDE,
)

PROTOCOL: Final = "apsber-preview/1"
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


class PreviewPublisher(ConflatedPublisher):
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
        self._binning = binning
        super().__init__(address, authenticator=authenticator, allow_plain=allow_plain)

    def show(self, run_uid: str, stream: str, index: int, pixels: NDArray[Any]) -> None:
        """Show a frame, shape ``(rows, columns)``; one not yet seen by somebody is replaced."""
        small = bin_frame(pixels, self._binning)
        rows, columns = small.shape
        values = (PROTOCOL, run_uid, stream, index, small.dtype.str, rows, columns)
        self.send(dict(zip(_KEYS, values, strict=True)), small.data)


class PreviewSubscriber(ConflatedSubscriber[Preview]):
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
        super().__init__(address, parse_preview, maximum_bytes=MAXIMUM_FRAME_BYTES, keys=keys)


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
    header, body = split_message(message, "preview", PROTOCOL)
    values: tuple[Any, ...] = tuple(header.get(key) for key in _KEYS)
    _, run_uid, stream, index, dtype, rows, columns = values
    sides = all(type(n) is int and 0 < n <= MAXIMUM_PIXELS_PER_SIDE for n in (rows, columns))
    texts = isinstance(run_uid, str) and isinstance(stream, str) and isinstance(dtype, str)
    if not sides or not texts or dtype not in DTYPES or type(index) is not int or index < 0:
        raise FrameError(f"preview header {header!r:.200} is not allowed")
    if len(body) != rows * columns * np.dtype(dtype).itemsize:
        raise FrameError(f"preview of {len(body)} bytes is no {dtype} {rows} x {columns}")
    return Preview(run_uid, stream, index, np.frombuffer(body, dtype).reshape(rows, columns))
