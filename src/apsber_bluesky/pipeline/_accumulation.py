"""The streaming part: frames are normalised and filtered while the scan runs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    STREAM_OF_KEY,
    ArrayDigest,
    FrameBooks,
    FrameRange,
    FrameSource,
    FrameState,
    ImageKey,
    InputError,
    LiveMetric,
    ProcessingSettings,
    ProcessRecord,
    ReconstructionEngine,
    SeriesBooks,
)
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.pipeline._energy_frames import FrameCalibration
from apsber_bluesky.pipeline._feedback import FEEDBACK, HalfSetError
from apsber_bluesky.pipeline._frame_watch import FrameWatch
from apsber_bluesky.pipeline._held_projections import HeldProjections
from apsber_bluesky.pipeline._live_slices import LiveSlices
from apsber_bluesky.pipeline._preparation import Preparation, ReferenceFrames
from apsber_bluesky.pipeline._unbroken import unbroken
from apsber_bluesky.processing import create_engine, extend_edges, warm_up_preprocessing

#: Rows around the middle of the detector whose sinograms are kept for centre and quality.
CENTRAL_ROWS = 16

STAGE = "accumulate"


def central_rows(rows: int) -> slice:
    """The rows whose sinograms are kept."""
    kept = min(rows, CENTRAL_ROWS)
    first = (rows - kept) // 2
    return slice(first, first + kept)


class Accumulation:
    """Take the frames of one run as documents announce them.

    Darks and flats are averaged as soon as all of them are there; projections are normalised and
    handed to the engine in chunks whose boundaries do not depend on when frames arrived, so that
    equal frames give equal bits. Of an interlaced scan it tells after each turn how good the slices
    would be by now (event `FEEDBACK`).

    Parameters
    ----------
    context : RunContext
        The run.
    source : FrameSource
        Where frames are read.
    settings : ProcessingSettings
        Engine, filter and chunk size.
    calibration : FrameCalibration, optional
        What turns raw frames into those that are normalised.
    live : LiveSlices, optional
        Given the normalised projections, too.
    first : int
        Place in its stream of the first projection of the scan.

    Attributes
    ----------
    busy_s : float
        Time spent so far [s]; the rest of the scan it waited for frames.
    """

    def __init__(
        self,
        context: RunContext,
        source: FrameSource,
        settings: ProcessingSettings,
        calibration: FrameCalibration | None = None,
        live: LiveSlices | None = None,
        first: int = 0,
    ) -> None:
        self._context = context
        self._first = first
        self._source = source
        self._settings = settings
        self._calibration = calibration
        self._live = live
        self._calibrated: ProcessRecord | None = None
        self._announced: dict[ImageKey, list[FrameRange]] = defaultdict(list)
        self._preparation: Preparation | None = None
        self._prepared: ProcessRecord | None = None
        self._held: HeldProjections | None = None
        self._kept: list[int] = []
        self._engine: ReconstructionEngine | None = None
        scan = context.run.scan
        rows = self._rows = central_rows(scan.rows)
        self._sinograms = np.zeros(
            (scan.num_projections, rows.stop - rows.start, scan.columns), np.float32
        )
        self._frames = FrameWatch(context, settings.saturation_counts)
        self._watch = (
            HalfSetError(scan, self._sinograms, settings, self._tell_metric)
            if scan.interlaced_turns > 1
            else None
        )
        self._digest = ArrayDigest(
            np.dtype(scan.dtype), (scan.num_projections, scan.rows, scan.columns)
        )
        warm_up_preprocessing(
            np.dtype(scan.dtype if calibration is None else np.float32),
            interpolated=settings.flats == "interpolate" and context.run.flat_mode == "both",
            zingers=settings.zingers is not None,
            stripes=settings.stripes == "sorting",
        )
        self._done = 0
        self._used: dict[ImageKey, int] = defaultdict(int)
        self._metrics: list[LiveMetric] = []
        self._unusable: dict[str, frozenset[int]] = {}
        self._started_s = 0.0
        self.busy_s = 0.0

    def add(self, frames: FrameRange) -> None:
        """Frames were announced: use all that can be used now."""
        self._announced[frames.image_key].append(frames)
        self._read_books()
        self._look_at_references(frames)
        self._advance(last=False)

    def line_integrals(self, frames: FrameRange) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Normalise projections without reconstructing them; all references must be there.

        Yields
        ------
        ndarray of float32
            Line integrals of projections side by side that are usable.
        int
            Number of the first of them in the stream.
        """
        self._read_books()
        if self._preparation is None:
            self._begin_calibration()
            self._begin_preparation()
        with self._source.borrow(frames) as raw:
            lines = self._prepare(self._calibrate(raw), frames.start)
        self._extend(lines)
        for begin, end in unbroken(self._usable(frames.image_key, frames.start, frames.stop)):
            yield lines[begin - frames.start : end - frames.start], begin

    def finish(self) -> None:
        """No more frames will come: use the rest, and give up those that cannot be used."""
        self._read_books()
        self._advance(last=True)
        self._enter_findings()

    def _advance(self, *, last: bool) -> None:
        began = time.monotonic()
        scan = self._context.run.scan
        wanted = {ImageKey.DARK: scan.num_darks, ImageKey.FLAT: scan.num_flats}
        ready = last or all(self._count(key) >= number for key, number in wanted.items())
        while ready and (chunk := self._next_chunk(last=last)) is not None:
            self._context.check_cancelled(STAGE)
            self._take(*chunk)
        self.busy_s += time.monotonic() - began

    def _tell_metric(self, metric: LiveMetric) -> None:
        self._context.progress.message(self._context.run.uid, FEEDBACK, metric.to_dict())
        self._metrics.append(metric)

    def _count(self, key: ImageKey) -> int:
        return max((frames.stop for frames in self._announced[key]), default=0)

    def _next_chunk(self, *, last: bool) -> tuple[int, int] | None:
        scan = self._context.run.scan
        total, turn = scan.num_projections, scan.projections_per_turn
        available = min(self._count(ImageKey.PROJECTION) - self._first, total)
        # Nobody is to wait for the next turn to hear of this one.
        stop = min(self._done + self._settings.chunk_projections, (self._done // turn + 1) * turn)
        if last:
            stop = min(stop, available)
        return (self._done, stop) if self._done < stop <= available else None

    def _take(self, start: int, stop: int) -> None:
        engine, place = self._prepared_engine(), self._first
        first = self._announced[ImageKey.PROJECTION][0]
        frames = replace(first, start=place + start, stop=place + stop)
        with self._source.borrow(frames) as raw:
            self._digest.update(raw)
            self._frames.projections(raw, stop)
            projections = self._prepare(self._calibrate(raw), start)
        self._sinograms[start:stop] = projections[:, self._rows]
        taken = self._usable(ImageKey.PROJECTION, place + start, place + stop)
        usable = [number - place for number in taken]
        if self._held is not None:
            # Its edges are extended when its stripes are gone.
            self._held.keep(projections, start)
            self._kept += usable
        self._extend(projections)
        if self._live is not None:
            for begin, end in unbroken(usable):
                self._live.add(first.run_uid, projections[begin - start : end - start], begin)
        if self._held is None:
            for begin, end in unbroken(usable):
                engine.accumulate(projections[begin - start : end - start], begin)
        self._mark_used(ImageKey.PROJECTION, taken)
        self._done = stop
        self._frames.sinograms(self._sinograms, usable, stop)
        if self._watch is not None:
            self._watch.add(usable, stop)
        self._context.report(STAGE, stop, self._context.run.scan.num_projections)

    def _usable(self, key: ImageKey, start: int, stop: int) -> list[int]:
        """Frames between `start` and `stop` that are neither missing nor incomplete."""
        stream = STREAM_OF_KEY[key]
        lost = self._unusable.get(stream, frozenset())
        # The receiver marks a frame that lacks a part before it says that the frame can be read.
        states = self._context.ledger.frame_states(stream, range(start, stop))
        partial = (states & FrameState.INCOMPLETE).astype(bool)
        return [n for n in range(start, stop) if n not in lost and not partial[n - start]]

    def _read_books(self) -> None:
        """Learn which frames are missing.

        The receiver announces no frame behind a gap before it has entered the gap in the books, so
        it is enough to look when frames are announced.
        """
        books = self._context.ledger.books
        self._unusable = {stream: own.unusable for stream, own in books.streams.items()}
        self._frames.books(books, self._done)

    def _mark_used(self, key: ImageKey, frames: list[int]) -> None:
        self._context.ledger.mark_frames(STREAM_OF_KEY[key], FrameState.USED, frames)
        self._used[key] += len(frames)

    def _calibrate(self, raw: NDArray[Any]) -> NDArray[Any]:
        return raw if self._calibration is None else self._calibration(raw)

    def _begin_calibration(self) -> None:
        if self._calibration is not None:
            self._calibration.begin_run()
            self._calibrated = self._context.record(
                self._calibration.name,
                self._started_s,
                self._calibration.parameters,
                inputs=self._calibration.inputs,
            )

    def _prepare(self, frames: NDArray[Any], first: int) -> NDArray[np.float32]:
        if self._preparation is None:
            raise InputError("projections cannot be normalised before darks and flats are known")
        # Energies are this object's own and may be overwritten; raw frames are lent.
        return self._preparation(frames, first, None if self._calibration is None else frames)

    def _extend(self, projections: NDArray[np.float32]) -> None:
        if self._settings.extend_edges:
            extend_edges(projections)

    def _release(self, engine: ReconstructionEngine) -> None:
        """Hand over the projections that waited for the last one."""
        if self._held is None:
            return
        began = time.monotonic()
        started_s, held, self._held = time.time(), self._held, None
        lines = held.without_stripes(self._kept)
        self._sinograms[:] = lines[:, self._rows]
        self._extend(lines)
        for begin, end in unbroken(self._kept):
            self._context.check_cancelled(STAGE)
            engine.accumulate(lines[begin:end], begin)
        self._context.record("remove stripes", started_s, {"method": self._settings.stripes})
        self.busy_s += time.monotonic() - began

    def _prepared_engine(self) -> ReconstructionEngine:
        if self._engine is None:
            scan, settings = self._context.run.scan, self._settings
            self._started_s = time.time()
            self._begin_calibration()
            preparation = self._begin_preparation()
            self._prepared = self._context.record(
                "normalise", self._started_s, preparation.parameters, inputs=preparation.inputs
            )
            if settings.stripes != "none":
                self._held = HeldProjections(scan, settings.stripes)
            self._engine = create_engine(
                settings.engine,
                rows=scan.rows,
                columns=scan.columns,
                angles_deg=scan.angles_deg,
                filter_name=settings.filter,
                centre=None if settings.centre == "auto" else float(settings.centre),
            )
        return self._engine

    def _begin_preparation(self) -> Preparation:
        run = self._context.run
        darks, flats = self._references(ImageKey.DARK), self._references(ImageKey.FLAT)
        if flats is None:
            raise InputError(
                "the run has no flats, so its projections cannot be normalised; take flats"
                " (flat_mode='start')"
            )
        preparation = Preparation(run, self._settings, darks, flats)
        self._mark_used(ImageKey.DARK, preparation.used_darks)
        self._mark_used(ImageKey.FLAT, preparation.used_flats)
        for warning in preparation.warnings:
            details = {"stage": STAGE, "message": warning}
            self._context.progress.message(run.uid, "warning", details)
        self._preparation, self._frames.dead = preparation, preparation.bad_pixels
        return preparation

    def _look_at_references(self, frames: FrameRange) -> None:
        key = frames.image_key
        if key is not ImageKey.PROJECTION:
            own = self._usable(key, frames.start, frames.stop)
            with self._source.borrow(frames) as raw:
                self._frames.references(key, raw[[n - frames.start for n in own]], own)

    def _references(self, key: ImageKey) -> ReferenceFrames | None:
        """Darks or flats that are usable; None if none was announced."""
        if not self._announced[key]:
            return None
        parts, numbers = [], []
        for announced in self._announced[key]:
            own = self._usable(key, announced.start, announced.stop)
            with self._source.borrow(announced) as frames:
                # Picked by number, so this is a copy that may be kept.
                parts.append(frames[[n - announced.start for n in own]])
            numbers += own
        return ReferenceFrames(self._calibrate(np.concatenate(parts)), numbers)

    def _enter_findings(self) -> None:
        findings = self._context.findings
        if self._engine is None:
            raise InputError("the run has no projections; there is nothing to reconstruct")
        self._release(self._engine)
        findings.books = self._enter_books()
        self._digest_untaken()
        if self._metrics:
            latest = self._metrics[-1]
            parameters = {
                latest.name: latest.value,
                "projections": latest.projections,
                "planned_projections": self._context.run.scan.num_projections,
            }
            self._context.record("live quality", self._started_s, parameters)
        if self._prepared is not None and self._preparation is not None:
            self._prepared.parameters.update(self._preparation.parameters)
        if self._calibration is not None and self._calibrated is not None:
            # Now it is known how many pixels it did not fit.
            self._calibrated.parameters.update(self._calibration.parameters)
        lost = set(self._engine.give_up_missing()) if self._engine.missing else set()
        kept = [n for n in range(len(self._sinograms)) if n not in lost]
        findings.engine, findings.frame_sums = self._engine, self._frames.frames
        findings.projections_checksum = self._digest.checksum()
        findings.sinograms = self._sinograms[kept]
        findings.angles_deg = self._context.run.scan.angles_deg[kept]

    def _wanted_projections(self) -> int:
        """How many there were to be: an interlaced scan may be over after any turn."""
        scan = self._context.run.scan
        turns = -(-(self._count(ImageKey.PROJECTION) - self._first) // scan.projections_per_turn)
        return min(max(turns, 1) * scan.projections_per_turn, scan.num_projections)

    def _digest_untaken(self) -> None:
        """Count projections that an interlaced scan did not need as zeros, like those missing."""
        scan = self._context.run.scan
        if scan.interlaced_turns > 1:
            nothing = np.zeros((1, scan.rows, scan.columns), scan.dtype)
            for _ in range(self._done, scan.num_projections):
                self._digest.update(nothing)

    def _enter_books(self) -> FrameBooks:
        """The books of the run with what was used; without a receiver, what was announced."""
        books = self._context.ledger.books
        scan = self._context.run.scan
        expected = {
            ImageKey.PROJECTION: self._wanted_projections(),
            ImageKey.FLAT: scan.num_flats,
            ImageKey.DARK: scan.num_darks,
        }
        for key, number in expected.items():
            stream = STREAM_OF_KEY[key]
            if not number and not self._announced[key]:
                continue
            if stream not in books.streams:
                there = min(self._count(key), number)
                missing = list(range(there, number))
                books.streams[stream] = SeriesBooks(number, there, there, missing=missing)
                self._context.ledger.set_books(stream, books.streams[stream])
            books.streams[stream].used = self._used[key]
            self._context.ledger.set_used(stream, self._used[key])
        return books
