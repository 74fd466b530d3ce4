"""Whatever once broke a parser does so no more; the cases lie in tests/data/fuzz."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import msgpack
import pytest
from fuzz_cases import pack_case, unpack_case
from fuzz_measure import Meter
from fuzz_targets import TARGETS
from fuzz_trees import msgpack_decode
from fuzz_updates import seeds, update_of
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError, ServiceError
from apsber_bluesky.streaming import _fan_out_wire as fan_out
from apsber_bluesky.streaming._codecs import check_encoded
from apsber_bluesky.streaming._eiger_header1 import parse_json
from apsber_bluesky.streaming._messages import MAXIMUM_MESSAGE_BYTES, unpack_message
from apsber_bluesky.streaming._ntndarray import NtndarrayReader
from apsber_bluesky.streaming._wire import parse

CORPUS = Path(__file__).parents[1] / "data" / "fuzz"
CASES = sorted(path.relative_to(CORPUS) for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", CASES, ids=str)
def test_a_case_that_once_failed_is_refused_or_sound(path):
    Meter(TARGETS[path.parent.name]).run(unpack_case((CORPUS / path).read_bytes()), memory=False)


def test_there_are_cases_and_each_is_of_a_target():
    assert len(CASES) >= 5
    assert {path.parent.name for path in CASES} <= set(TARGETS)


@given(st.lists(st.lists(st.binary(max_size=40), max_size=10), max_size=8))
def test_a_case_comes_back_from_its_bytes(case):
    assert unpack_case(pack_case(case)) == case


def peak_of(parser, *arguments) -> int:
    """Most memory that a parser takes for a message that it refuses."""
    tracemalloc.start()
    try:
        with pytest.raises((FrameError, ServiceError)):
            parser(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def announced(count: int, item: bytes, times: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + item * times


def test_sixteen_MiB_of_empty_maps_do_not_become_a_gigabyte():
    count = MAXIMUM_MESSAGE_BYTES - 100
    packed = b"\x82\xa4type\xa1x\xa1d" + announced(count, b"\x80", count)
    assert peak_of(unpack_message, packed) < 256 << 20


@pytest.mark.parametrize("item", [b"\x90", b"\x80", announced(99_999, b"", 1)])
def test_an_answer_of_many_lists_is_refused_in_little_memory(item):
    packed = b"\x81\xa7missing" + announced(40, announced(90_000, item, 90_000 // len(item)), 40)
    assert peak_of(fan_out.parse_answer, packed) < 64 << 20


def test_lists_that_are_announced_but_not_there_reserve_nothing():
    packed = b"\x81\xa7missing" + announced(100_000, b"", 1) * 900
    assert peak_of(fan_out.parse_answer, packed) < 1 << 20


@pytest.mark.parametrize("key", ["protocol", "type", "series", "dtype", "number"])
def test_a_deep_map_in_a_field_is_refused_and_not_recursed_into(key):
    header = {"protocol": "apsber-frames/1", "type": "start", "series": 1}
    packed = b"".join(msgpack.packb(k) + msgpack.packb(v) for k, v in header.items() if k != key)
    count = sum(k != key for k in header) + 1
    deep = bytes([0x80 | count]) + packed + msgpack.packb(key) + b"\x81\xa1a" * 1000 + b"\xc0"
    with pytest.raises(FrameError):
        parse([deep])
    with pytest.raises(ServiceError):
        unpack_message(b"\x82\xa4type\xa1x\xa1d" + b"\x81\xa1a" * 1000 + b"\xc0")


def test_a_duplicate_key_among_many_is_found_in_linear_time():
    """It took 24 s for half a megabyte; the time limit of the test run would stop that at ten."""
    count = 90_000
    packed = b"{" + b",".join(b'"%d":0' % n for n in range(count)) + b',"%d":1}' % (count - 1)
    with pytest.raises(FrameError, match=f"duplicate key '{count - 1}'"):
        parse_json(packed, "first part")


@pytest.mark.parametrize("codec", ["bslz4", "lz4"])
def test_a_frame_that_is_much_larger_encoded_than_decoded_is_refused(codec):
    """Blocks of one pixel each would cost minutes to walk through, and disk space."""
    blocks = (struct.pack(">I", 4000) + bytes(4000)) * 4
    with pytest.raises(FrameError, match="for a frame of"):
        check_encoded(
            memoryview(struct.pack(">QI", 64, 16) + blocks), codec, frame_bytes=64, itemsize=2
        )


@pytest.mark.parametrize("angle", [float("inf"), float("-inf"), float("nan"), None, "1", True])
def test_an_angle_that_is_no_number_is_unknown(angle):
    reader = NtndarrayReader(3, 5)
    stale, update = (update_of(msgpack_decode(parts[0])) for parts in seeds()[0][:2])
    update["attribute"][0]["value"] = angle
    reader.read(stale)
    _, frame = reader.read(update)
    assert frame.angle_deg != frame.angle_deg


@pytest.mark.parametrize("codec", range(1, 6))
def test_an_update_that_says_it_is_huge_is_refused_before_it_is_decoded(codec):
    """Once the size of frames is known, what an update says of its own reserves no memory."""
    reader = NtndarrayReader(3, 5, shape=(9, 14), dtype="<u2")
    stale, update = (update_of(msgpack_decode(parts[0])) for parts in seeds()[codec][:2])
    update["dimension"] = [{"size": 1 << 14}, {"size": 1 << 15}]
    reader.read(stale)
    assert peak_of(reader.read, update) < 1 << 20
    assert reader.counts["wrong_geometry"] == 1
