"""Series become books: every frame that arrives is placed, refused or counted as missing."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field, replace

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

    def drop(self, number: int) -> None:
        self.frames.discard(number)
        self._parts.pop(number, None)

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
    planned : int
        Places that the stream had before the series.
    source : int or None
        The series' number on the wire; None until a detector that counts for itself begins.
    contiguous : int
        Frames on disk from the first on without a gap; kept, for it is asked for all the time.
    newest_seen, newest_decoded : int
        Highest numbers of frames that came, and that were put in the ring; -1 for none.
    interrupted : bool
        Whether nothing that comes is used any more.
    incomplete, recovered, decoded, kept : set of int
        Frames that came with parts missing, that a receiver which died had written, that were put
        in the ring, and that an earlier series of these places has on disk.
    """

    number: int
    request: SeriesRequest
    first_index: int
    channels: int = 1
    codec: Codec = "none"
    source: int | None = None
    planned: int = 0
    started: bool = False
    ended: bool = False
    contiguous: int = 0
    newest_seen: int = -1
    newest_decoded: int = -1
    duplicated: int = 0
    refused: int = 0
    interrupted: bool = False
    incomplete: set[int] = field(default_factory=set)
    recovered: set[int] = field(default_factory=set)
    decoded: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)
    _accepted: _Images = field(init=False)
    _stored: _Images = field(init=False)
    _arrivals: deque[tuple[float, int]] = field(default_factory=deque)

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
    def again(self) -> bool:
        """Whether an earlier series had these places."""
        return self.request.first_index is not None and self.planned > self.first_index

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
            "expected": 0 if self.again else self.request.num_frames,
            "received": len(self.seen - self.kept) + self.duplicated + self.refused,
            "written": len(self.written - self.kept),
            "missing": self.newest_seen + 1 - len(self.seen),
            "duplicated": self.duplicated,
            "refused": self.refused,
            "decoded": len(self.decoded),
        }

    def add_to(self, books: SeriesBooks) -> SeriesBooks:
        """The books of the stream with this series entered."""
        first = self.first_index
        return SeriesBooks(
            expected=books.expected + (0 if self.again else self.request.num_frames),
            received=(books.received + len(self.seen - self.kept) + self.duplicated + self.refused),
            written=books.written + len(self.written - self.kept),
            used=books.used,
            duplicated=books.duplicated + self.duplicated,
            refused=books.refused + self.refused,
            missing=sorted(books.missing + [first + number for number in self.missing]),
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
            case Frame() if self.interrupted:
                # The detector and what triggers it take a while to stop.
                self.refused += 1
            case Frame():
                return self._take_frame(self._at_its_angle(message))
        return None

    def _at_its_angle(self, frame: Frame) -> Frame:
        """The frame with the number of the place that its angle belongs to."""
        start_deg, step_deg = self.request.angle_deg, self.request.step_deg
        if start_deg is None or not step_deg or not math.isfinite(frame.angle_deg):
            return frame
        number = round((frame.angle_deg - start_deg) / step_deg)
        return frame if number == frame.number else replace(frame, number=number)

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
        if self.request.retakes:
            self._arrivals.append((time.monotonic(), frame.number))
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

    def readable(self, since_s: float) -> int:
        """Frames from the first on without a gap that can be read, and will not be taken again.

        Parameters
        ----------
        since_s : float
            Frames that came later than this (``time.monotonic``) [s] could be.
        """
        if self.complete or self.ended:
            return self.contiguous
        while self._arrivals and self._arrivals[0][0] < since_s:
            self._arrivals.popleft()
        return min([self.contiguous, *(number for _, number in self._arrivals)])

    def interrupt(self, since_s: float) -> list[int]:
        """Use nothing that comes from now on; the writer must be idle.

        Parameters
        ----------
        since_s : float
            Frames that came later than this (``time.monotonic``) [s] are taken back, unless the
            series was over by then.

        Returns
        -------
        list of int
            These frames.
        """
        over, self.interrupted = self.complete or self.ended or self.interrupted, True
        late = set() if over else {n for came_s, n in self._arrivals if came_s >= since_s}
        for number in late:
            self._accepted.drop(number)
            self._stored.drop(number)
        self.incomplete -= late
        self.decoded -= late
        self.refused += len(late)
        self.contiguous = min([self.contiguous, *late])
        self.newest_seen = max(self.seen, default=-1)
        self.newest_decoded = max(self.decoded, default=-1)
        return sorted(late)

    def keep(self, numbers: list[int]) -> None:
        """These frames are on disk already, from an earlier series of these places."""
        self.kept.update(numbers)
        self._have(numbers)

    def put_in_ring(self, number: int) -> None:
        """The plain pixels of a frame are in the ring."""
        self.decoded.add(number)
        self.newest_decoded = max(self.newest_decoded, number)

    def recover(self, numbers: list[int]) -> None:
        """These frames were on disk already when this receiver was started."""
        self.recovered.update(numbers)
        self._have(numbers)

    def _have(self, numbers: list[int]) -> None:
        for number in numbers:
            for channel in range(self.channels):
                self._accepted.add(number, channel)
                self.stored(number, channel)
        self.newest_seen = max([self.newest_seen, *numbers])
