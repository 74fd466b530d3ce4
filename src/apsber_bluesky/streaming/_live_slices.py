"""Live slices on their way from the worker to the monitor: the three of one moment together."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import PLANES, FrameError, LiveView
from apsber_bluesky.streaming._conflated import (
    ConflatedPublisher,
    ConflatedSubscriber,
    split_message,
)
from apsber_bluesky.streaming._series_messages import MAXIMUM_PIXELS_PER_SIDE

PROTOCOL: Final = "apsber-live-slices/1"
MAXIMUM_SLICES_BYTES: Final = 1 << 30
_PIXEL: Final = np.dtype("<f4")
_COUNTS: Final = ("used", "dropped", "total", "binning")
_NUMBERS: Final = ("centre_px", "window_deg", "latency_s")
_TEXTS: Final = ("run_uid", "centre_from")


class SlicePublisher(ConflatedPublisher):
    """Show the newest slices to processes of this computer; showing never waits.

    Attributes
    ----------
    address : str
        Where a `SliceSubscriber` finds them.
    """

    def show(self, view: LiveView) -> None:
        """Show slices; those not yet seen by somebody are replaced."""
        rows, columns = view.planes["xz"].shape
        values = {name: getattr(view, name) for name in (*_COUNTS, *_NUMBERS, *_TEXTS)}
        header = {"protocol": PROTOCOL, "rows": rows, "columns": columns, **values}
        planes = (np.ascontiguousarray(view.planes[name], _PIXEL) for name in PLANES)
        self.send(header, *(plane.data for plane in planes))


class SliceSubscriber(ConflatedSubscriber[LiveView]):
    """See the newest slices.

    Parameters
    ----------
    address : str
        Where the publisher is.

    Raises
    ------
    ConfigurationError
        If the address is none.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address, parse_slices, maximum_bytes=MAXIMUM_SLICES_BYTES)


def parse_slices(message: bytes) -> LiveView:
    """Read one message.

    Raises
    ------
    FrameError
        If it holds no slices.
    """
    header, body = split_message(message, "live slices", PROTOCOL)
    sides = [header.get(name) for name in ("rows", "columns")]
    counts = [header.get(name) for name in _COUNTS]
    numbers = [header.get(name) for name in _NUMBERS]
    texts = [header.get(name) for name in _TEXTS]
    if not (
        all(type(n) is int and 0 < n <= MAXIMUM_PIXELS_PER_SIDE for n in sides)
        and all(type(n) is int and n >= 0 for n in counts)
        and all(isinstance(n, float) and math.isfinite(n) for n in numbers)
        and all(isinstance(text, str) for text in texts)
    ):
        raise FrameError(f"live slices header {header!r:.300} is not allowed")
    planes = _planes(body, header["rows"], header["columns"])
    values = {name: header[name] for name in (*_COUNTS, *_NUMBERS, *_TEXTS)}
    return LiveView(planes=planes, **values)


def _planes(body: memoryview, rows: int, columns: int) -> dict[str, NDArray[Any]]:
    shapes = ((columns, columns), (rows, columns), (rows, columns))
    size = sum(math.prod(shape) for shape in shapes) * _PIXEL.itemsize
    if len(body) != size:
        raise FrameError(f"{len(body)} bytes are no slices of {rows} rows, {columns} columns")
    pixels, first, planes = np.frombuffer(body, _PIXEL), 0, {}
    for name, shape in zip(PLANES, shapes, strict=True):
        last = first + math.prod(shape)
        planes[name] = pixels[first:last].reshape(shape)
        first = last
    return planes
