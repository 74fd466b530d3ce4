"""The frame protocol: whatever comes off the wire is a checked message or a `FrameError`."""

from __future__ import annotations

import math

import msgpack
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming import _wire as wire
from apsber_bluesky.streaming._series_messages import (
    DTYPES,
    MAXIMUM_FRAME_BYTES,
    Frame,
    SeriesEnd,
    SeriesStart,
)
from apsber_bluesky.streaming._wire import parse

series_numbers = st.integers(0, 2**63 - 1)
reals = st.floats(allow_nan=False, allow_infinity=False)
starts = st.builds(
    SeriesStart,
    series_numbers,
    st.integers(1, 2**40),
    st.integers(1, 4000),
    st.integers(1, 4000),
    st.sampled_from(sorted(DTYPES)),
)
ends = st.builds(SeriesEnd, series_numbers, st.integers(0, 2**40))


def frame_parts(series, number, timestamp_s, angle_deg, pixels):
    header = wire.pack_frame_header(series, number, timestamp_s, angle_deg, memoryview(pixels))
    return [header, pixels]


frame_messages = st.builds(
    frame_parts,
    series_numbers,
    st.integers(0, 2**40),
    reals,
    st.none() | reals,
    st.binary(max_size=200),
)
messages = starts.map(wire.pack_start) | ends.map(wire.pack_end) | frame_messages


@given(starts)
def test_the_start_of_a_series_survives_the_wire(start):
    assert parse(wire.pack_start(start)) == start


@given(ends)
def test_the_end_of_a_series_survives_the_wire(end):
    assert parse(wire.pack_end(end)) == end


@given(series_numbers, st.integers(0, 2**40), reals, st.none() | reals, st.binary(max_size=500))
def test_a_frame_survives_the_wire(series, number, timestamp_s, angle_deg, pixels):
    frame = parse(frame_parts(series, number, timestamp_s, angle_deg, pixels))
    assert (frame.series, frame.number, frame.timestamp_s) == (series, number, timestamp_s)
    assert bytes(frame.pixels) == pixels
    assert frame.checksum == xxhash.xxh3_64_intdigest(pixels)
    assert math.isnan(frame.angle_deg) if angle_deg is None else frame.angle_deg == angle_deg


def is_sound(message) -> None:
    """What every accepted message keeps to, whoever sent it."""
    assert 0 <= message.series < 2**63
    if isinstance(message, SeriesStart):
        assert message.dtype in DTYPES
        assert message.num_frames >= 1
        assert 0 < message.frame_bytes <= MAXIMUM_FRAME_BYTES
        assert message.rows * message.columns * np.dtype(message.dtype).itemsize > 0
    elif isinstance(message, Frame):
        assert xxhash.xxh3_64_intdigest(message.pixels) == message.checksum
        assert message.number >= 0
        assert math.isfinite(message.timestamp_s)
        assert not math.isinf(message.angle_deg)
    else:
        assert message.num_sent >= 0


def parsed_or_refused(parts) -> None:
    try:
        message = parse(parts)
    except FrameError:
        return
    is_sound(message)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_random_bytes_are_refused_and_nothing_else_happens(parts):
    parsed_or_refused(parts)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**33), st.integers(0, 10**9 - 1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
_START = ["type", "protocol", "series", "num_frames", "rows", "columns", "dtype"]
_REST = ["number", "checksum", "timestamp_s", "angle_deg", "num_sent", "other"]
header_keys = st.sampled_from([*_START, *_REST])


@given(messages, st.dictionaries(header_keys, anything, max_size=3), st.sets(header_keys))
def test_a_header_with_any_other_values_is_refused_or_sound(parts, changes, removed):
    header = msgpack.unpackb(parts[0])
    kept = {key: value for key, value in {**header, **changes}.items() if key not in removed}
    parsed_or_refused([msgpack.packb(kept), *parts[1:]])


@given(messages, st.data())
def test_a_message_with_damaged_bytes_is_refused_or_sound(parts, data):
    which = data.draw(st.integers(0, len(parts) - 1))
    damaged = bytearray(parts[which])
    if damaged:
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    parsed_or_refused([*parts[:which], bytes(damaged[:cut]), *parts[which + 1 :]])
    parsed_or_refused([*parts[:which], bytes(damaged), *parts[which + 1 :]])


@given(st.binary(min_size=1, max_size=100), st.data())
def test_pixels_that_changed_on_the_way_are_never_accepted(pixels, data):
    header, _ = frame_parts(1, 2, 3.0, None, pixels)
    damaged = bytearray(pixels)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    for other in (bytes(damaged), pixels[:-1], pixels + b"\0"):
        with pytest.raises(FrameError, match="frame 2: its pixels do not match their checksum"):
            parse([header, other])


def start_with(**changes):
    values = {"protocol": wire.PROTOCOL, "type": "start", "series": 1, "num_frames": 5}
    return msgpack.packb({**values, "rows": 2, "columns": 3, "dtype": "<u2", **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": "apsber-frames/2"}, "protocol 'apsber-frames/2'"),
        ({"type": "pickle"}, "unknown frame message type 'pickle'"),
        ({"type": "frame"}, "has 1 parts instead of 2"),
        ({"series": -1}, "series = -1"),
        ({"series": True}, "series = True"),
        ({"series": 1.0}, r"series = 1\.0"),
        ({"num_frames": 0}, "num_frames = 0"),
        ({"num_frames": 2**41}, "num_frames = "),
        ({"rows": "2"}, "rows = '2'"),
        ({"rows": None}, "rows = None"),
        ({"columns": 0}, "columns = 0"),
        ({"dtype": "|O"}, r"dtype '\|O'"),
        ({"dtype": ">u2"}, "dtype '>u2'"),
        ({"dtype": {}}, "dtype {}"),
        ({"rows": 1 << 19, "columns": 1 << 19}, "bytes exceed"),
    ],
)
def test_a_wrong_field_is_named(changes, words):
    with pytest.raises(FrameError, match=words):
        parse([start_with(**changes)])


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "header of 0 bytes refused"),
        ([b""], "not msgpack"),
        ([b"\x00" * 5000], "header of 5000 bytes refused"),
        ([msgpack.packb([1, 2])], "not msgpack"),
        ([msgpack.packb(5)], "not a map"),
        ([start_with() + b"x"], "not msgpack"),
        ([start_with(), b"pixels"], "has 2 parts instead of 1"),
        ([msgpack.packb({"a" * 257: 1})], "not msgpack"),
        ([msgpack.packb({str(n): n for n in range(33)})], "not msgpack"),
        ([b"\x81\xa1a" * 1000 + b"\xc0"], "more than 8 maps"),
    ],
)
def test_what_is_no_bounded_flat_map_is_refused(parts, words):
    with pytest.raises(FrameError, match=words):
        parse(parts)
