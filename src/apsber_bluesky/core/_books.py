"""The books: what became of every frame."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any, Self

from apsber_bluesky.core._errors import InputError
from apsber_bluesky.core._number_ranges import format_ranges, parse_ranges

#: Names of the sums over all streams.
_TOTALS = (
    "expected",
    "received",
    "written",
    "decoded",
    "used",
    "recovered",
    "duplicated",
    "refused",
    "num_missing",
    "num_incomplete",
)


class FrameState(enum.IntFlag):
    """What has happened to a frame; the ledger keeps the sum of these for each frame."""

    #: Its image came, and was accepted.
    SEEN = 1
    #: Pixels and index row are on disk.
    WRITTEN = 2
    #: Plain pixels are in the ring, decompressed if they came compressed.
    DECODED = 4
    #: It went into the reconstruction, or into the average dark or flat.
    USED = 8
    #: A receiver that was started again found it whole in the spool of the one that died.
    RECOVERED = 16
    #: It is on disk with parts of the image missing.
    INCOMPLETE = 32


@dataclass(slots=True)
class SeriesBooks:
    """The books of one stream: every frame is received and written, or named as missing.

    Once a series has ended, ``expected == written + len(missing)``: a frame is on disk or named.
    While nothing fails, ``received == written + duplicated + refused``; it is more if frames were
    accepted and then lost with a full disk or a receiver that died, and those are `missing` too.
    It is less by what a receiver that died had counted besides the frames in its spool.

    Attributes
    ----------
    expected : int
        Frames that were to come.
    received : int
        Frames that came, those included that came twice or did not fit.
    written : int
        Frames that are on disk, each counted once, `incomplete` ones included.
    used : int
        Frames that went into the reconstruction or into an average; at most those that are
        written and not incomplete.
    duplicated, refused : int
        Frames that came again, or did not fit their series; neither is on disk for that.
    missing : list of int
        Indices in the stream of the frames that are not on disk.
    decoded : int
        Frames whose plain pixels were put in the ring, decompressed if they came compressed; what
        is written and not decoded, consumers read from the spool.
    recovered : int
        Those of the written frames that a receiver which was started again found in the spool.
    incomplete : list of int
        Indices of frames that are on disk with parts of the image missing, e.g. a module; none of
        them is in `missing`, and they are not used.
    """

    expected: int = 0
    received: int = 0
    written: int = 0
    used: int = 0
    duplicated: int = 0
    refused: int = 0
    missing: list[int] = field(default_factory=list)
    decoded: int = 0
    recovered: int = 0
    incomplete: list[int] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every expected frame is on disk, and whole."""
        return self.written == self.expected and not self.missing and not self.incomplete

    @property
    def num_missing(self) -> int:
        """Frames that are not on disk, named or not."""
        return max(len(self.missing), self.expected - self.written, 0)

    @property
    def num_incomplete(self) -> int:
        """Frames that are on disk with parts missing."""
        return len(self.incomplete)

    @property
    def unusable(self) -> frozenset[int]:
        """Indices of the frames that no reconstruction may use: missing or incomplete."""
        return frozenset(self.missing).union(self.incomplete)

    def curtail(self, planned: int) -> int:
        """Expect nothing behind the last frame on disk; how many frames are planned then.

        Parameters
        ----------
        planned : int
            Frames that were planned so far.
        """
        absent, end = set(self.missing), planned
        while end and end - 1 in absent:
            end -= 1
        self.expected -= planned - end
        self.missing = [index for index in self.missing if index < end]
        return end

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are stored and travel; lists of frames as `format_ranges`."""
        return {
            **{one.name: getattr(self, one.name) for one in fields(self)},
            "missing": format_ranges(self.missing),
            "incomplete": format_ranges(self.incomplete),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote, or an older ledger, which has lists and fewer numbers.

        Raises
        ------
        InputError
            If a number is unknown or a range of frames is none.
        """
        known = {one.name for one in fields(cls)}
        if strange := sorted(set(value) - known):
            raise InputError(
                f"frame books with unknown {', '.join(strange)}; read them with the"
                " version that wrote them or a later one"
            )
        lists = {
            name: parse_ranges(own) if isinstance(own, str) else list(own)
            for name in ("missing", "incomplete")
            if (own := value.get(name)) is not None
        }
        return cls(**{**value, **lists})


def book_name(stream: str, detector: str = "") -> str:
    """Name of a stream in books and ledger; a detector with a spool of its own stands before."""
    return f"{detector}:{stream}" if detector else stream


@dataclass(slots=True)
class FrameBooks:
    """The books of a run, one `SeriesBooks` per stream; see `book_name`."""

    streams: dict[str, SeriesBooks] = field(default_factory=dict)

    @property
    def expected(self) -> int:
        """Frames that the run was to take."""
        return sum(b.expected for b in self.streams.values())

    @property
    def received(self) -> int:
        """Frames that reached the receiver."""
        return sum(b.received for b in self.streams.values())

    @property
    def written(self) -> int:
        """Frames that are on disk."""
        return sum(b.written for b in self.streams.values())

    @property
    def decoded(self) -> int:
        """Frames whose plain pixels were in the ring."""
        return sum(b.decoded for b in self.streams.values())

    @property
    def used(self) -> int:
        """Frames that went into the reconstruction."""
        return sum(b.used for b in self.streams.values())

    @property
    def recovered(self) -> int:
        """Frames that were found in the spool of a receiver that died."""
        return sum(b.recovered for b in self.streams.values())

    @property
    def duplicated(self) -> int:
        """Frames that came again."""
        return sum(b.duplicated for b in self.streams.values())

    @property
    def refused(self) -> int:
        """Frames that did not fit their series."""
        return sum(b.refused for b in self.streams.values())

    @property
    def num_missing(self) -> int:
        """Frames that are not on disk."""
        return sum(b.num_missing for b in self.streams.values())

    @property
    def num_incomplete(self) -> int:
        """Frames that are on disk with parts missing."""
        return sum(b.num_incomplete for b in self.streams.values())

    @property
    def complete(self) -> bool:
        """Whether every expected frame of every stream is on disk, and whole."""
        return all(b.complete for b in self.streams.values())

    @property
    def fault(self) -> str:
        """What is wrong, e.g. ``"5 of 200 frames are missing"``; empty if nothing is."""
        lost, partial = self.num_missing, self.num_incomplete
        texts = [f"{lost} of {self.expected} frames are missing"] if lost else []
        if partial:
            texts.append(f"{partial} of {self.expected} frames are incomplete")
        if not texts and not self.complete:
            return f"{self.written} frames are on disk, {self.expected} were expected"
        return ", ".join(texts)

    def totals(self) -> dict[str, int]:
        """The sums over all streams by name, as every record of a run carries them."""
        return {name: int(getattr(self, name)) for name in _TOTALS}

    def to_dict(self) -> dict[str, Any]:
        """Totals and streams as plain values, as they are stored and travel."""
        return {
            **self.totals(),
            "complete": self.complete,
            "streams": {name: books.to_dict() for name, books in self.streams.items()},
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        InputError
            If `value` holds no ``streams``, or one of them cannot be read.
        """
        if "streams" not in value:
            raise InputError(f"frame books without 'streams': {value!r}")
        return cls({name: SeriesBooks.from_dict(own) for name, own in value["streams"].items()})
