"""Series become books: every frame that arrives is placed, refused or counted as missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from apsber_bluesky.core import FrameError, SeriesBooks, SeriesRequest
from apsber_bluesky.streaming._series_messages import Codec, Frame, Message, SeriesEnd, SeriesStart


@dataclass(slots=True)
class _Images:
    """Frames of which images have come to some point; whole when all channels have."""

    channels: int
    frames: set[int] = field(default_factory=set)
    _parts: dict[int, set[int]] = field(default_factory=dict)

    def has(self, number: int, channel: int) -> bool:
        return number in self.frames or channel in self._parts.get(number, ())

    def add(self, number: int, channel: int) -> None:
        if self.channels > 1:
            parts = self._parts.setdefault(number, set())
            parts.add(channel)
            if len(parts) < self.channels:
                return
            del self._parts[number]
        self.frames.add(number)


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
        Frames on disk from the first on without a gap; kept, for it is asked for all the time.
    newest_seen, newest_decoded : int
        Highest numbers of frames that came, and that were put in the ring; -1 for none.
    incomplete, recovered, decoded : set of int
        Frames that came with parts missing, that a receiver which died had written, and that
        were put in the ring.
    """

    number: int
    request: SeriesRequest
    first_index: int
    channels: int = 1
    codec: Codec = "none"
    source: int | None = None
    started: bool = False
    ended: bool = False
    contiguous: int = 0
    newest_seen: int = -1
    newest_decoded: int = -1
    duplicated: int = 0
    refused: int = 0
    incomplete: set[int] = field(default_factory=set)
    recovered: set[int] = field(default_factory=set)
    decoded: set[int] = field(default_factory=set)
    _accepted: _Images = field(init=False)
    _stored: _Images = field(init=False)

    def __post_init__(self) -> None:
        self._accepted, self._stored = _Images(self.channels), _Images(self.channels)

    @property
    def seen(self) -> set[int]:
        """Frames that came and were accepted."""
        return self._accepted.frames

    @property
    def written(self) -> set[int]:
        """Frames that are on disk."""
        return self._stored.frames

    @property
    def complete(self) -> bool:
        """Whether every frame is on disk."""
        return len(self.written) == self.request.num_frames

    @property
    def missing(self) -> list[int]:
        """Frames of the series that are not on disk."""
        written = self.written
        return [number for number in range(self.request.num_frames) if number not in written]

    def counts(self) -> dict[str, int]:
        """The numbers of the series so far; `missing` are the gaps before the newest frame."""
        return {
            "expected": self.request.num_frames,
            "received": len(self.seen) + self.duplicated + self.refused,
            "written": len(self.written),
            "missing": self.newest_seen + 1 - len(self.seen),
            "duplicated": self.duplicated,
            "refused": self.refused,
            "decoded": len(self.decoded),
        }

    def add_to(self, books: SeriesBooks) -> SeriesBooks:
        """The books of the stream with this series entered."""
        first = self.first_index
        return SeriesBooks(
            expected=books.expected + self.request.num_frames,
            received=books.received + len(self.seen) + self.duplicated + self.refused,
            written=books.written + len(self.written),
            used=books.used,
            duplicated=books.duplicated + self.duplicated,
            refused=books.refused + self.refused,
            missing=books.missing + [first + number for number in self.missing],
            decoded=books.decoded + len(self.decoded),
            recovered=books.recovered + len(self.recovered),
            incomplete=books.incomplete + [first + number for number in sorted(self.incomplete)],
        )

    def take(self, message: Message) -> Frame | None:
        """Check a message against what was announced.

        Returns
        -------
        Frame or None
            A frame that is to be stored; `stored` says when it is.

        Raises
        ------
        FrameError
            If the message does not belong here; a frame so refused is counted.
        """
        if self.source is None and isinstance(message, SeriesStart):
            # Only one that fits: a stale announcement must not take the place of the right one.
            self._check_start(message)
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
            case SeriesEnd():
                self.ended = True
            case Frame():
                return self._take_frame(message)
        return None

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
                f" ({', '.join(got.channels)!r:.200}), streaming.channels is {self.channels}"
            )

    def _take_frame(self, frame: Frame) -> Frame | None:
        if self._accepted.has(frame.number, frame.channel):
            self.duplicated += 1
            return None
        try:
            self._check_frame(frame)
        except FrameError:
            self.refused += 1
            raise
        self._accepted.add(frame.number, frame.channel)
        self.newest_seen = max(self.newest_seen, frame.number)
        if not frame.complete:
            self.incomplete.add(frame.number)
        return frame

    def _check_frame(self, frame: Frame) -> None:
        if not self.started:
            raise FrameError(f"frame {frame.number} came before its series was announced")
        if not 0 <= frame.number < self.request.num_frames:
            raise FrameError(f"frame {frame.number} of a series of {self.request.num_frames}")
        if not 0 <= frame.channel < self.channels:
            raise FrameError(f"frame {frame.number} has a channel {frame.channel}")
        if frame.codec not in ("none", self.codec):
            raise FrameError(
                f"frame {frame.number} is compressed as {frame.codec!r}, streaming.codec is"
                f" {self.codec!r}"
            )
        size, wanted = len(frame.pixels), self.request.frame_bytes
        if frame.codec == "none" and size != wanted:
            raise FrameError(f"frame {frame.number} has {size} bytes, not {wanted}")

    def stored(self, number: int, channel: int) -> None:
        """An image that `take` returned is on disk."""
        self._stored.add(number, channel)
        while self.contiguous in self.written:
            self.contiguous += 1

    def put_in_ring(self, number: int) -> None:
        """The plain pixels of a frame are in the ring."""
        self.decoded.add(number)
        self.newest_decoded = max(self.newest_decoded, number)

    def recover(self, numbers: list[int]) -> None:
        """These frames were on disk already when this receiver was started."""
        self.recovered.update(numbers)
        for number in numbers:
            for channel in range(self.channels):
                self._accepted.add(number, channel)
                self.stored(number, channel)
        self.newest_seen = max(numbers, default=-1)
