"""Everything else that is read from a socket or a file of somebody else, under fuzz."""

from __future__ import annotations

import contextlib
import functools
import math
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz_cases import Case, Message
from fuzz_readers import COLUMNS, ROWS, image, refusal
from fuzz_tape import Tape
from fuzz_trees import (
    Form,
    Pairs,
    Tag,
    cbor_decode,
    cbor_encode,
    duplicates,
    forms,
    msgpack_decode,
    msgpack_encode,
    nodes,
)

from apsber_bluesky.core import DataFileError, FrameError, FrameRange, ServiceError, StorageError
from apsber_bluesky.simulation import _eiger_pixels as dcu
from apsber_bluesky.streaming import RingOrFileSource, _source
from apsber_bluesky.streaming import _fan_out_wire as fan_out
from apsber_bluesky.streaming._cbor import MAXIMUM_ITEMS, Tagged, parse_cbor
from apsber_bluesky.streaming._codecs import decode
from apsber_bluesky.streaming._messages import pack_message, unpack_message
from apsber_bluesky.streaming._preview import parse_preview
from apsber_bluesky.streaming._superblock import lookup3, release_dead_writer

# Fan-out


@functools.cache
def request_seeds() -> tuple[Case, ...]:
    requests = [
        fan_out.Hello(5, "run", "primary", 3, 4),
        fan_out.Acknowledge(5, 7),
        fan_out.Ping(5),
        fan_out.Bye(5),
    ]
    return ([[fan_out.pack(request)] for request in requests],)


@functools.cache
def answer_seeds() -> tuple[Case, ...]:
    answers = [
        fan_out.Start(5, 0, "run", "primary", "<u2", ROWS, COLUMNS, 40),
        fan_out.FrameHeader(5, 1, 7, 2**63),
        fan_out.End(5, 2, 40, 5, [[1, 3], [7, 10]], "success", ""),
        fan_out.Pong(5, 3, True),
        fan_out.Problem(5, "malformed", "no"),
    ]
    return ([[fan_out.pack(answer)] for answer in answers],)


def _sound_map(packed: bytes) -> Pairs:
    tree = msgpack_decode(packed)
    assert isinstance(tree, Pairs)
    assert not duplicates(tree)
    return tree


def run_request(case: Case) -> list[str]:
    seen = []
    for message in [*case, *request_seeds()[0]]:
        try:
            found = fan_out.parse_request(message)
        except FrameError as error:
            seen.append(refusal(error))
            continue
        _sound_map(message[0])
        assert fan_out.parse_request([fan_out.pack(found)]) == found
        assert 0 <= found.session < 2**63
        seen.append(type(found).__name__)
    assert seen[-4:] == ["Hello", "Acknowledge", "Ping", "Bye"]
    return seen[:-4]


def run_answer(case: Case) -> list[str]:
    seen = []
    for message in [*case, *answer_seeds()[0]]:
        try:
            found = fan_out.parse_answer(message[0] if message else b"")
        except FrameError as error:
            seen.append(refusal(error))
            continue
        _sound_map(message[0])
        assert fan_out.parse_answer(fan_out.pack(found)) == found
        if isinstance(found, fan_out.Start):
            assert 0 < found.frame_bytes <= 1 << 30
        if isinstance(found, fan_out.End):
            named = [index for begin, stop in found.missing[:50] for index in (begin, stop)]
            assert named == sorted(set(named))
            assert not named or named[-1] <= found.num_frames
            assert found.num_missing <= found.num_frames
        seen.append(type(found).__name__)
    assert seen[-5:] == ["Start", "FrameHeader", "End", "Pong", "Problem"]
    return seen[:-5]


# Preview: a length, a header, pixels. As a tree it is the header and the pixels.

_LENGTH = struct.Struct("<I")


def _decode_preview(packed: bytes) -> Any:
    if len(packed) < 4:
        return None
    end = 4 + _LENGTH.unpack_from(packed)[0]
    header = msgpack_decode(packed[4:end])
    return None if header is None else [header, packed[end:]]


def _encode_preview(tree: Any) -> bytes:
    if not isinstance(tree, list) or len(tree) != 2 or not isinstance(tree[1], bytes):
        return msgpack_encode(tree)
    header = msgpack_encode(tree[0])
    return _LENGTH.pack(len(header)) + header + tree[1]


MSGPACK = forms("primary flats hello ack end type protocol <u2 |u1")["msgpack"]
PREVIEW = Form(_decode_preview, _encode_preview, MSGPACK.odd, MSGPACK.tokens)


@functools.cache
def preview_seeds() -> tuple[Case, ...]:
    messages = []
    for dtype in ("<u2", "<f4"):
        header = {"protocol": "apsber-preview/1", "run_uid": "run", "stream": "primary"}
        header |= {"index": 7, "dtype": dtype, "rows": ROWS, "columns": COLUMNS}
        messages.append([_encode_preview([Pairs(header.items()), image(dtype).tobytes()])])
    return (messages,)


def run_preview(case: Case) -> list[str]:
    seen = []
    for message in [*case, *preview_seeds()[0]]:
        packed = message[0] if message else b""
        try:
            found = parse_preview(packed)
        except FrameError as error:
            seen.append(refusal(error))
            continue
        header, pixels = _decode_preview(packed)
        assert not duplicates(header)
        assert found.pixels.tobytes() == pixels
        assert found.pixels.ndim == 2
        assert found.pixels.size > 0
        assert found.index >= 0
        seen.append("preview")
    assert seen[-2:] == ["preview"] * 2
    return seen[:-2]


# Messages between the processes of a session


@functools.cache
def control_seeds() -> tuple[Case, ...]:
    messages = [
        {"type": "state", "run_uid": "run", "stream": "primary"},
        {"type": "arm", "proposal": "p", "request": {"run_uid": "run", "num_frames": 5, "rows": 9}},
        {"type": "answer", "books": {"primary": {"missing": [1, 2, 3], "expected": 9}}},
        {"type": "document", "name": "event", "document": {"data": {"a": [1.5, None, True, b"x"]}}},
    ]
    return ([[pack_message(message)] for message in messages],)


def run_control(case: Case) -> list[str]:
    seen = []
    for message in [*case, *control_seeds()[0]]:
        packed = message[0] if message else b""
        try:
            found = unpack_message(packed)
        except ServiceError as error:
            seen.append(refusal(error))
            continue
        _sound_map(packed)
        assert isinstance(found["type"], str)
        assert repr(found)
        assert same(unpack_message(pack_message(found)), found)
        seen.append("message")
    assert seen[-4:] == ["message"] * 4
    return seen[:-4]


def same(one: Any, other: Any) -> bool:
    """Equality of what was unpacked, where NaN is NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


# CBOR by itself, against other code


@functools.cache
def cbor_seeds() -> tuple[Case, ...]:
    tree = Pairs(
        [
            ("a", [1, -2, 2**40, 1.5, None, True, "text", b"bytes"]),
            ("b", Tag(40, [[2, 3], Tag(69, bytes(12))])),
            ("c", Pairs([("d", math.inf), ("e", [[[]]])])),
        ]
    )
    return ([[cbor_encode(tree)], [b"\xd9\xd9\xf7" + cbor_encode(tree)]],)


def run_cbor(case: Case) -> list[str]:
    seen = []
    for message in [*case, *cbor_seeds()[0]]:
        packed = message[0] if message else b""
        try:
            found = parse_cbor(packed)
        except FrameError as error:
            seen.append(refusal(error))
            continue
        tree = cbor_decode(packed)
        if isinstance(tree, Tag) and tree.number == 55799:
            tree = tree.value
        assert not duplicates(tree)
        assert sum(1 for _ in nodes(tree)) <= MAXIMUM_ITEMS
        assert same(plain(found), plain(tree))
        seen.append("item")
    assert seen[-2:] == ["item"] * 2
    return seen[:-2]


def plain(tree: Any) -> Any:
    if isinstance(tree, Pairs | dict):
        pairs = tree.items() if isinstance(tree, dict) else tree
        return {key: plain(value) for key, value in pairs}
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    if isinstance(tree, Tag | Tagged):
        number = tree.number if isinstance(tree, Tag) else tree.tag
        return {"tag": number, "value": plain(tree.value)}
    return bytes(tree) if isinstance(tree, memoryview) else tree


# Codecs: the first part is codec, dtype and whether HDF5 decodes; the second the bytes

CODECS = ("none", "bslz4", "lz4")
DTYPES = ("<u2", "|u1", "<u4", "<f8")


@functools.cache
def codec_seeds() -> tuple[Case, ...]:
    cases = []
    for hdf5 in (0, 1):
        case = []
        for codec in range(3):
            for dtype in range(2):
                packed = dcu.compress(image(DTYPES[dtype]), CODECS[codec])
                case.append([bytes([codec, dtype, hdf5]), packed])
        cases.append(case)
    return tuple(cases)


@contextlib.contextmanager
def _decoder(hdf5: bool) -> Iterator[None]:
    """The detector maker's decoder, or HDF5's, which is there without it."""
    name = "dectris.compression"
    before = sys.modules.get(name)
    if hdf5:
        # Whoever imports it is told that it is not installed.
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is not None:
            sys.modules[name] = before
        elif hdf5:
            del sys.modules[name]


def run_codec(case: Case) -> list[str]:
    seen = []
    for message in [*case, codec_seeds()[0][2], codec_seeds()[1][5]]:
        if len(message) != 2:
            continue
        choice = message[0].ljust(3, b"\0")
        codec, dtype = CODECS[choice[0] % 3], DTYPES[choice[1] % 4]
        try:
            with _decoder(bool(choice[2] % 2)):
                found = decode(message[1], codec, rows=ROWS, columns=COLUMNS, dtype=dtype)
        except FrameError as error:
            seen.append(refusal(error))
            continue
        assert (*found.shape, found.dtype.str) == (ROWS, COLUMNS, dtype)
        assert codec != "none" or found.tobytes() == message[1]
        seen.append("pixels")
    assert seen[-2:] == ["pixels"] * 2
    return seen[:-2]


# The superblock of a spool: whatever stands there, frames are right or there are none


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    # Kept, for it is removed with the object.
    return tempfile.TemporaryDirectory(prefix="apsber-fuzz-")


def _folder() -> Path:
    return Path(_temporary().name)


@functools.cache
def spool_bytes() -> bytes:
    path = _folder() / "seed.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("frames", data=np.stack([image()] * 2), chunks=(1, ROWS, COLUMNS))
    return path.read_bytes()


SUPERBLOCK_BYTES = 48
BINARY = Form(lambda packed: None, bytes, (), (b"\x89HDF\r\n\x1a\n\x03", b"\x08\x08\x04", b"\x04"))


@functools.cache
def superblock_seeds() -> tuple[Case, ...]:
    plain_block = spool_bytes()[:SUPERBLOCK_BYTES]
    marked = plain_block[:11] + b"\x05" + plain_block[12:]
    return ([[plain_block], repair_superblock([marked], Tape(b""))],)


def repair_superblock(message: Message, tape: Tape) -> Message:
    """A superblock whose checksum is right."""
    if not message or len(message[0]) != SUPERBLOCK_BYTES:
        return message
    return [message[0][:-4] + struct.pack("<I", lookup3(message[0][:-4])), *message[1:]]


def run_superblock(case: Case) -> list[str]:
    seen = []
    # Nobody writes this file, so there is nobody to wait for.
    _source._ATTEMPTS = 1
    path = _folder() / "fuzzed.h5"
    frames = FrameRange("run", "primary", 0, 2, f"file://{path}", "frames")
    for message in [*case, [spool_bytes()[:SUPERBLOCK_BYTES]]]:
        block = message[0] if message else b""
        # A short one is a file that was cut short there.
        rest = spool_bytes()[SUPERBLOCK_BYTES:] if len(block) >= SUPERBLOCK_BYTES else b""
        path.write_bytes(block + rest)
        source = RingOrFileSource(None)
        try:
            found = source.read(frames)
            assert np.array_equal(found, [image()] * 2), "other pixels"
            seen.append("frames")
        except DataFileError as error:
            seen.append(refusal(error))
        finally:
            source.close()
        try:
            seen.append(f"mark {release_dead_writer(path)}")
        except StorageError as error:
            seen.append(refusal(error))
    assert seen[-2:] == ["frames", "mark False"]
    return seen[:-2]
