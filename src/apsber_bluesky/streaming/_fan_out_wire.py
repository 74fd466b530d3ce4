"""The fan-out protocol on the wire, version 1 (docs/reference/fan-out-protocol.md).

Every message begins with a small msgpack map; only a frame has a second part, its pixels. Nothing
is trusted before it is checked, on either side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

import msgpack
import numpy as np

from apsber_bluesky.core import KEY_OF_STREAM, FrameError
from apsber_bluesky.streaming._bounded_msgpack import FLAT, unpack_map
from apsber_bluesky.streaming._series_messages import (
    DTYPES,
    MAXIMUM_FRAME_BYTES,
    MAXIMUM_PIXELS_PER_SIDE,
)

PROTOCOL: Final = "apsber-fan-out/1"
NEXT_RUN: Final = "next"
MAXIMUM_REQUEST_BYTES: Final = 1024
MAXIMUM_ANSWER_BYTES: Final = 4 << 20
MAXIMUM_RANGES: Final = 100_000
_MAXIMUM_INDEX: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Hello:
    """A client wants a stream from `next` on, at most `credit` frames ahead of its acks."""

    session: int
    run_uid: str
    stream: str
    next: int
    credit: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Every frame below `next` has been used."""

    session: int
    next: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there."""

    session: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The client wants no more."""

    session: int


@dataclass(frozen=True, slots=True)
class Start:
    """What the frames of the stream are."""

    session: int
    sequence: int
    run_uid: str
    stream: str
    dtype: str
    rows: int
    columns: int
    num_frames: int

    @property
    def frame_bytes(self) -> int:
        """Size of a frame [byte]."""
        return self.rows * self.columns * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """A frame; its pixels are the second part of the message."""

    session: int
    sequence: int
    index: int
    checksum: int


@dataclass(frozen=True, slots=True)
class End:
    """The run has closed, and these frames of the stream are missing, as ``[start, stop)``."""

    session: int
    sequence: int
    num_frames: int
    num_missing: int
    missing: list[list[int]]
    exit_status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pong:
    """The server is there; what it sends next has number `sequence`."""

    session: int
    sequence: int
    known: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """The server cannot do what was asked."""

    session: int
    code: str
    message: str


Request = Hello | Acknowledge | Ping | Bye
Answer = Start | FrameHeader | End | Pong | Problem
Check = Callable[[Any], bool]
_Kind = TypeVar("_Kind")


def _integer(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _text(maximum: int) -> Check:
    return lambda value: isinstance(value, str) and len(value) <= maximum


def _one_of(*choices: str) -> Check:
    return lambda value: isinstance(value, str) and value in choices


def _ranges(value: Any) -> bool:
    last = -1
    if not isinstance(value, list) or len(value) > MAXIMUM_RANGES:
        return False
    for pair in value:
        if not isinstance(pair, list) or [type(bound) for bound in pair] != [int, int]:
            return False
        if not last < pair[0] < pair[1] <= _MAXIMUM_INDEX:
            return False
        last = pair[1]
    return True


_INDEX: Final = _integer(0, _MAXIMUM_INDEX)
_CHECKS: Final[Mapping[str, Check]] = {
    "session": _integer(0, 2**63 - 1),
    "sequence": _integer(0, 2**63 - 1),
    "run_uid": lambda value: _text(128)(value) and value != "",
    "stream": _one_of(*KEY_OF_STREAM),
    "next": _INDEX,
    "credit": _integer(1, 2**16),
    "dtype": _one_of(*DTYPES),
    "rows": _integer(1, MAXIMUM_PIXELS_PER_SIDE),
    "columns": _integer(1, MAXIMUM_PIXELS_PER_SIDE),
    "num_frames": _INDEX,
    "num_missing": _INDEX,
    "index": _INDEX,
    "checksum": _integer(0, 2**64 - 1),
    "missing": _ranges,
    "exit_status": _text(64),
    "reason": _text(1024),
    "known": lambda value: isinstance(value, bool),
    "code": _text(64),
    "message": _text(1024),
}
_REQUESTS: Final[Mapping[str, type[Request]]] = {
    "hello": Hello,
    "ack": Acknowledge,
    "ping": Ping,
    "bye": Bye,
}
_ANSWERS: Final[Mapping[str, type[Answer]]] = {
    "start": Start,
    "frame": FrameHeader,
    "end": End,
    "pong": Pong,
    "error": Problem,
}
_NAMES: Final = {kind: name for name, kind in (*_REQUESTS.items(), *_ANSWERS.items())}


def pack(message: Request | Answer) -> bytes:
    """First part of the message."""
    values = {field.name: getattr(message, field.name) for field in fields(message)}
    packed: bytes = msgpack.packb({"protocol": PROTOCOL, "type": _NAMES[type(message)], **values})
    return packed


def parse_request(parts: Sequence[bytes | memoryview]) -> Request:
    """Read what a client sent.

    Raises
    ------
    FrameError
        If it is no request of this protocol; it names the field.
    """
    if len(parts) != 1:
        raise FrameError(f"fan-out request of {len(parts)} parts instead of 1")
    return _parse(parts[0], _REQUESTS, MAXIMUM_REQUEST_BYTES, 0)


def parse_answer(part: bytes | memoryview) -> Answer:
    """Read the first part of what a server sent.

    Raises
    ------
    FrameError
        If it is no answer of this protocol; it names the field.
    """
    answer = _parse(part, _ANSWERS, MAXIMUM_ANSWER_BYTES, MAXIMUM_RANGES)
    if isinstance(answer, Start) and answer.frame_bytes > MAXIMUM_FRAME_BYTES:
        raise FrameError(f"frames of {answer.frame_bytes} bytes exceed {MAXIMUM_FRAME_BYTES}")
    if isinstance(answer, End):
        _check_books(answer)
    return answer


def _check_books(end: End) -> None:
    named = sum(stop - begin for begin, stop in end.missing)
    # More may be missing than could be named, but not fewer.
    if not named <= end.num_missing <= end.num_frames or (
        end.missing and end.missing[-1][1] > end.num_frames
    ):
        raise FrameError(
            f"fan-out end: {named} missing frames named, {end.num_missing} counted, of"
            f" {end.num_frames}"
        )


def _parse(
    packed: bytes | memoryview, kinds: Mapping[str, type[_Kind]], maximum_bytes: int, array: int
) -> _Kind:
    if len(packed) > maximum_bytes:
        raise FrameError(f"fan-out header of {len(packed)} bytes exceeds {maximum_bytes}")
    try:
        header = unpack_map(
            packed,
            # The list of ranges, and each of them.
            maximum_containers=FLAT + array,
            max_map_len=32,
            max_array_len=array,
            max_str_len=4096,
            max_bin_len=0,
        )
    except ValueError as error:
        raise FrameError(f"fan-out header is not msgpack: {error}") from error
    if header.get("protocol") != PROTOCOL:
        raise FrameError(f"fan-out protocol is {header.get('protocol')!r:.80}, not {PROTOCOL!r}")
    name = header.get("type")
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise FrameError(f"fan-out message of type {name!r:.80}; it is one of {', '.join(kinds)}")
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        value = header.get(field.name)
        if not _CHECKS[field.name](value):
            raise FrameError(f"fan-out {name}: {field.name} = {value!r:.80} is not allowed")
        values[field.name] = value
    return kind(**values)
