"""Series become books: every frame that arrives is placed, refused or counted as missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from apsber_bluesky.core import FrameError, SeriesBooks, SeriesRequest
from apsber_bluesky.streaming._series_messages import Codec, Frame, Message, SeriesEnd, SeriesStart


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
        The receiver's number of the series.
    request : SeriesRequest
        What was announced by the plan.
    first_index : int
        Place of its first frame in the stream.
    channels : int
        Images that make up a frame.
    codec : {"none", "bslz4", "lz4"}
        How the detector was to compress them.
    source : int or None
        The series' number on the wire; None until a detector that counts for itself begins.
    contiguous : int
        Frames from the first on without a gap; kept, for it is asked for all the time.
    """

    number: int
    request: SeriesRequest
    first_index: int
    channels: int = 1
    codec: Codec = "none"
    source: int | None = None
    started: bool = False
    ended: bool = False
    seen: set[int] = field(default_factory=set)
    images: set[tuple[int, int]] = field(default_factory=set)
    contiguous: int = 0
    duplicated: int = 0
    refused: int = 0

    @property
    def complete(self) -> bool:
        """Whether every frame has come."""
        return len(self.seen) == self.request.num_frames

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
        if self.source is None and isinstance(message, SeriesStart):
            self.source = message.series
        if message.series != self.source:
            self.refused += isinstance(message, Frame)
            raise FrameError(
                f"message of series {message.series} while series"
                f" {self.number if self.source is None else self.source} is armed"
            )
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
        if len(got.channels) != self.channels:
            raise FrameError(
                f"series {start.series} has {len(got.channels)} images per frame"
                f" ({', '.join(got.channels)}), streaming.channels is {self.channels}"
            )

    def _take_frame(self, frame: Frame, store: FrameStore) -> None:
        request = self.request
        if not self.started:
            self.refused += 1
            raise FrameError(f"frame {frame.number} came before its series was announced")
        if frame.number >= request.num_frames:
            self.refused += 1
            raise FrameError(f"frame {frame.number} of a series of {request.num_frames}")
        image = (frame.number, frame.channel)
        if image in self.images:
            self.duplicated += 1
            return
        if frame.codec not in ("none", self.codec):
            self.refused += 1
            raise FrameError(
                f"frame {frame.number} is compressed as {frame.codec!r}, streaming.codec is"
                f" {self.codec!r}"
            )
        if frame.codec == "none" and len(frame.pixels) != self.frame_bytes:
            self.refused += 1
            raise FrameError(
                f"frame {frame.number} has {len(frame.pixels)} bytes, not {self.frame_bytes}"
            )
        store(request.stream, self.first_index + frame.number, frame)
        self.images.add(image)
        if all((frame.number, channel) in self.images for channel in range(self.channels)):
            self.seen.add(frame.number)
            while self.contiguous in self.seen:
                self.contiguous += 1

    @property
    def frame_bytes(self) -> int:
        """Size of a frame [byte]."""
        request = self.request
        return SeriesStart(
            self.number, request.num_frames, request.rows, request.columns, request.dtype
        ).frame_bytes
