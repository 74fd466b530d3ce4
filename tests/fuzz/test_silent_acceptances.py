"""What other readers accept without a word is refused, in every format in which it can occur.

The table is that of docs/reference/fuzz.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import fuzz_parsers as parsers
import fuzz_readers as readers
import fuzz_updates as updates
import pytest
from fuzz_cases import Message
from fuzz_tape import Tape
from fuzz_trees import (
    Pairs,
    Tag,
    cbor_decode,
    cbor_encode,
    json_decode,
    json_encode,
    msgpack_decode,
    msgpack_encode,
)

from apsber_bluesky.core import FrameError, SeriesRequest, ServiceError
from apsber_bluesky.streaming import _fan_out_wire as fan_out
from apsber_bluesky.streaming._assembler import Series
from apsber_bluesky.streaming._eiger_stream1 import EigerStream1Reader
from apsber_bluesky.streaming._eiger_stream2 import EigerStream2Reader
from apsber_bluesky.streaming._jungfrau import JungfrauReader
from apsber_bluesky.streaming._messages import unpack_message
from apsber_bluesky.streaming._ntndarray import NtndarrayReader
from apsber_bluesky.streaming._preview import parse_preview
from apsber_bluesky.streaming._series_messages import Frame, SeriesStart
from apsber_bluesky.streaming._wire import parse

ROWS, COLUMNS = readers.ROWS, readers.COLUMNS
_NOTHING = Tape(b"")


def put(tree: Any, path: str, value: Any) -> Any:
    """The tree with another value at a path like ``data/0``; a Tag is looked through."""
    key, _, rest = path.partition("/")
    if isinstance(tree, Tag):
        return Tag(tree.number, put(tree.value, path, value))
    if isinstance(tree, Pairs):
        new = {k: put(v, rest, value) if rest else value for k, v in tree if k == key}
        assert new, key
        return Pairs((k, new.get(k, v)) for k, v in tree)
    place = int(key)
    new = put(tree[place], rest, value) if rest else value
    return [*tree[:place], new, *tree[place + 1 :]]


def without(tree: Pairs, key: str) -> Pairs:
    assert key in dict(tree)
    return Pairs((k, v) for k, v in tree if k != key)


def doubled(tree: Pairs, key: str) -> Pairs:
    """The key twice, with the same value: also that is no message of a sound source."""
    return Pairs([*tree, (key, dict(tree)[key])])


# The suite's own protocol; what only the plan can know is found by the books of the series.


def suite(message: Message, start: Message | None = None) -> None:
    books = Series(3, SeriesRequest("run", "primary", readers.IMAGES, ROWS, COLUMNS, "<u2"), 0)
    books.take(parse(start or readers.suite_seeds()[0][0]))
    assert books.take(parse(message)) is not None


def suite_frame(change: Callable[[Pairs], Pairs] = Pairs, pixels: bytes | None = None) -> Message:
    header, good = readers.suite_seeds()[0][1]
    changed = [msgpack_encode(change(msgpack_decode(header))), good if pixels is None else pixels]
    return readers.repair_suite(changed, _NOTHING)


def suite_start(**changes: Any) -> Message:
    (packed,) = readers.suite_seeds()[0][0]
    tree = msgpack_decode(packed)
    for key, value in changes.items():
        tree = put(tree, key, value)
    return [msgpack_encode(tree)]


PIXELS = readers.image().tobytes()
SUITE = {
    "good": lambda: suite(suite_frame()),
    "trailing garbage in the header": lambda: suite([suite_frame()[0] + b"\0", PIXELS]),
    "trailing garbage in the pixels": lambda: suite(suite_frame(pixels=PIXELS + b"\0")),
    "transposed": lambda: suite(suite_frame(), suite_start(rows=COLUMNS, columns=ROWS)),
    "wrong dtype of the same size": lambda: suite(suite_frame(), suite_start(dtype="<i2")),
    "wrong element size": lambda: suite(suite_frame(pixels=PIXELS * 2)),
    "missing data": lambda: suite(suite_frame()[:1]),
    "empty data": lambda: suite(suite_frame(pixels=b"")),
    "missing field": lambda: suite(suite_frame(lambda tree: without(tree, "angle_deg"))),
    "duplicate key": lambda: suite(suite_frame(lambda tree: doubled(tree, "number"))),
}


# EIGER


def eiger2(change: Callable[[Any], Any] = lambda tree: tree, rest: bytes = b"") -> None:
    start, frame = readers.eiger2_seeds()[0][:2]
    reader = EigerStream2Reader()
    reader.read(start)
    tree = cbor_decode(frame[0])
    packed = cbor_encode(Tag(tree.number, change(tree.value))) + rest
    assert len(reader.read([packed])) == len(readers.CHANNELS)


ARRAY = "data/threshold_1"


def _array(tree: Any) -> Tag:
    return dict(dict(tree)["data"])["threshold_1"]


def _typed(tree: Any) -> Tag:
    return _array(tree).value[1]


def _packed(tree: Any) -> list[Any]:
    return _typed(tree).value.value


EIGER2 = {
    "good": eiger2,
    "trailing garbage": lambda: eiger2(rest=b"\0"),
    "trailing garbage in the pixels": lambda: eiger2(
        lambda t: put(t, f"{ARRAY}/1/2", _packed(t)[2] + b"\0")
    ),
    "transposed": lambda: eiger2(lambda t: put(t, f"{ARRAY}/0", [COLUMNS, ROWS])),
    "other sides of the same product": lambda: eiger2(
        lambda t: put(t, f"{ARRAY}/0", [1, ROWS * COLUMNS])
    ),
    "column-major": lambda: eiger2(lambda t: put(t, ARRAY, Tag(1040, _array(t).value))),
    "wrong element size": lambda: eiger2(lambda t: put(t, f"{ARRAY}/1/1", 4)),
    "wrong tag": lambda: eiger2(lambda t: put(t, f"{ARRAY}/1", Tag(70, _typed(t).value))),
    "wrong tag of the same size": lambda: eiger2(
        lambda t: put(t, f"{ARRAY}/1", Tag(77, _typed(t).value))
    ),
    "wrong byte order": lambda: eiger2(lambda t: put(t, f"{ARRAY}/1", Tag(65, _typed(t).value))),
    "missing data": lambda: eiger2(lambda t: without(t, "data")),
    "missing channel": lambda: eiger2(
        lambda t: put(t, "data", without(dict(t)["data"], "difference"))
    ),
    "empty data": lambda: eiger2(lambda t: put(t, f"{ARRAY}/1/2", b"")),
    "duplicate key": lambda: eiger2(lambda t: doubled(t, "image_id")),
    "duplicate channel": lambda: eiger2(
        lambda t: put(t, "data", doubled(dict(t)["data"], "threshold_1"))
    ),
}


def eiger1(part: int = 0, change: Callable[[Any], Any] = lambda part: part) -> None:
    start, frame = readers.eiger1_seeds()[0][:2]
    reader = EigerStream1Reader()
    reader.read(start)
    changed = change(frame[part] if part == 2 else json_decode(frame[part]))
    packed = changed if isinstance(changed, bytes) else json_encode(changed)
    message = [*frame[:part], packed, *frame[part + 1 :]]
    # The count and the sum of the bytes are right, so that nothing else is found first.
    message = readers.repair_eiger1(message, _NOTHING) if part == 2 else message
    assert isinstance(reader.read(message)[0], Frame)


def eiger1_without_pixels() -> None:
    start, frame = readers.eiger1_seeds()[0][:2]
    reader = EigerStream1Reader()
    reader.read(start)
    reader.read([frame[0], frame[1], frame[3]])


EIGER1 = {
    "good": eiger1,
    "trailing garbage": lambda: eiger1(1, lambda t: json_encode(t) + b"{}"),
    "trailing garbage in the pixels": lambda: eiger1(2, lambda blob: blob + b"\0"),
    "transposed": lambda: eiger1(1, lambda t: put(t, "shape", [ROWS, COLUMNS])),
    "wrong element size": lambda: eiger1(1, lambda t: put(t, "encoding", "bs32-lz4<")),
    "wrong type": lambda: eiger1(1, lambda t: put(t, "type", "uint32")),
    "wrong byte order": lambda: eiger1(1, lambda t: put(t, "encoding", "bs16-lz4>")),
    "missing data": eiger1_without_pixels,
    "empty data": lambda: eiger1(2, lambda blob: b""),
    "missing field": lambda: eiger1(1, lambda t: without(t, "size")),
    "duplicate key": lambda: eiger1(1, lambda t: doubled(t, "shape")),
}


# Jungfrau


def jungfrau(
    change: Callable[[Pairs], Pairs] = Pairs, pixels: bytes = b"", parts: int = 2, rest: bytes = b""
) -> None:
    rows, columns = readers.MODULE[0], 2 * readers.MODULE[1]
    reader = JungfrauReader(
        SeriesStart(0, readers.IMAGES, rows, columns, "<u2"), grid=readers.GRID, sources=2
    )
    _, header, good = readers.jungfrau_seeds()[0][0]
    packed = json_encode(change(json_decode(header))) + rest
    assert reader.read([packed, pixels or good][:parts])


JUNGFRAU = {
    "good": jungfrau,
    "trailing garbage": lambda: jungfrau(rest=b"{}"),
    "trailing garbage in the pixels": lambda: jungfrau(pixels=bytes(2 * 128 + 1)),
    "transposed": lambda: jungfrau(lambda t: put(t, "shape", list(readers.MODULE))),
    "wrong element size": lambda: jungfrau(lambda t: put(t, "bitmode", 32)),
    "missing data": lambda: jungfrau(parts=1),
    "missing field": lambda: jungfrau(lambda t: without(t, "frameNumber")),
    "duplicate key": lambda: jungfrau(lambda t: doubled(t, "frameNumber")),
}


# PV Access, where structures have no bytes behind them and no key twice


def ntndarray(change: Callable[[Pairs], Pairs] = Pairs, codec: int = 5) -> None:
    reader = NtndarrayReader(3, readers.IMAGES, shape=(ROWS, COLUMNS), dtype="<u2")
    stale, update = updates.seeds()[codec][:2]
    reader.read(updates.update_of(msgpack_decode(stale[0])))
    assert reader.read(updates.update_of(change(msgpack_decode(update[0]))))


def _more(tree: Pairs) -> Pairs:
    return put(tree, "value/1", dict(tree)["value"][1] + b"\0\0")


NTNDARRAY = {
    f"good, codec {codec}": lambda codec=codec: ntndarray(codec=codec) for codec in range(6)
}
NTNDARRAY |= {
    f"trailing garbage, codec {codec}": lambda codec=codec: ntndarray(_more, codec)
    for codec in range(6)
}
NTNDARRAY |= {
    "transposed": lambda: ntndarray(lambda t: put(t, "dimension", dict(t)["dimension"][::-1])),
    "wrong type code": lambda: ntndarray(lambda t: put(t, "codec/parameters", 2)),
    "wrong element size": lambda: ntndarray(lambda t: put(t, "codec/parameters", 7)),
    "wrong type of plain pixels": lambda: ntndarray(lambda t: put(t, "value/0", "<i2"), 0),
    "missing data": lambda: ntndarray(lambda t: without(t, "value")),
    "empty data": lambda: ntndarray(lambda t: put(t, "value/1", b"")),
    "duplicate attribute": lambda: ntndarray(
        lambda t: put(t, "attribute", dict(t)["attribute"] * 2)
    ),
}


# Maps of msgpack


def answer(change: Callable[[Pairs], Pairs] = Pairs, rest: bytes = b"") -> None:
    packed = parsers.answer_seeds()[0][2][0]
    fan_out.parse_answer(msgpack_encode(change(msgpack_decode(packed))) + rest)


ANSWER = {
    "good": answer,
    "trailing garbage": lambda: answer(rest=b"\0"),
    "missing field": lambda: answer(lambda t: without(t, "missing")),
    "duplicate key": lambda: answer(lambda t: doubled(t, "num_frames")),
    "fewer missing than named": lambda: answer(lambda t: put(t, "num_missing", 4)),
    "named beyond the last": lambda: answer(lambda t: put(t, "num_frames", 9)),
}


def request(change: Callable[[Pairs], Pairs] = Pairs, rest: bytes = b"", parts: int = 1) -> None:
    packed = parsers.request_seeds()[0][0][0]
    fan_out.parse_request([msgpack_encode(change(msgpack_decode(packed))) + rest] * parts)


REQUEST = {
    "good": request,
    "trailing garbage": lambda: request(rest=b"\0"),
    "trailing part": lambda: request(parts=2),
    "missing field": lambda: request(lambda t: without(t, "next")),
    "duplicate key": lambda: request(lambda t: doubled(t, "credit")),
}


def preview(change: Callable[[Pairs], Pairs] = Pairs, rest: bytes = b"", more: bytes = b"") -> None:
    packed = parsers.preview_seeds()[0][0][0]
    (size,) = struct.unpack_from("<I", packed)
    header = msgpack_encode(change(msgpack_decode(packed[4 : 4 + size]))) + more
    parse_preview(struct.pack("<I", len(header)) + header + packed[4 + size :] + rest)


PREVIEW = {
    "good": preview,
    "trailing garbage": lambda: preview(rest=b"\0\0"),
    "trailing garbage in the header": lambda: preview(more=b"\0"),
    "wrong element size": lambda: preview(lambda t: put(t, "dtype", "<u4")),
    "missing field": lambda: preview(lambda t: without(t, "rows")),
    "duplicate key": lambda: preview(lambda t: doubled(t, "index")),
}


def control(change: Callable[[Pairs], Pairs] = Pairs, rest: bytes = b"") -> None:
    packed = parsers.control_seeds()[0][1][0]
    unpack_message(msgpack_encode(change(msgpack_decode(packed))) + rest)


CONTROL = {
    "good": control,
    "trailing garbage": lambda: control(rest=b"\0"),
    "missing field": lambda: control(lambda t: without(t, "type")),
    "duplicate key": lambda: control(lambda t: doubled(t, "proposal")),
    "duplicate key inside": lambda: control(
        lambda t: put(t, "request", doubled(dict(t)["request"], "rows"))
    ),
}

TABLES = {
    "suite": SUITE,
    "eiger1": EIGER1,
    "eiger2": EIGER2,
    "jungfrau": JUNGFRAU,
    "ntndarray": NTNDARRAY,
    "fan-out-answer": ANSWER,
    "fan-out-request": REQUEST,
    "preview": PREVIEW,
    "control": CONTROL,
}
ROWS_OF_TABLES = [(name, fault) for name, table in TABLES.items() for fault in table]


@pytest.mark.parametrize(("name", "fault"), ROWS_OF_TABLES)
def test_what_others_accept_silently_is_refused(name, fault):
    run = TABLES[name][fault]
    if fault.startswith("good"):
        run()
        return
    with pytest.raises((FrameError, ServiceError)):
        run()
