"""The CBOR reader: the same items as an independent one, and nothing else gets through."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._cbor import (
    MAXIMUM_DEPTH,
    MAXIMUM_ITEMS,
    MAXIMUM_TEXT_BYTES,
    Tagged,
    parse_cbor,
)

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=300)
)
items = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.builds(cbor2.CBORTag, st.integers(60, 2**32), inner)
    ),
    max_leaves=8,
)


def plain(item: Any) -> Any:
    """An item of either reader in the same words."""
    if isinstance(item, Tagged):
        return ("tag", item.tag, plain(item.value))
    if isinstance(item, cbor2.CBORTag):
        return ("tag", item.tag, plain(item.value))
    if isinstance(item, memoryview):
        return bytes(item)
    if isinstance(item, list | tuple):
        return [plain(part) for part in item]
    if isinstance(item, dict):
        return {key: plain(part) for key, part in item.items()}
    return item


@given(items, st.booleans())
def test_every_item_is_read_as_an_independent_encoder_meant_it(item, canonical):
    assert plain(parse_cbor(cbor2.dumps(item, canonical=canonical))) == plain(item)


@given(items)
def test_a_message_that_says_it_is_cbor_is_read_alike(item):
    assert plain(parse_cbor(bytes.fromhex("d9d9f7") + cbor2.dumps(item))) == plain(item)


@given(items, st.binary(min_size=1, max_size=9))
def test_bytes_after_the_item_are_refused(item, garbage):
    with pytest.raises(FrameError, match="trailing garbage"):
        parse_cbor(cbor2.dumps(item) + garbage)


@given(items, st.data())
def test_a_message_that_is_cut_short_is_refused(item, data):
    packed = cbor2.dumps(item)
    with pytest.raises(FrameError, match="cut short"):
        parse_cbor(packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(st.binary(max_size=200))
def test_random_bytes_are_an_item_or_refused(packed):
    try:
        item = parse_cbor(packed)
    except FrameError:
        return
    # Whatever is accepted, the independent reader accepts too.
    assert repr(plain(cbor2.loads(packed.removeprefix(b"\xd9\xd9\xf7"))))
    assert isinstance(repr(plain(item)), str)


def test_byte_strings_are_views_of_the_message_and_not_copies():
    message = bytearray(cbor2.dumps([b"before"]))
    (view,) = parse_cbor(message)
    message[-6:] = b"after!"
    assert bytes(view) == b"after!"


@pytest.mark.parametrize(
    ("packed", "item"),
    [
        ("9f0102ff", [1, 2]),
        ("bf616101ff", {"a": 1}),
        ("9fff", []),
        ("f7", None),
        ("f97e00", math.nan),
        ("f93c00", 1.0),
        ("3bffffffffffffffff", -(2**64)),
        ("1800", 0),
    ],
)
def test_rarer_encodings_are_understood(packed, item):
    assert repr(parse_cbor(bytes.fromhex(packed))) == repr(item)


@pytest.mark.parametrize(
    ("packed", "named"),
    [
        ("a2616101616102", "duplicate key 'a'"),
        ("bf616101616102ff", "duplicate key 'a'"),
        ("a10101", "key of a map is a int"),
        ("5f4101ff", "without a length"),
        ("7f6161ff", "without a length"),
        ("df01", "without a length"),
        ("1f", "without a length"),
        ("1c", "reserved length 28"),
        ("ff", "reserved value 31"),
        ("82ff01", "reserved value 31"),
        ("f8ff", "reserved value 24"),
        ("61ff", "not UTF-8"),
        ("bf6161ff", "reserved value 31"),
    ],
)
def test_what_no_detector_sends_is_refused(packed, named):
    with pytest.raises(FrameError, match=named):
        parse_cbor(bytes.fromhex(packed))


@pytest.mark.parametrize(
    ("packed", "named"),
    [
        (b"\x81" * 100_000 + b"\x00", "nested deeper"),
        (b"\xc1" * 100_000 + b"\x00", "nested deeper"),
        (b"\x9f" * 100_000, "nested deeper"),
        (b"\x9b" + b"\x00\x00\x01" + bytes(5), "cut short"),
        (b"\xbb" + b"\xff" * 8, "cut short"),
        (b"\x5b" + b"\xff" * 8, "cut short"),
        (b"\x7b" + b"\xff" * 8, "exceeds"),
        (b"\x9a\x00\x01\x00\x00" + bytes(65536), "more than"),
        (b"\x9f" + bytes(65536) + b"\xff", "more than"),
    ],
)
def test_a_hostile_message_is_refused_before_it_costs_anything(packed, named):
    with pytest.raises(FrameError, match=named):
        parse_cbor(packed)


def test_the_limits_themselves_are_still_accepted():
    nested = b"\x81" * MAXIMUM_DEPTH + b"\x00"
    assert parse_cbor(nested)
    assert len(parse_cbor(cbor2.dumps([0] * (MAXIMUM_ITEMS - 1)))) == MAXIMUM_ITEMS - 1
    assert len(parse_cbor(cbor2.dumps("x" * MAXIMUM_TEXT_BYTES))) == MAXIMUM_TEXT_BYTES
