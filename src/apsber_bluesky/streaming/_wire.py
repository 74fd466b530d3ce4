"""The suite's own frame protocol on the wire, version 1 (docs/reference/frame-protocol.md).

A ZMQ PUSH socket sends multipart messages: a msgpack map, then for frames the pixels. Parsing is
bounded: a header is small, flat and typed, and nothing in it is trusted before it is checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack
import xxhash

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._bounded_msgpack import unpack_map
from apsber_bluesky.streaming._series_messages import (
    DTYPES,
    MAXIMUM_FRAME_BYTES,
    MAXIMUM_PIXELS_PER_SIDE,
    Frame,
    Message,
    SeriesEnd,
    SeriesStart,
)

PROTOCOL: Final = "apsber-frames/1"
MAXIMUM_HEADER_BYTES: Final = 4096


def pack_start(start: SeriesStart) -> list[bytes]:
    """Parts of the message that begins a series."""
    return [
        _pack(
            type="start",
            series=start.series,
            num_frames=start.num_frames,
            rows=start.rows,
            columns=start.columns,
            dtype=start.dtype,
        )
    ]


def pack_frame_header(
    series: int, number: int, timestamp_s: float, angle_deg: float | None, pixels: memoryview
) -> bytes:
    """First part of a frame message; the second is `pixels` itself."""
    return _pack(
        type="frame",
        series=series,
        number=number,
        timestamp_s=timestamp_s,
        angle_deg=angle_deg,
        checksum=xxhash.xxh3_64_intdigest(pixels),
    )


def pack_end(end: SeriesEnd) -> list[bytes]:
    """Parts of the message that ends a series."""
    return [_pack(type="end", series=end.series, num_sent=end.num_sent)]


def _pack(**header: Any) -> bytes:
    packed: bytes = msgpack.packb({"protocol": PROTOCOL, **header})
    return packed


def parse(parts: Sequence[bytes | memoryview]) -> Message:
    """Read one message off the wire.

    Parameters
    ----------
    parts : sequence of bytes-like
        The parts of the multipart message.

    Returns
    -------
    SeriesStart, Frame or SeriesEnd
        The message, every field checked. The checksum of a frame is that of its pixels.

    Raises
    ------
    FrameError
        If the message is anything else; it names the field.
    """
    if not parts or len(parts[0]) > MAXIMUM_HEADER_BYTES:
        raise FrameError(f"frame header of {len(parts[0]) if parts else 0} bytes refused")
    try:
        header = unpack_map(
            parts[0], max_map_len=32, max_array_len=0, max_str_len=256, max_bin_len=0
        )
    except ValueError as error:
        raise FrameError(f"frame header is not msgpack: {error}") from error
    if header.get("protocol") != PROTOCOL:
        raise FrameError(f"frame protocol {header.get('protocol')!r:.80} is not {PROTOCOL!r}")
    kind = header.get("type")
    wanted = 2 if kind == "frame" else 1
    if len(parts) != wanted:
        raise FrameError(f"{kind!r:.80} message has {len(parts)} parts instead of {wanted}")
    if kind == "start":
        return _parse_start(header)
    if kind == "frame":
        return _parse_frame(header, memoryview(parts[1]))
    if kind == "end":
        return SeriesEnd(
            series=_integer(header, "series", 0, 2**63 - 1),
            num_sent=_integer(header, "num_sent", 0, 2**40),
        )
    raise FrameError(f"unknown frame message type {kind!r:.80}")


def _parse_start(header: Mapping[str, Any]) -> SeriesStart:
    dtype = header.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FrameError(f"dtype {dtype!r:.80} is not one of {', '.join(sorted(DTYPES))}")
    start = SeriesStart(
        series=_integer(header, "series", 0, 2**63 - 1),
        num_frames=_integer(header, "num_frames", 1, 2**40),
        rows=_integer(header, "rows", 1, MAXIMUM_PIXELS_PER_SIDE),
        columns=_integer(header, "columns", 1, MAXIMUM_PIXELS_PER_SIDE),
        dtype=dtype,
    )
    if start.frame_bytes > MAXIMUM_FRAME_BYTES:
        raise FrameError(f"frames of {start.frame_bytes} bytes exceed {MAXIMUM_FRAME_BYTES}")
    return start


def _parse_frame(header: Mapping[str, Any], pixels: memoryview) -> Frame:
    checksum = _integer(header, "checksum", 0, 2**64 - 1)
    number = _integer(header, "number", 0, 2**40)
    if xxhash.xxh3_64_intdigest(pixels) != checksum:
        raise FrameError(f"frame {number}: its pixels do not match their checksum")
    if "angle_deg" not in header:
        raise FrameError(f"frame {number}: angle_deg is missing; it is nil where nobody knows it")
    return Frame(
        series=_integer(header, "series", 0, 2**63 - 1),
        number=number,
        timestamp_s=_real(header, "timestamp_s"),
        angle_deg=math.nan if header["angle_deg"] is None else _real(header, "angle_deg"),
        checksum=checksum,
        pixels=pixels,
    )


def _integer(header: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = header.get(key)
    if type(value) is not int or not low <= value <= high:
        raise FrameError(f"frame header: {key} = {value!r:.80} is not an integer in {low}..{high}")
    return value


def _real(header: Mapping[str, Any], key: str) -> float:
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FrameError(f"frame header: {key} = {value!r:.80} is not a finite number")
    return float(value)
