"""The fan-out's messages: what is packed is read back, everything else is refused."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming import _fan_out_wire as wire

REQUESTS = [
    wire.Hello(2**63 - 1, "next", "flats", 2**40, 65536),
    wire.Acknowledge(0, 5),
    wire.Ping(1),
    wire.Bye(1),
]
ANSWERS = [
    wire.Start(1, 0, "run", "darks", "|u1", 1, 1 << 20, 0),
    wire.FrameHeader(1, 2, 3, 2**64 - 1),
    wire.End(1, 2, 9, 3, [[0, 1], [4, 6]], "fail", "it rained"),
    wire.Pong(1, 2, known=False),
    wire.Problem(0, "malformed", "x" * 1024),
]
# Keys and values that nearly fit, so that the search gets past the first check.
VALUES = st.none() | st.booleans() | st.integers(-1, 2**64 - 1) | st.text(max_size=9) | st.floats()
NESTED = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(VALUES, inner, max_size=3)
)


@pytest.mark.parametrize("request_", REQUESTS)
def test_requests_are_read_back(request_):
    assert wire.parse_request([wire.pack(request_)]) == request_


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_are_read_back(answer):
    assert wire.parse_answer(wire.pack(answer)) == answer


@pytest.mark.parametrize(
    "missing",
    [
        *([[0]], [[0, 1, 2]], [[1, 1]], [[2, 1]], [[0, 2], [1, 3]], [[0, 1], [1, 2]], [[-1, 2]]),
        *([[0, 2**41]], [[True, 2]], [5], {"a": 1}, [[0, 1.5]]),
    ],
)
def test_ranges_of_missing_frames_are_in_order_and_apart(missing):
    end = wire.End(1, 2, 9, 1, missing, "fail", "")
    with pytest.raises(FrameError, match="missing"):
        wire.parse_answer(wire.pack(end))


def test_frames_larger_than_any_detector_has_are_refused():
    start = wire.Start(1, 0, "run", "darks", "<f8", 1 << 20, 1 << 20, 1)
    with pytest.raises(FrameError, match="exceed"):
        wire.parse_answer(wire.pack(start))


@given(st.data())
def test_whatever_arrives_is_read_or_refused(data):
    message = data.draw(st.sampled_from(REQUESTS + ANSWERS))
    header = msgpack.unpackb(wire.pack(message))
    header |= data.draw(st.dictionaries(st.sampled_from(sorted(header)) | VALUES, NESTED))
    packed = bytearray(msgpack.packb(header))
    for _ in range(data.draw(st.integers(0, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(packed[: data.draw(st.integers(0, len(packed)))])
    for content in (bytes(packed), cut, data.draw(st.binary(max_size=100))):
        with contextlib.suppress(FrameError):
            wire.parse_request([content])
        with contextlib.suppress(FrameError):
            wire.parse_answer(content)
