"""One run as the receiver has it: spool, ledger, books, and the series that is armed."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import numpy as np

from apsber_bluesky.core import (
    KEY_OF_STREAM,
    ApsberError,
    FrameBooks,
    FrameError,
    FrameState,
    RunFolder,
    RunLedger,
    RunState,
    SeriesBooks,
    SeriesRequest,
    StreamingSettings,
    book_name,
    format_ranges,
    parse_ranges,
)
from apsber_bluesky.streaming._assembler import Series
from apsber_bluesky.streaming._diagnosis import explain_missing
from apsber_bluesky.streaming._formats import wire_format
from apsber_bluesky.streaming._receiver_state import ReceiverState, forget_state
from apsber_bluesky.streaming._series_messages import FrameReader, SeriesStart
from apsber_bluesky.streaming._spool import Spool
from apsber_bluesky.streaming._spool_audit import audit_spool
from apsber_bluesky.streaming._spool_file import dataset_path

logger = logging.getLogger(__name__)

_LONGEST_LIST: Final = 200


class ReceivedRun:
    """A run whose frames are being received.

    Attributes
    ----------
    uid : str
        Bluesky run uid.
    spool : Spool
        Where its frames are written.
    books : dict of str to SeriesBooks
        The books of the streams whose series have ended.
    series : Series or None
        The series that is armed.
    reader : FrameReader or None
        Reads its messages.
    failure : ApsberError or None
        Why frames of the run could not be kept.
    """

    def __init__(
        self,
        folder: RunFolder,
        state: ReceiverState,
        settings: StreamingSettings,
        state_file: Path | None,
        *,
        resume: bool,
    ) -> None:
        self.uid = state.run_uid
        self.folder = folder
        self.state = state
        self.books: dict[str, SeriesBooks] = {}
        self._planned: dict[str, int] = {}
        self._open: set[str] = set()
        self.series: Series | None = None
        self.reader: FrameReader | None = None
        self.failure: ApsberError | None = None
        self._settings = settings
        self._state_file = state_file
        request, codec, channels = state.first_request, settings.codec, settings.channels
        self._detector = request.detector
        with contextlib.ExitStack() as stack:
            self.ledger = RunLedger(folder.ledger, create=not resume)
            stack.callback(self.ledger.close)
            raw = folder.raw_of(request.detector)
            self.spool = Spool(raw, request, codec=codec, channels=channels, resume=resume)
            stack.pop_all()

    @classmethod
    def create(
        cls,
        data_root: Path,
        proposal: str,
        request: SeriesRequest,
        settings: StreamingSettings,
        state_file: Path | None,
    ) -> Self:
        """Begin a run with its first series.

        Raises
        ------
        StorageError
            If its folder cannot be made.
        InputError
            If the proposal or the uid cannot name a folder.
        """
        folder = RunFolder.of(data_root, proposal, request.run_uid).create()
        state = ReceiverState(proposal, request)
        run = cls(folder, state, settings, state_file, resume=False)
        run.ledger.set_state(RunState.ACQUIRING)
        return run

    @classmethod
    def resume(
        cls, data_root: Path, state: ReceiverState, settings: StreamingSettings, state_file: Path
    ) -> Self:
        """Go on with a run whose receiver was killed, from what it left on disk.

        Raises
        ------
        StorageError
            If the spool or the ledger cannot be opened.
        DataFileError
            If the spool cannot be read.
        """
        folder = RunFolder.of(data_root, state.proposal, state.run_uid)
        detector = state.first_request.detector
        there = audit_spool(folder.raw_of(detector))
        run = cls(folder, state, settings, state_file, resume=True)
        run.books = own_books(run.ledger.books, detector).streams
        run._planned = {stream: len(rows) for stream, rows in there.items()}
        if state.request is not None:
            run._note_open(state.request)
            run._resume_series(state.request, there[state.request.stream])
        return run

    def _resume_series(self, request: SeriesRequest, there: np.ndarray[Any, Any]) -> None:
        state = self.state
        series, reader = self._make_series(request, state.series_count, state.first_index)
        # What announced the series may have been lost with the receiver; the plan's word stands.
        series.started = True
        series.source = state.source if state.source is not None else series.source
        for parts in state.head:
            reader.read(parts)
        first = state.first_index
        found = np.flatnonzero(there[first : first + request.num_frames]).tolist()
        kept = set(parse_ranges(state.kept))
        series.keep([number for number in found if number in kept])
        series.recover([number for number in found if number not in kept])
        self.series, self.reader = series, reader
        logger.warning(
            "series %d of run %s goes on: %d of %d frames are on disk",
            series.number,
            self.uid,
            len(series.written),
            request.num_frames,
        )

    def _make_series(
        self, request: SeriesRequest, number: int, first_index: int
    ) -> tuple[Series, FrameReader]:
        settings = self._settings
        kind = wire_format(settings.format)
        series = Series(number, request, first_index, settings.channels, settings.codec)
        series.planned = self.state.planned
        series.source = number if kind.repeats_number else None
        return series, kind.make_reader(request, settings)

    def arm(self, request: SeriesRequest, number: int, arm_id: str) -> None:
        """Make room for a series; its frames may come.

        Raises
        ------
        FrameError
            If its frames are not like the others of the run.
        StorageError
            If there is no room.
        """
        first = self.state.first_request
        if (first.rows, first.columns, first.dtype, first.detector) != (
            request.rows,
            request.columns,
            request.dtype,
            request.detector,
        ):
            raise FrameError(
                f"series of {request.dtype} {request.rows} x {request.columns} frames"
                f"{_of(request.detector)} in a run that began with others; take one frame size"
                " and dtype per run and detector"
            )
        self.state.planned = planned = self._planned.get(request.stream, 0)
        first_index = planned if request.first_index is None else request.first_index
        if first_index == planned:
            self.spool.extend(request.stream, request.num_frames)
            self._planned[request.stream] = planned + request.num_frames
            kept: list[int] = []
        else:
            kept = self._take_again(request, first_index, planned)
        self._note_open(request)
        self.series, self.reader = self._make_series(request, number, first_index)
        self.series.keep(kept)
        self.state.kept = format_ranges(kept)
        self.state.request, self.state.first_index = request, first_index
        self.state.series_count, self.state.arm_id = number, arm_id
        self.state.source, self.state.head = self.series.source, []
        self._save_state()

    def _take_again(self, request: SeriesRequest, first: int, planned: int) -> list[int]:
        """Strike places out of those that are missing; which of them are on disk."""
        stop, books = first + request.num_frames, self.books.get(request.stream)
        if books is None or not 0 <= first < stop <= planned:
            raise FrameError(
                f"frames {first} to {stop - 1} of {request.stream!r} cannot be taken again: it has"
                f" {planned} places"
            )
        absent = {index for index in books.missing if first <= index < stop}
        # Consumers read the books when frames are announced: what comes now is not missing.
        books.missing = [index for index in books.missing if index not in absent]
        self.ledger.set_books(self._book_name(request.stream), books)
        return [index - first for index in range(first, stop) if index not in absent]

    def _note_open(self, request: SeriesRequest) -> None:
        if request.retakes:
            self._open.add(request.stream)
        else:
            self._open.discard(request.stream)

    def give_up(self, stream: str) -> None:
        """What is missing of a stream stays so."""
        self._open.discard(stream)

    def curtail(self, stream: str) -> int:
        """End a stream behind its last frame on disk; how many places it has then."""
        books, planned = self.books.get(stream, SeriesBooks()), self._planned.get(stream, 0)
        self._planned[stream] = end = books.curtail(planned)
        self.ledger.set_books(self._book_name(stream), books)
        self.spool.shorten(stream, end)
        return end

    def missing(self, stream: str, first: int, count: int) -> list[int]:
        """Which of some places of a stream have no frame on disk; places yet to come count."""
        planned, series = self._planned.get(stream, 0), self.series
        books = self.books.get(stream)
        absent = set(books.missing) if books is not None else set()
        if series is not None and series.request.stream == stream:
            absent.update(series.first_index + number for number in series.missing)
        return [
            index for index in range(first, first + count) if index >= planned or index in absent
        ]

    def readable(self, stream: str) -> int:
        """Frames of a stream, from the first on, that may be announced.

        Those of an open stream without a gap; of others all, for what is missing is in the books.
        """
        books, series = self.books.get(stream, SeriesBooks()), self.series
        if series is None or series.request.stream != stream:
            end = self._planned.get(stream, 0)
        else:
            end = series.first_index + series.readable(time.monotonic() - self._settings.retake_s)
            if end == series.first_index + series.request.num_frames:
                end = self._planned[stream]
        return min([end, *books.missing]) if stream in self._open else end

    def announced(self, start: SeriesStart, parts: list[memoryview]) -> None:
        """Keep what announced the series, for a receiver that has to go on with it."""
        if self._state_file is not None:
            self.state.source = start.series
            self.state.head.append([bytes(part) for part in parts])
            self._save_state()

    def _save_state(self) -> None:
        if self._state_file is not None:
            self.state.save(self._state_file)

    def ticket(self) -> dict[str, Any]:
        """Where the frames of the series that is armed will be found."""
        if self.series is None:
            raise FrameError("no series is armed")
        return {
            "uri": f"file://localhost{quote(str(self.spool.path.absolute()))}",
            "dataset": dataset_path(self.series.request.stream),
            "first_index": self.series.first_index,
            "series": self.series.number,
        }

    def mark_incomplete(self, series: Series, number: int) -> None:
        """A frame is on disk with parts missing, and is not to be used.

        Raises
        ------
        StorageError
            If the ledger cannot be written.
        """
        index = series.first_index + number
        self.ledger.mark_frames(
            self._book_name(series.request.stream), FrameState.INCOMPLETE, [index]
        )

    def _book_name(self, stream: str) -> str:
        return book_name(stream, self._detector)

    def end_series(self) -> str:
        """Enter the series in the books; nothing may be writing it any more.

        Returns
        -------
        str
            What is wrong with it, in words; empty if nothing is.
        """
        series = self.series
        if series is None:
            return ""
        self.series = self.reader = None
        stream, first = series.request.stream, series.first_index
        self.books[stream] = series.add_to(self.books.get(stream, SeriesBooks()))
        self.ledger.set_books(self._book_name(stream), self.books[stream])
        for state, numbers in (
            (FrameState.SEEN, series.seen),
            (FrameState.WRITTEN, series.written),
            (FrameState.DECODED, series.decoded),
            (FrameState.RECOVERED, series.recovered),
        ):
            if numbers:
                places = [first + number for number in numbers]
                self.ledger.mark_frames(self._book_name(stream), state, places)
        self.state.request, self.state.head = None, []
        self._save_state()
        missing = series.missing
        if missing:
            self.spool.blank(stream, [first + number for number in missing])
        return _describe(series, missing)

    def close(self) -> None:
        """Close spool and ledger; what arrived is kept."""
        self.series = self.reader = None
        with contextlib.ExitStack() as stack:
            if self._state_file is not None:
                stack.callback(forget_state, self._state_file)
            stack.callback(self.ledger.close)
            stack.callback(self.spool.close)


def _of(detector: str) -> str:
    return f" of {detector}" if detector else ""


def own_books(books: FrameBooks, detector: str) -> FrameBooks:
    """The books of one detector out of those of a run, by the names of its streams."""
    own = {stream: books.streams.get(book_name(stream, detector)) for stream in KEY_OF_STREAM}
    return FrameBooks({str(stream): found for stream, found in own.items() if found is not None})


def _describe(series: Series, missing: list[int]) -> str:
    texts = []
    if missing:
        text = (
            f"{len(missing)} of {series.request.num_frames} frames are missing ({_short(missing)})"
        )
        why = explain_missing(missing, series.request.num_frames)
        texts.append(f"{text}; {why}" if why else text)
    if series.incomplete:
        texts.append(
            f"{len(series.incomplete)} frames came with parts missing"
            f" ({_short(sorted(series.incomplete))})"
        )
    return "; ".join(texts) and f"series {series.number} ({series.request.stream}): " + "; ".join(
        texts
    )


def _short(numbers: list[int]) -> str:
    text = format_ranges(numbers)
    return text if len(text) <= _LONGEST_LIST else f"{text[:_LONGEST_LIST]} ..."
