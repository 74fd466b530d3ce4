"""Series become books: every frame that arrives is placed, refused or counted as missing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from apsber_bluesky.core import FrameError, SeriesBooks, SeriesRequest
from apsber_bluesky.streaming._series_messages import Frame, Message, SeriesEnd, SeriesStart


class FrameStore(Protocol):
    """Where an accepted frame goes."""

    def __call__(self, stream: str, index: int, frame: Frame) -> None:
        """Store the frame at its place."""
        ...


@dataclass(slots=True)
class Series:
    """One series being received.

    Attributes
    ----------
    number : int
        The series' number on the wire.
    request : SeriesRequest
        What was announced by the plan.
    first_index : int
        Place of its first frame in the stream.
    """

    number: int
    request: SeriesRequest
    first_index: int
    started: bool = False
    ended: bool = False
    seen: set[int] = field(default_factory=set)
    duplicated: int = 0
    refused: int = 0
    last_message_s: float = field(default_factory=time.monotonic)

    @property
    def complete(self) -> bool:
        """Whether every frame has come."""
        return len(self.seen) == self.request.num_frames

    @property
    def contiguous(self) -> int:
        """Frames from the first on without a gap."""
        count = len(self.seen)
        if count and max(self.seen) == count - 1:
            return count
        return next(i for i in range(count + 1) if i not in self.seen)

    @property
    def missing(self) -> list[int]:
        """Places in the stream of the frames that have not come."""
        numbers = range(self.request.num_frames)
        return [self.first_index + number for number in numbers if number not in self.seen]

    def add_to(self, books: SeriesBooks) -> SeriesBooks:
        """The books of the stream with this series entered."""
        return SeriesBooks(
            expected=books.expected + self.request.num_frames,
            received=books.received + len(self.seen) + self.duplicated + self.refused,
            written=books.written + len(self.seen),
            duplicated=books.duplicated + self.duplicated,
            refused=books.refused + self.refused,
            missing=books.missing + self.missing,
        )

    def take(self, message: Message, store: FrameStore) -> None:
        """Check a message against what was announced, and store a good frame.

        Raises
        ------
        FrameError
            If the message does not belong here; a frame so refused is counted.
        """
        if message.series != self.number:
            self.refused += isinstance(message, Frame)
            raise FrameError(
                f"message of series {message.series} while series {self.number} is armed"
            )
        self.last_message_s = time.monotonic()
        match message:
            case SeriesStart():
                self._check_start(message)
                self.started = True
            case Frame():
                self._take_frame(message, store)
            case SeriesEnd():
                self.ended = True

    def _check_start(self, start: SeriesStart) -> None:
        wanted, got = self.request, start
        if (got.rows, got.columns, got.dtype) != (wanted.rows, wanted.columns, wanted.dtype):
            raise FrameError(
                f"series {start.series} has {got.dtype} frames of {got.rows} x {got.columns},"
                f" the plan asked for {wanted.dtype} of {wanted.rows} x {wanted.columns}"
            )
        if got.num_frames != wanted.num_frames:
            raise FrameError(
                f"series {start.series} announces {got.num_frames} frames, the plan asked for"
                f" {wanted.num_frames}"
            )

    def _take_frame(self, frame: Frame, store: FrameStore) -> None:
        request = self.request
        if not self.started:
            self.refused += 1
            raise FrameError(f"frame {frame.number} came before its series was announced")
        if frame.number >= request.num_frames:
            self.refused += 1
            raise FrameError(f"frame {frame.number} of a series of {request.num_frames}")
        if frame.number in self.seen:
            self.duplicated += 1
            return
        size = self.frame_bytes
        if len(frame.pixels) != size:
            self.refused += 1
            raise FrameError(f"frame {frame.number} has {len(frame.pixels)} bytes, not {size}")
        store(request.stream, self.first_index + frame.number, frame)
        self.seen.add(frame.number)

    @property
    def frame_bytes(self) -> int:
        """Size of a frame [byte]."""
        request = self.request
        return SeriesStart(
            self.number, request.num_frames, request.rows, request.columns, request.dtype
        ).frame_bytes
