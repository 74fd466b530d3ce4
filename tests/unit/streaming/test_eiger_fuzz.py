"""EIGER streams under fuzz: a damaged message is refused, or its frames are what they say.

``APSBER_FUZZ_MESSAGES=100000 python -m pytest tests/unit/streaming/test_eiger_fuzz.py -s
--timeout 0`` makes many more messages than a test run, and prints what came of them.
"""

from __future__ import annotations

import collections
import hashlib
import json
import math
import os
import random
import re
import resource
import time
from collections.abc import Callable
from typing import Any

import cbor2
import numpy as np
import pytest
import xxhash
from cbor2 import CBORTag

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._codecs import decode, encode
from apsber_bluesky.streaming._eiger_stream1 import EigerStream1Reader
from apsber_bluesky.streaming._eiger_stream2 import EigerStream2Reader
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart

MESSAGES = int(os.environ.get("APSBER_FUZZ_MESSAGES", "10000"))
ROWS, COLUMNS, IMAGES, CHANNELS = 9, 14, 5, ("threshold_1", "difference")
SIZE = {"rows": ROWS, "columns": COLUMNS, "dtype": "<u2"}
PIXELS = np.random.default_rng(3).integers(0, 40, (ROWS, COLUMNS)).astype("<u2")
IDS = {"series_id": 3, "series_unique_id": "01GRX"}
Parts = list[bytes]
ODD: tuple[Any, ...] = (None, True, -1, 0, 2**63, 2**64 - 1, 1e308, math.inf, "", "x", b"", b"\0")
ODD += ([], {}, [1, 2], [[[[]]]], CBORTag(40, []), CBORTag(56500, ["bslz4", 2, b""]))
ODD += (CBORTag(69, b"\0\0"), CBORTag(1040, [[9, 14], CBORTag(69, b"")]), 10**40, "9" * 300)


def seeds2() -> list[Any]:
    def image(codec: str) -> dict[str, Any]:
        content: Any = encode(PIXELS, codec)
        if codec != "none":
            content = CBORTag(56500, [codec, 2 if codec == "bslz4" else 0, content])
        channel = CBORTag(40, [[ROWS, COLUMNS], CBORTag(69, content)])
        return {
            "type": "image",
            **IDS,
            "image_id": 1,
            "series_date": CBORTag(0, "2023-02-10T15:49:05.281+01:00"),
            "start_time": [1, 50_000_000],
            "user_data": {"a": [1.5, None]},
            "data": dict.fromkeys(CHANNELS, channel),
        }

    size = {"image_size_x": COLUMNS, "image_size_y": ROWS, "image_dtype": "uint16"}
    start = {"type": "start", **IDS, **size, "channels": list(CHANNELS)}
    start["number_of_images"] = IMAGES
    return [start, *map(image, ("bslz4", "lz4", "none")), {"type": "end", **IDS}]


def seeds1() -> list[list[Any]]:
    """Parts, objects where they are JSON."""

    def image(encoding: str, blob: bytes) -> list[Any]:
        digest = hashlib.md5(blob).hexdigest() if encoding == "<" else ""
        layout = {"htype": "dimage_d-1.0", "shape": [COLUMNS, ROWS], "type": "uint16"}
        return [
            {"htype": "dimage-1.0", "series": 3, "frame": 1, "hash": digest},
            {**layout, "encoding": encoding, "size": len(blob)},
            blob,
            {"htype": "dconfig-1.0", "start_time": 5, "stop_time": 6, "real_time": 1},
        ]

    raw = PIXELS.tobytes()
    sizes = {"x_pixels_in_detector": COLUMNS, "y_pixels_in_detector": ROWS, "bit_depth_image": 16}
    return [
        [
            {"htype": "dheader-1.0", "series": 3, "header_detail": "basic"},
            {**sizes, "nimages": IMAGES, "ntrigger": 1, "data_collection_date": "2023-02-10"},
        ],
        image("bs16-lz4<", encode(PIXELS, "bslz4")),
        image("lz4<", b"\xf0" + bytes([len(raw) - 15]) + raw),
        image("<", raw),
        [{"htype": "dseries_end-1.0", "series": 3}],
    ]


def changed(item: Any, rng: random.Random) -> Any:
    """The same structure with something in it replaced, removed, doubled or exchanged."""
    choice = rng.random()
    if choice < 0.15:
        return rng.choice(ODD)
    if isinstance(item, dict) and item:
        key = rng.choice(list(item))
        if choice < 0.3:
            return {k: v for k, v in item.items() if k != key}
        if choice < 0.4:
            return {**item, str(rng.choice(ODD)): item[key]}
        return {**item, key: changed(item[key], rng)}
    if isinstance(item, list) and item:
        place = rng.randrange(len(item))
        if choice < 0.3:
            return item[::-1]
        return [*item[:place], changed(item[place], rng), *item[place + (choice > 0.35) :]]
    if isinstance(item, CBORTag):
        if choice < 0.5:
            return CBORTag(rng.choice([0, 40, 64, 65, 68, 69, 70, 77, 84, 1040, 56500]), item.value)
        return CBORTag(item.tag, changed(item.value, rng))
    if isinstance(item, int):
        return item + rng.choice([-1, 1, 2**32, -(2**70)])
    if isinstance(item, bytes | str):
        return damaged(item, rng) if isinstance(item, bytes) else item[: rng.randrange(9)]
    return rng.choice(ODD)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The same bytes with some flipped, inserted, removed, repeated or added."""
    result = bytearray(content or b"\0")
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        place, kind = rng.randrange(len(result) or 1), rng.randrange(7)
        if kind == 0 or not result:
            result += rng.randbytes(rng.randrange(1, 9))
        elif kind == 1:
            result[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            result[place] = rng.choice([0, 0x5F, 0x7F, 0x9B, 0xBF, 0xD9, 0xFF, rng.randrange(256)])
        elif kind == 3:
            del result[place : place + rng.choice([1, 4, len(result)])]
        elif kind == 4:
            result[place:place] = rng.randbytes(rng.randrange(1, 5))
        elif kind == 5:
            result[place:place] = result[place : place + rng.randrange(1, 40)] * rng.choice([1, 50])
        else:
            result[place : place + 8] = rng.choice([0, 2**32 - 1, 2**63, 2**64 - 1]).to_bytes(8)
    return bytes(result)


def mutant2(rng: random.Random) -> Parts:
    message = rng.choice(SEEDS[2])
    for _ in range(rng.choice([0, 1, 1, 2])):
        message = changed(message, rng)
    packed = cbor2.dumps(message)
    return [damaged(packed, rng) if rng.random() < 0.5 else packed]


def mutant1(rng: random.Random) -> Parts:
    seed = list(rng.choice(SEEDS[1]))
    if rng.random() < 0.6:
        place = rng.randrange(len(seed))
        seed[place] = changed(seed[place], rng)
    packed = [p if isinstance(p, bytes) else json.dumps(p, default=repr).encode() for p in seed]
    if rng.random() < 0.5:
        place = rng.randrange(len(packed))
        packed[place] = damaged(packed[place], rng)
    if len(packed) == 4 and rng.random() < 0.5:
        # A DCU that sends a damaged image would still count its bytes right.
        packed[1] = re.sub(rb'"size": \d+', b'"size": %d' % len(packed[2]), packed[1])
    return packed if rng.random() < 0.9 else packed[rng.randrange(2) :] * rng.randrange(3)


SEEDS: dict[int, list[Any]] = {1: seeds1(), 2: seeds2()}
FORMATS: dict[int, tuple[Callable[[], Any], Callable[[random.Random], Parts]]] = {
    1: (EigerStream1Reader, mutant1),
    2: (EigerStream2Reader, mutant2),
}


def start_parts(version: int) -> Parts:
    seed = SEEDS[version][0]
    return [cbor2.dumps(seed)] if version == 2 else [json.dumps(p).encode() for p in seed]


def outcome(message: SeriesStart | Frame | SeriesEnd, parts: Parts) -> str:
    """What an accepted message is; every promise of the reader is checked."""
    assert 0 <= message.series < 2**63
    if isinstance(message, SeriesStart):
        assert message.num_frames >= 1
        assert 0 < message.frame_bytes <= 1 << 30
        assert 1 <= len(set(message.channels)) == len(message.channels) <= 16
        return "start"
    if isinstance(message, SeriesEnd):
        assert message.num_sent == -1
        return "end"
    assert message.series == 3
    assert 0 <= message.number < IMAGES
    assert message.channel in range(len(CHANNELS))
    assert math.isfinite(message.timestamp_s)
    assert message.checksum == xxhash.xxh3_64_intdigest(message.pixels)
    # Nothing is made up: the bytes are those that came (a raw LZ4 block has 16 more in front).
    came = bytes(message.pixels)
    assert any(came in part or came[16:] in part for part in parts) or message.codec == "lz4"
    try:
        pixels = decode(message.pixels, message.codec, **SIZE)
    except FrameError:
        return "frame refused by its decoder"
    assert (pixels.shape, pixels.dtype) == (PIXELS.shape, PIXELS.dtype)
    same = pixels.tobytes() == PIXELS.tobytes()
    return "frame with its pixels" if same else "frame with other pixels"


@pytest.mark.parametrize("version", sorted(FORMATS))
def test_fuzzed_messages_are_refused_or_are_what_they_say(version):
    make_reader, mutant = FORMATS[version]
    rng, seen = random.Random(version), collections.Counter()
    began, slowest = time.perf_counter(), 0.0
    for _ in range(MESSAGES):
        parts = mutant(rng)
        reader = make_reader()
        reader.read(start_parts(version))
        before = time.perf_counter()
        try:
            messages = reader.read(parts)
        except FrameError as error:
            seen["refused" if 0 < len(str(error)) < 1000 else "refused at length"] += 1
            continue
        finally:
            slowest = max(slowest, time.perf_counter() - before)
        seen.update(outcome(message, parts) for message in messages)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\nstream V{version}: {MESSAGES} messages in {time.perf_counter() - began:.1f} s,"
        f" slowest {1000 * slowest:.1f} ms, peak {peak:.0f} MiB: {dict(seen.most_common())}"
    )
    # The mutants reach past the first check, and good ones are not refused.
    assert seen["refused"] > MESSAGES / 4
    assert min(seen[kind] for kind in ("start", "end", "frame with its pixels")) > 0
    assert seen["frame refused by its decoder"] > 0
    assert not seen["refused at length"]


@pytest.mark.parametrize("codec", ["bslz4", "lz4", "none"])
@pytest.mark.parametrize("version", sorted(FORMATS))
def test_no_single_flipped_bit_outside_the_pixels_changes_a_frame_unnoticed(version, codec):
    """Every bit of a message around its pixels is flipped once."""
    place = 1 + ["bslz4", "lz4", "none"].index(codec)
    seed = SEEDS[version][place]
    packed = [cbor2.dumps(seed)] if version == 2 else [json.dumps(p).encode() for p in seed[:2]]
    rest = [] if version == 2 else [seed[2], json.dumps(seed[3]).encode()]
    reader = FORMATS[version][0]()
    reader.read(start_parts(version))
    good = reader.read([*packed, *rest])
    pixels = {bytes(frame.pixels) for frame in good}
    keep = encode(PIXELS, codec) if version == 2 else b"-"
    for which, part in enumerate(packed):
        first = part.find(keep) if version == 2 else len(part)
        for bit in range(8 * first):
            flipped = bytearray(part)
            flipped[bit // 8] ^= 1 << bit % 8
            try:
                frames = reader.read([*packed[:which], flipped, *packed[which + 1 :], *rest])
            except FrameError:
                continue
            # What is left are other numbers and times that make sense, and keys nobody reads.
            assert {bytes(frame.pixels) for frame in frames} == pixels
            assert [f.codec for f in frames] == [f.codec for f in good]
            assert [f.channel for f in frames] == [f.channel for f in good]
