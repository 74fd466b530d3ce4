"""EIGER, Stream V2: CBOR over ZMQ (docs/reference/eiger-stream.md).

Format: DECTRIS, "Stream V2" (github.com/dectris/documentation, 2026-06-24); typed arrays: RFC 8746.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import xxhash

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._cbor import Tagged, parse_cbor
from apsber_bluesky.streaming._codecs import check_encoded
from apsber_bluesky.streaming._eiger_fields import (
    MAXIMUM_FRAMES,
    MAXIMUM_SERIES,
    checked_size,
    dtype_of,
    integer,
    shown,
    side,
    text,
)
from apsber_bluesky.streaming._series_messages import (
    Codec,
    Frame,
    Message,
    SeriesEnd,
    SeriesStart,
)

MAXIMUM_CHANNELS: Final = 16
_DATE_TIME, _ARRAY, _COMPRESSED = 0, 40, 56500
_COLUMN_MAJOR: Final = 1040
_CODECS: Final[dict[str, Codec]] = {"bslz4": "bslz4", "lz4": "lz4"}
_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)

# RFC 8746, section 2.1; 76 and the 16-byte floats 83 and 87 have no dtype here.
_DTYPE_OF_TAG: Final = {
    **dict(
        zip(range(64, 72), ["|u1", ">u2", ">u4", ">u8", "|u1", "<u2", "<u4", "<u8"], strict=True)
    ),
    **dict(zip(range(72, 76), ["|i1", ">i2", ">i4", ">i8"], strict=True)),
    **dict(zip(range(77, 80), ["<i2", "<i4", "<i8"], strict=True)),
    **dict(zip(range(80, 83), [">f2", ">f4", ">f8"], strict=True)),
    **dict(zip(range(84, 87), ["<f2", "<f4", "<f8"], strict=True)),
}


class EigerStream2Reader:
    """Read what an EIGER sends with ``stream/config/format`` set to ``cbor``.

    The start message says what is to come, and every image is held against it. A series stays
    open after its end message, until another starts. One image message gives a `Frame` for each
    channel (threshold), in the order of the start message.
    """

    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._start: SeriesStart | None = None
        self._unique_id = ""
        self._date: tuple[str, float] = ("", 0.0)

    def read(self, parts: Sequence[bytes | memoryview], source: int = 0) -> list[Message]:
        """Read one message off the wire.

        Parameters
        ----------
        parts : sequence of bytes-like
            The message, which has one part.
        source : int
            Number of the socket that it came from; of no concern here.

        Returns
        -------
        list of SeriesStart, Frame or SeriesEnd
            One start; or one frame for each channel, whose pixels are views of the message and
            whose checksum is computed here; or one end, with ``num_sent`` -1.

        Raises
        ------
        FrameError
            If it is no message of this format or does not fit its series; it names the field.
        """
        if len(parts) != 1:
            raise FrameError(f"stream V2 message of {len(parts)} parts instead of 1")
        message = parse_cbor(parts[0])
        if not isinstance(message, dict):
            raise FrameError(f"stream V2 message is {shown(message)}, not a map")
        kind = message.get("type")
        if kind == "start":
            return [self._read_start(message)]
        if kind == "image":
            return list(self._read_image(message))
        if kind == "end":
            return [SeriesEnd(self._series(message, "end message").series, -1)]
        raise FrameError(f"type = {shown(kind)} is not start, image or end")

    def _read_start(self, message: Mapping[str, Any]) -> SeriesStart:
        start = checked_size(
            SeriesStart(
                series=integer(message, "series_id", 0, MAXIMUM_SERIES),
                num_frames=integer(message, "number_of_images", 1, MAXIMUM_FRAMES),
                rows=side(message, "image_size_y"),
                columns=side(message, "image_size_x"),
                dtype=dtype_of(message, "image_dtype"),
                channels=_channels(message),
            )
        )
        unique_id = text(message, "series_unique_id")
        if unique_id == self._unique_id and start != self._start:
            raise FrameError(
                f"series_unique_id = {unique_id[:64]!r} starts again as another series"
            )
        self._start, self._unique_id = start, unique_id
        return start

    def finish(self) -> list[Message]:
        """What is still held at the end of a series: nothing."""
        return []

    def _series(self, message: Mapping[str, Any], what: str) -> SeriesStart:
        if self._start is None:
            raise FrameError(f"{what} before the start message of its series")
        series = integer(message, "series_id", 0, MAXIMUM_SERIES)
        unique_id = text(message, "series_unique_id")
        if series != self._start.series:
            raise FrameError(f"series_id = {series} while series {self._start.series} is open")
        if unique_id != self._unique_id:
            raise FrameError(
                f"series_unique_id = {unique_id[:64]!r} is not {self._unique_id[:64]!r}"
            )
        return self._start

    def _read_image(self, message: Mapping[str, Any]) -> list[Frame]:
        start = self._series(message, "image")
        number = integer(message, "image_id", 0, start.num_frames - 1)
        data = message.get("data")
        if not isinstance(data, dict):
            raise FrameError(f"image {number}: data = {shown(data)} is not a map of channels")
        if set(data) != set(start.channels):
            raise FrameError(
                f"image {number}: data has the channels {_listed(data)},"
                f" not {_listed(start.channels)}"
            )
        timestamp_s = self._timestamp(message)
        frames = []
        for channel, name in enumerate(start.channels):
            try:
                pixels, codec = _pixels(data[name], start)
            except FrameError as error:
                raise FrameError(f"image {number}, channel {name[:64]!r}: {error}") from error
            checksum = xxhash.xxh3_64_intdigest(pixels)
            frames.append(
                Frame(start.series, number, timestamp_s, math.nan, checksum, pixels, codec, channel)
            )
        return frames

    def _timestamp(self, message: Mapping[str, Any]) -> float:
        date = message.get("series_date")
        if not isinstance(date, Tagged) or date.tag != _DATE_TIME:
            raise FrameError(f"series_date = {shown(date)} is not a date and time (tag 0)")
        if not isinstance(date.value, str):
            raise FrameError(f"series_date = {shown(date.value)} is not a text")
        # The same in all images of a series, so read only once.
        if date.value != self._date[0]:
            self._date = (date.value, _unix_s(date.value))
        return self._date[1] + _rational(message, "start_time")


def _channels(message: Mapping[str, Any]) -> tuple[str, ...]:
    names = message.get("channels")
    if not isinstance(names, list) or not 0 < len(names) <= MAXIMUM_CHANNELS:
        raise FrameError(f"channels = {shown(names)} is not a list of 1..{MAXIMUM_CHANNELS} names")
    checked = tuple(text({"channels": name}, "channels") for name in names)
    if len(set(checked)) != len(checked):
        raise FrameError(f"channels = {_listed(checked)} has a name twice")
    return checked


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    joined = ", ".join(name[:64] for name in [*names][: MAXIMUM_CHANNELS + 1])[:256]
    # A name may hold anything, also the end of a line.
    return f"({joined if joined.isprintable() else ascii(joined)})"


def _pixels(item: Any, start: SeriesStart) -> tuple[memoryview, Codec]:
    """Bytes and codec of one channel, a multi-dimensional typed array."""
    if isinstance(item, Tagged) and item.tag == _COLUMN_MAJOR:
        raise FrameError("data: tag 1040, column-major, is not supported; rows must come first")
    dimensions, array = _content(item, _ARRAY, "a multi-dimensional array", 2)
    if dimensions != [start.rows, start.columns] or any(type(n) is not int for n in dimensions):
        given = str(dimensions[:3])[:64] if isinstance(dimensions, list) else shown(dimensions)
        raise FrameError(
            f"data: dimensions {given} are not [{start.rows}, {start.columns}], rows first"
        )
    dtype = _DTYPE_OF_TAG.get(array.tag) if isinstance(array, Tagged) else None
    if dtype is None:
        raise FrameError(f"data: {_tag_of(array)} is not a typed array")
    if dtype != start.dtype:
        raise FrameError(
            f"data: {_tag_of(array)}, dtype {dtype}, is not image_dtype {start.dtype};"
            f" neither size nor byte order may differ"
        )
    itemsize = np.dtype(dtype).itemsize
    pixels, codec = _encoded(array.value, itemsize)
    check_encoded(pixels, codec, frame_bytes=start.frame_bytes, itemsize=itemsize)
    return pixels, codec


def _encoded(item: Any, itemsize: int) -> tuple[memoryview, Codec]:
    if isinstance(item, memoryview):
        return item, "none"
    algorithm, modifier, pixels = _content(
        item, _COMPRESSED, "a byte string, plain or compressed", 3
    )
    codec = _CODECS.get(algorithm) if isinstance(algorithm, str) else None
    if codec is None:
        raise FrameError(f"data: compression {shown(algorithm)} is not bslz4 or lz4")
    # The element size is part of bslz4 alone; with another one its pixels come out scrambled.
    wanted = itemsize if codec == "bslz4" else 0
    if type(modifier) is not int or modifier != wanted:
        raise FrameError(f"data: element size {shown(modifier)} of {codec} is not {wanted}")
    if not isinstance(pixels, memoryview):
        raise FrameError(f"data: compressed pixels are {shown(pixels)}, not a byte string")
    return pixels, codec


def _content(item: Any, tag: int, what: str, length: int) -> list[Any]:
    if not isinstance(item, Tagged) or item.tag != tag:
        raise FrameError(f"data: {_tag_of(item)} is not tag {tag}, {what}")
    if not isinstance(item.value, list) or len(item.value) != length:
        raise FrameError(f"data: content of tag {tag} is not a list of {length}")
    return item.value


def _tag_of(item: Any) -> str:
    return f"tag {item.tag}" if isinstance(item, Tagged) else shown(item)


def _unix_s(date: str) -> float:
    if _RFC_3339.fullmatch(date) is None:
        raise FrameError(f"series_date = {date[:64]!r} is not a date and time with its time zone")
    try:
        return datetime.fromisoformat(date.upper()).timestamp()
    except (ValueError, OverflowError) as error:
        raise FrameError(f"series_date = {date[:64]!r}: {str(error)[:100]}") from error


def _rational(message: Mapping[str, Any], key: str) -> float:
    value = message.get(key)
    if not isinstance(value, list) or len(value) != 2:
        raise FrameError(f"{key} = {shown(value)} is not a pair of integers")
    numerator = integer({key: value[0]}, key, 0, 2**64 - 1)
    return numerator / integer({key: value[1]}, key, 1, 2**64 - 1)
