"""What the fan-out knows of a run: which frames can be read, and which never will."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from apsber_bluesky.core import (
    KEY_OF_STREAM,
    FrameRange,
    ImageKey,
    RunDescription,
    RunFolder,
    RunLedger,
)
from apsber_bluesky.streaming._source import path_of_uri


def missing_in_ledger(frames: FrameRange) -> list[int]:
    """Indices among announced frames that the receiver's books name as missing.

    Their place in the spool holds zeros. Files that no receiver wrote have no ledger beside them,
    and nothing in them is missing.

    Raises
    ------
    DataFileError
        If the frames lie in no local file.
    StorageError
        If the ledger cannot be read.
    """
    ledger_file = RunFolder(path_of_uri(frames.uri).parent).ledger
    if not ledger_file.is_file():
        return []
    with RunLedger(ledger_file) as ledger:
        books = ledger.books.streams.get(frames.stream)
    return [i for i in books.missing if frames.start <= i < frames.stop] if books else []


@dataclass(slots=True)
class StreamFrames:
    """The frames of one stream that have been announced.

    Attributes
    ----------
    num_planned : int
        Frames that the plan is to take.
    """

    num_planned: int
    _ranges: list[FrameRange] = field(default_factory=list)
    _missing: set[int] = field(default_factory=set)

    def add(self, frames: FrameRange, missing: Collection[int]) -> None:
        """More frames can be read, but for those that are missing among them."""
        self._missing.update(missing)
        last = self._ranges[-1] if self._ranges else None
        if (
            last is not None
            and last.start <= frames.start <= last.stop
            and _same_place(last, frames)
        ):
            # Announcements of a whole run take the place of one.
            self._ranges[-1] = replace(last, stop=max(last.stop, frames.stop))
        else:
            insort(self._ranges, frames, key=lambda known: known.start)

    def find(self, index: int, *, ended: bool) -> FrameRange | None:
        """The frame to send next, at `index` or behind frames that are missing.

        A gap in the announcements is waited for until the run has ended.
        """
        position = max(bisect_right(self._ranges, index, key=lambda known: known.start) - 1, 0)
        for known in self._ranges[position:]:
            if known.start > index and not ended:
                return None
            index = max(index, known.start)
            while index < known.stop and index in self._missing:
                index += 1
            if index < known.stop:
                return replace(known, start=index, stop=index + 1)
        return None

    @property
    def num_frames(self) -> int:
        """Frames planned, or taken where those are more."""
        return max(self.num_planned, *(known.stop for known in self._ranges), 0)

    def missing(self) -> Iterator[tuple[int, int]]:
        """Ranges ``[start, stop)`` of frames that will not come, once the run has ended."""
        begin = 0
        while (frame := self.find(begin, ended=True)) is not None:
            if frame.start > begin:
                yield begin, frame.start
            begin = self._end_of_present(frame)
        if begin < self.num_frames:
            yield begin, self.num_frames

    def _end_of_present(self, frame: FrameRange) -> int:
        position = bisect_right(self._ranges, frame.start, key=lambda known: known.start) - 1
        stop = self._ranges[position].stop
        return min((i for i in self._missing if frame.start < i < stop), default=stop)


def _same_place(one: FrameRange, other: FrameRange) -> bool:
    return (one.uri, one.dataset) == (other.uri, other.dataset)


class FanOutRun:
    """A run that frames are handed out of.

    Parameters
    ----------
    description : RunDescription
        As the start document has it.
    """

    def __init__(self, description: RunDescription) -> None:
        scan = description.scan
        planned = {
            ImageKey.PROJECTION: scan.least_projections,
            ImageKey.FLAT: scan.num_flats,
            ImageKey.DARK: scan.num_darks,
        }
        self.uid = description.uid
        self.scan = scan
        self.streams = {
            str(stream): StreamFrames(planned[key]) for stream, key in KEY_OF_STREAM.items()
        }
        self.outcome: tuple[str, str] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will be announced."""
        return self.outcome is not None
