"""Detectors' streams under fuzz: what each reader gets, and what it may make of it."""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import xxhash
import zmq
from fuzz_cases import Case, Message
from fuzz_tape import Tape
from fuzz_trees import (
    Pairs,
    Tag,
    cbor_decode,
    duplicates,
    forms,
    get,
    json_decode,
    msgpack_decode,
    msgpack_encode,
)

from apsber_bluesky.core import FrameError
from apsber_bluesky.simulation import EigerSeries, SlsReceiver
from apsber_bluesky.simulation import _eiger_series as dcu
from apsber_bluesky.streaming import _wire as wire
from apsber_bluesky.streaming._codecs import decode
from apsber_bluesky.streaming._eiger_stream1 import EigerStream1Reader
from apsber_bluesky.streaming._eiger_stream2 import EigerStream2Reader
from apsber_bluesky.streaming._jungfrau import JungfrauReader
from apsber_bluesky.streaming._series_messages import DTYPES, Frame, SeriesEnd, SeriesStart

ROWS, COLUMNS, IMAGES = 9, 14, 5
CHANNELS = ("threshold_1", "difference")
TAG_OF_DTYPE = {"|u1": (64, 68), "<u2": (69,), "<u4": (70,), "<u8": (71,), "|i1": (72,)}
TAG_OF_DTYPE |= {"<i2": (77,), "<i4": (78,), "<i8": (79,), "<f4": (85,), "<f8": (86,)}
LARGEST_DECODED = 1 << 20


def image(dtype: str = "<u2") -> np.ndarray:
    return np.random.default_rng(3).integers(0, 40, (ROWS, COLUMNS)).astype(dtype)


def refusal(error: Exception, most: int = 1000) -> str:
    """A refusal says what is wrong, at bearable length, in text that a log can hold."""
    said = str(error)
    assert 0 < len(said) <= most, f"message of {len(said)} characters: {said[:300]!r}"
    assert said.isprintable(), repr(said[:300])
    said.encode()
    return "refused"


def sound_start(start: SeriesStart) -> None:
    assert 0 <= start.series < 2**63
    assert 1 <= start.num_frames <= 2**40
    assert start.dtype in DTYPES
    assert min(start.rows, start.columns) >= 1
    assert 0 < start.frame_bytes <= 1 << 30
    assert 1 <= len(set(start.channels)) == len(start.channels) <= 16


def sound_frame(frame: Frame, start: SeriesStart) -> str:
    """A frame fits its series, and its bytes decode to just its size or are refused."""
    assert frame.series == start.series
    assert 0 <= frame.number < start.num_frames
    assert 0 <= frame.channel < len(start.channels)
    assert math.isfinite(frame.timestamp_s)
    assert not math.isinf(frame.angle_deg)
    assert frame.checksum == xxhash.xxh3_64_intdigest(frame.pixels)
    if frame.codec == "none":
        assert len(frame.pixels) == start.frame_bytes
    assert len(frame.pixels) <= 2 * start.frame_bytes + 64
    if start.frame_bytes > LARGEST_DECODED:
        return "large frame"
    try:
        pixels = decode(
            frame.pixels, frame.codec, rows=start.rows, columns=start.columns, dtype=start.dtype
        )
    except FrameError as error:
        refusal(error)
        return "frame refused by its decoder"
    assert (*pixels.shape, pixels.dtype.str) == (start.rows, start.columns, start.dtype)
    return "frame"


def run_stream(
    case: Case,
    reader: Any,
    check: Callable[[Any, Message, SeriesStart | None], None],
    recovery: Case,
) -> list[str]:
    """Feed the case; then a good series, which has to come through whatever was before it."""
    seen: list[str] = []
    early: list[bool] = []
    start: SeriesStart | None = None
    for place, message in enumerate([*case, *recovery]):
        try:
            found = reader.read(message)
        except FrameError as error:
            seen.append(refusal(error))
            early.append(place < len(case))
            continue
        assert found, "neither a message nor a refusal"
        for each in found:
            if isinstance(each, SeriesStart):
                sound_start(each)
                start = each
                kind = "start"
            elif isinstance(each, SeriesEnd):
                assert start is not None
                assert (each.series, each.num_sent) == (start.series, -1)
                kind = "end"
            else:
                assert start is not None
                kind = sound_frame(each, start)
            if place < len(case):
                check(each, message, start)
                seen.append(kind)
            else:
                assert kind in ("start", "frame", "end")
    assert all(early), "a good message was refused"
    return seen


def series(codec: str, **changes: Any) -> EigerSeries:
    options = {"channels": CHANNELS, "header_detail": "basic", "image_appendix": {"a": [1.5, None]}}
    return EigerSeries(
        **{"series_id": 3, "num_images": IMAGES, "rows": ROWS, "columns": COLUMNS, "codec": codec}
        | options
        | {"began": datetime(2026, 5, 1, 12, 30, tzinfo=UTC)}
        | changes
    )


@functools.cache
def eiger2_seeds() -> tuple[Case, ...]:
    cases = []
    for codec, dtype in (("bslz4", "<u2"), ("lz4", "<u4"), ("none", "|u1"), ("bslz4", "<u4")):
        one = series(codec, dtype=dtype)
        form = dcu.ImageForm(dtype)
        images = [image(dtype), image(dtype) // 2]
        cases.append(
            [
                dcu.start_message2(one),
                *(dcu.image_message2(one, number, images, form) for number in (0, 3)),
                dcu.end_message2(one),
            ]
        )
    detailed = series("bslz4", header_detail="all", header_appendix={"run": "a"})
    cases.append([dcu.start_message2(detailed), dcu.end_message2(detailed)])
    return tuple(cases)


@functools.cache
def eiger2_recovery() -> Case:
    one = series("bslz4", series_id=7, began=datetime(2030, 1, 1, tzinfo=UTC))
    images = [image(), image()]
    form = dcu.ImageForm("<u2")
    return [
        dcu.start_message2(one),
        dcu.image_message2(one, 0, images, form),
        dcu.end_message2(one),
    ]


def check_eiger2(found: Any, message: Message, start: SeriesStart | None) -> None:
    """Read the message once more, by other code, for what the notes say is accepted silently."""
    (part,) = message
    tree = cbor_decode(part)
    if isinstance(tree, Tag) and tree.number == 55799:
        tree = tree.value
    assert isinstance(tree, Pairs), "trailing garbage, or cut short"
    assert not duplicates(tree)
    if not isinstance(found, Frame):
        assert get(tree, "type") == ("start" if isinstance(found, SeriesStart) else "end")
        return
    data = dict(get(tree, "data"))
    assert set(data) == set(start.channels)
    array = data[start.channels[found.channel]]
    assert array.number == 40
    dimensions, typed = array.value
    assert dimensions == [start.rows, start.columns]
    assert typed.number in TAG_OF_DTYPE[start.dtype]
    if found.codec == "none":
        assert typed.value == found.pixels
        return
    assert typed.value.number == 56500
    itemsize = np.dtype(start.dtype).itemsize
    wanted = [found.codec, itemsize if found.codec == "bslz4" else 0, bytes(found.pixels)]
    assert typed.value.value == wanted


def run_eiger2(case: Case) -> list[str]:
    return run_stream(case, EigerStream2Reader(), check_eiger2, eiger2_recovery())


@functools.cache
def eiger1_seeds() -> tuple[Case, ...]:
    cases = []
    for codec, dtype, detail in (
        ("bslz4", "<u2", "basic"),
        ("lz4", "<u2", "basic"),
        ("none", "|u1", "all"),
        ("bslz4", "<u4", "all"),
    ):
        one = series(
            codec, dtype=dtype, channels=("",), header_detail=detail, header_appendix={"run": "a"}
        )
        form = dcu.ImageForm(dtype)
        pictures = [dcu.image_message1(one, n, [image(dtype)], form) for n in (0, 3)]
        cases.append([dcu.start_message1(one), *pictures, dcu.end_message1(one)])
    return tuple(cases)


@functools.cache
def eiger1_recovery() -> Case:
    one = series("bslz4", series_id=7, channels=("",))
    return [
        dcu.start_message1(one),
        dcu.image_message1(one, 0, [image()], dcu.ImageForm("<u2")),
        dcu.end_message1(one),
    ]


def check_eiger1(found: Any, message: Message, start: SeriesStart | None) -> None:
    header = json_decode(message[0])
    assert isinstance(header, Pairs)
    assert not duplicates(header)
    kinds = {SeriesStart: "dheader-1.0", SeriesEnd: "dseries_end-1.0", Frame: "dimage-1.0"}
    assert get(header, "htype") == kinds[type(found)]
    if not isinstance(found, Frame):
        return
    layout = json_decode(message[1])
    assert not duplicates(layout)
    assert get(layout, "shape")[:2] == [start.columns, start.rows]
    assert get(layout, "shape")[2:] in ([], [1])
    assert np.dtype(get(layout, "type")).newbyteorder("<").str == start.dtype
    assert get(layout, "size") == len(message[2])
    encoding = get(layout, "encoding")
    bits = re.match(r"bs(\d+)", encoding)
    assert encoding.endswith("<")
    assert bits is None or int(bits[1]) == 8 * np.dtype(start.dtype).itemsize
    digest = get(header, "hash")
    assert not digest or digest.lower() == hashlib.md5(message[2]).hexdigest()


def repair_eiger1(message: Message, tape: Tape) -> Message:
    """A DCU that sends a damaged image would still count its bytes, and sum them up."""
    if len(message) not in (4, 5):
        return message
    size = b'"size":%d' % len(message[2])
    digest = f'"hash":"{hashlib.md5(message[2]).hexdigest()}"'.encode()
    return [
        re.sub(rb'"hash":"[0-9a-f]{32}"', digest, message[0]),
        re.sub(rb'"size":\d+', size, message[1]),
        *message[2:],
    ]


def run_eiger1(case: Case) -> list[str]:
    return run_stream(case, EigerStream1Reader(), check_eiger1, eiger1_recovery())


@functools.cache
def suite_seeds() -> tuple[Case, ...]:
    cases = []
    for dtype, angle in (("<u2", 12.5), ("<f4", None)):
        start = SeriesStart(3, IMAGES, ROWS, COLUMNS, dtype)
        pixels = image(dtype).tobytes()
        frames = [
            [wire.pack_frame_header(3, number, 1.7e9, angle, memoryview(pixels)), pixels]
            for number in (0, 3)
        ]
        cases.append([wire.pack_start(start), *frames, wire.pack_end(SeriesEnd(3, IMAGES))])
    return tuple(cases)


def repair_suite(message: Message, tape: Tape) -> Message:
    """A header whose checksum is that of the pixels."""
    tree = msgpack_decode(message[0]) if len(message) == 2 else None
    if not isinstance(tree, Pairs):
        return message
    checksum = xxhash.xxh3_64_intdigest(message[1])
    pairs = [(key, checksum if key == "checksum" else value) for key, value in tree]
    return [msgpack_encode(Pairs(pairs)), message[1]]


def run_suite(case: Case) -> list[str]:
    seen = []
    for message in [*case, *suite_seeds()[0]]:
        try:
            found = wire.parse(message)
        except FrameError as error:
            seen.append(refusal(error))
            continue
        tree = msgpack_decode(message[0])
        assert isinstance(tree, Pairs)
        assert not duplicates(tree)
        assert len(message) == (2 if isinstance(found, Frame) else 1)
        assert 0 <= found.series < 2**63
        if isinstance(found, SeriesStart):
            sound_start(found)
            seen.append("start")
        elif isinstance(found, SeriesEnd):
            assert 0 <= found.num_sent <= 2**40
            seen.append("end")
        else:
            assert bytes(found.pixels) == message[1]
            assert found.checksum == xxhash.xxh3_64_intdigest(message[1])
            assert 0 <= found.number <= 2**40
            assert math.isfinite(found.timestamp_s)
            assert "angle_deg" in dict(tree)
            assert math.isnan(found.angle_deg) or get(tree, "angle_deg") is not None
            seen.append("frame")
    assert seen[-4:] == ["start", "frame", "frame", "end"]
    return seen[:-4]


GRID, MODULE = (1, 2), (8, 16)


@functools.cache
def jungfrau_seeds() -> tuple[Case, ...]:
    """What an emulated slsReceiver puts on the wire, modules taken in turn; number of the socket
    in front of each message."""
    frames = np.random.default_rng(5).integers(0, 2**14, (3, MODULE[0], 2 * MODULE[1])) + 2**14
    detector = SlsReceiver(grid=GRID, module_shape=MODULE)
    context = zmq.Context()
    try:
        sockets = []
        for address in detector.addresses.values():
            socket = context.socket(zmq.SUB)
            socket.subscribe(b"")
            socket.connect(address)
            sockets.append(socket)
        detector.wait_for_subscribers()
        detector.send(frames.astype("<u2"))
        case = []
        for _ in range(len(frames) + 1):
            for number, socket in enumerate(sockets):
                assert socket.poll(10_000)
                case.append([bytes([number]), *socket.recv_multipart()])
    finally:
        context.destroy(0)
        detector.close()
    together = [[b"\2", *message[1:]] for message in case]
    return (case, case[::-1], case[:4], together)


def run_jungfrau(case: Case) -> list[str]:
    rows, columns = MODULE[0] * GRID[0], MODULE[1] * GRID[1]
    wanted = SeriesStart(3, IMAGES, rows, columns, "<u2")
    # Modules on one socket each, or all on one.
    together = bool(case and case[0] and case[0][0][:1] >= b"\2")
    reader = JungfrauReader(wanted, grid=GRID, sources=1 if together else 2)
    seen: list[str] = []
    numbers: list[int] = []

    def take(messages: list[Any]) -> None:
        for each in messages:
            if isinstance(each, Frame):
                seen.append(sound_frame(each, wanted))
                numbers.append(each.number)
                assert len(each.pixels) == wanted.frame_bytes
            else:
                assert each == (wanted if isinstance(each, SeriesStart) else SeriesEnd(3, -1))
                seen.append("start" if isinstance(each, SeriesStart) else "end")

    for message in case:
        source = message[0][:1] if message else b""
        try:
            found = reader.read(message[1:], source[0] % 2 if source else 0)
        except FrameError as error:
            # It may show a value as long as a header may be, each byte as an escape of four.
            seen.append(refusal(error, most=40_000))
            continue
        header = json_decode(message[1])
        assert isinstance(header, Pairs)
        assert not duplicates(header)
        seen.append("taken")
        take(found)
    take(reader.finish())
    assert len(set(numbers)) == len(numbers), "a frame came twice"
    assert seen.count("end") <= 1
    assert seen.count("start") <= 1
    assert set(reader.missing).isdisjoint(numbers)
    return seen


JSON1 = forms(
    "dheader-1.0 dimage-1.0 dimage_d-1.0 dconfig-1.0 dseries_end-1.0 basic all none < bs16-lz4<"
    " bs32-lz4< lz4< uint8 uint16 uint32 float32"
)["json"]
CBOR = forms(
    "start image end type image_id data channels bslz4 lz4 uint8 uint16 uint32"
    " threshold_1 difference 2026-05-01T12:30:00Z"
)["cbor"]
MSGPACK = forms("start frame end <u2 |u1 <f4 apsber-frames/1 angle_deg")["msgpack"]
JSONJ = forms("jsonversion data frameNumber rx_roi addJsonHeader flipRows")["json"]
