"""Fields of an EIGER's headers, checked one by one; whatever is wrong is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._series_messages import (
    MAXIMUM_FRAME_BYTES,
    MAXIMUM_PIXELS_PER_SIDE,
    SeriesStart,
)

MAXIMUM_SERIES: Final = 2**63 - 1
MAXIMUM_FRAMES: Final = 2**40
MAXIMUM_TEXT: Final = 256

DTYPE_OF_NAME: Final = {
    "uint8": "|u1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float32": "<f4",
    "float64": "<f8",
}
"""The first three are what an EIGER sends today; the others are those that can be stored."""


def integer(header: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """An integer field in ``low..high``."""
    value = header.get(key)
    if type(value) is not int or not low <= value <= high:
        raise FrameError(f"{key} = {shown(value)} is not an integer in {low}..{high}")
    return value


def text(header: Mapping[str, Any], key: str) -> str:
    """A text field that is neither empty nor long."""
    value = header.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAXIMUM_TEXT:
        raise FrameError(f"{key} = {shown(value)} is not a text of 1..{MAXIMUM_TEXT} characters")
    return value


def dtype_of(header: Mapping[str, Any], key: str) -> str:
    """NumPy dtype string of a field that names a type."""
    name = text(header, key)
    if name not in DTYPE_OF_NAME:
        raise FrameError(f"{key} = {name!r} is not one of {', '.join(DTYPE_OF_NAME)}")
    return DTYPE_OF_NAME[name]


def side(header: Mapping[str, Any], key: str) -> int:
    """A number of pixels along one side."""
    return integer(header, key, 1, MAXIMUM_PIXELS_PER_SIDE)


def checked_size(start: SeriesStart) -> SeriesStart:
    """The same, if its frames are not too large."""
    if start.frame_bytes > MAXIMUM_FRAME_BYTES:
        raise FrameError(
            f"image size {start.columns} x {start.rows} {start.dtype}: frames of"
            f" {start.frame_bytes} bytes exceed {MAXIMUM_FRAME_BYTES}"
        )
    return start


def shown(value: Any) -> str:
    """A value from the wire, short enough for a message."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, list | dict | memoryview):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, str | int | float | None):
        return repr(value[:64] if isinstance(value, str) else value)
    # Whatever else came may be long, and a line in the log must not be.
    return f"a {type(value).__name__}"
