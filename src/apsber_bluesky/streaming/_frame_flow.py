"""Frames on their way from the detector's sockets to the writer, and back into the books."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from apsber_bluesky.core import FrameError, StreamingSettings
from apsber_bluesky.streaming._assembler import Series
from apsber_bluesky.streaming._decode_workers import DecodeWorkers
from apsber_bluesky.streaming._diagnosis import ClockCheck, Complaints
from apsber_bluesky.streaming._formats import wire_format
from apsber_bluesky.streaming._health import HealthCounter
from apsber_bluesky.streaming._intake import Intake
from apsber_bluesky.streaming._received_run import ReceivedRun
from apsber_bluesky.streaming._ring import (
    FrameRing,
    frame_tag,
    index_of_tag,
    key_of_tag,
    stream_key,
)
from apsber_bluesky.streaming._series_messages import (
    FrameReader,
    Message,
    SeriesEnd,
    SeriesStart,
)
from apsber_bluesky.streaming._writer import FrameWriter, Job

logger = logging.getLogger(__name__)

_DECODE_PATIENCE_S: Final = 0.5
_DECODE_POLL_S: Final = 0.002


class FrameFlow:
    """Read frames, have them written, and enter what was written in the books of the run.

    Everything but the writing happens in the thread that calls.

    Parameters
    ----------
    context : zmq.Context
        Where the sockets live.
    frame_address : str
        Where the detector publishes frames; several addresses are separated by commas.
    ring : FrameRing
        Where consumers find the newest frames.
    settings : StreamingSettings
        What the detector speaks, and how much may wait.
    report : callable
        Called with (run uid, stream, received, expected) when more frames are on disk.
    warn : callable
        Called with (run uid, text) when something is wrong with the frames of a run.
    largest_message : int, optional
        Refuse larger messages [byte].

    Attributes
    ----------
    counter : HealthCounter
        Rates of what comes.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        frame_address: str,
        ring: FrameRing,
        settings: StreamingSettings,
        *,
        report: Callable[[str, str, int, int], None],
        warn: Callable[[str, str], None],
        largest_message: int | None = None,
    ) -> None:
        self._ring = ring
        self._settings = settings
        self._report = report
        self._warn = warn
        self._run: ReceivedRun | None = None
        self._sequence = 0
        self._key = 0
        self._last: tuple[Series | None, FrameReader | None] = (None, None)
        self.counter = HealthCounter()
        self._complaints = Complaints(self.tell)
        self._clock = ClockCheck()
        with contextlib.ExitStack() as stack:
            limits = {} if largest_message is None else {"largest_message": largest_message}
            self._intake = Intake(
                context,
                frame_address,
                wire_format(settings.format),
                high_water_mark=settings.high_water_mark,
                **limits,
            )
            stack.callback(self._intake.close)
            self._wake, self._woken = socket.socketpair()
            for end in (self._wake, self._woken):
                end.setblocking(False)
                stack.callback(end.close)
            compressed = settings.codec != "none"
            self._decoders = DecodeWorkers(ring, settings.decode_workers if compressed else 0)
            stack.callback(self._decoders.close)
            self._writer = FrameWriter(
                ring,
                self._wake_up,
                backlog_bytes=settings.writer_backlog_megabytes * 1_000_000,
                decoders=self._decoders,
            )
            stack.callback(self._writer.close)
            self._stack = stack.pop_all()

    def _wake_up(self) -> None:
        # A byte that no longer fits is not needed: others wait to be read.
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b"\0")

    def tell(self, text: str) -> None:
        """Something is wrong with the frames of the run."""
        if self._run is not None:
            self._warn(self._run.uid, text)

    # -- runs and series

    def begin_run(self, run: ReceivedRun) -> None:
        """Frames belong to this run from now on."""
        self._run = run
        self._writer.spool = run.spool
        self._ring.shape_for(run.state.first_request.frame_bytes)
        self._sequence = 0

    def begin_series(self, series: Series) -> None:
        """Frames belong to this series of the run."""
        self._key = stream_key(series.request.run_uid, series.request.stream)
        self.counter.begin()
        self._clock = ClockCheck()
        self._intake.lost_connections()

    def end_series(self, run: ReceivedRun) -> None:
        """Write what has come, and close the books of the series.

        Raises
        ------
        StorageError
            If the books cannot be kept.
        """
        series, reader = run.series, run.reader
        if series is None or reader is None:
            return
        self._last = series, reader
        # What has come up to now still belongs to it; an endless source has no more than this.
        for _ in range(self._settings.high_water_mark):
            # Nothing else is to be done meanwhile but wait for the disk.
            if not self._writer.has_room:
                self._writer.drain()
            if not self.receive(1):
                break
            self.settle()
        for message in reader.finish():
            self._take(series, message)
        for warning in reader.warnings:
            self._complaints.say(warning)
        self._writer.drain()
        self.settle()
        self._sequence += series.request.num_frames
        if (fault := run.end_series()) and not series.interrupted:
            logger.warning("%s", fault)
            self.tell(fault)
        self._complaints.end()

    def interrupt(self, run: ReceivedRun) -> None:
        """Use nothing of the series that comes from now on, nor what came just before.

        Raises
        ------
        StorageError
            If the spool cannot be written.
        """
        series = run.series
        if series is None:
            return
        self._writer.drain()
        self.settle()
        # One that is put in the ring later would be found there in place of the one to come.
        deadline = time.monotonic() + _DECODE_PATIENCE_S
        while self._decoders.backlog and time.monotonic() < deadline:
            time.sleep(_DECODE_POLL_S)
        self.settle()
        late = series.interrupt(time.monotonic() - self._settings.retake_s)
        places = [series.first_index + number for number in late]
        run.spool.forget(series.request.stream, places)
        self._ring.drop([frame_tag(self._key, place) for place in places])
        logger.info(
            "series %d was interrupted: %d of %d frames are kept",
            series.number,
            len(series.written),
            series.request.num_frames,
        )

    def end_run(self) -> None:
        """Frames belong to no run; when this returns nobody uses its spool."""
        self._writer.drain()
        self._writer.spool = self._run = None

    # -- frames

    def watch(self, poller: zmq.Poller) -> None:
        """Let a poller wake up when there is something to do.

        While the disk is behind, frames wait in their sockets, and then at the source.
        """
        poller.register(self._woken, zmq.POLLIN)
        self._intake.watch(poller, frames=self._writer.has_room)

    def receive(self, limit: int) -> int:
        """Take messages off the sockets; how many there were."""
        count = 0
        if self._writer.has_room:
            for source, parts in self._intake.receive(limit):
                count += 1
                self._read(parts, source)
        return count

    def _read(self, parts: list[memoryview], source: int) -> None:
        run = self._run
        if run is None or run.series is None or run.reader is None:
            if not self._is_rest(parts, source):
                self._complaints.say("refused: a message came while no series is armed")
            return
        try:
            messages = run.reader.read(parts, source)
        except FrameError as error:
            run.series.refused += 1
            self._complaints.say(f"refused: {error}")
            return
        for message in messages:
            self._take(run.series, message)
            if isinstance(message, SeriesStart):
                run.announced(message, parts)

    def _is_rest(self, parts: list[memoryview], source: int) -> bool:
        """Whether a message is what is left of the last series: its end, or if it was cut short."""
        series, reader = self._last
        if series is None or reader is None:
            return False
        try:
            messages = reader.read(parts, source)
        except FrameError:
            return False
        return all(
            message.series == series.source
            and (series.interrupted or isinstance(message, SeriesEnd))
            for message in messages
        )

    def _take(self, series: Series, message: Message) -> None:
        try:
            frame = series.take(message)
        except FrameError as error:
            self._complaints.say(f"refused: {error}")
            return
        if frame is None:
            return
        self.counter.frame(len(frame.pixels))
        if told := self._clock.check(frame.number, frame.timestamp_s):
            self._complaints.say(told)
        tag = frame_tag(self._key, series.first_index + frame.number)
        self._writer.put(Job(series, frame, self._sequence + frame.number, tag))

    def settle(self) -> None:
        """Enter in the books what was written, and tell who waits for it."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        run, done = self._run, self._writer.collect()
        if run is None:
            return
        for each in done:
            series, frame = each.job.series, each.job.frame
            if each.failure is not None:
                if run.failure is None:
                    logger.error("%s", each.failure)
                run.failure = each.failure
                continue
            if not frame.complete:
                # Before anybody is told that it can be read.
                run.mark_incomplete(series, frame.number)
            series.stored(frame.number, frame.channel)
            if each.in_ring:
                series.put_in_ring(frame.number)
        current = run.series
        if current is None:
            return
        self._settle_decoded(current)
        for text in self._intake.lost_connections():
            if not (current.ended or current.complete):
                self._complaints.say(text)
        if done:
            request, first = current.request, current.first_index
            received, expected = first + len(current.written), first + request.num_frames
            self._report(run.uid, request.stream, received, expected)

    def _settle_decoded(self, series: Series) -> None:
        first = series.first_index
        for tag in self._decoders.finished():
            if key_of_tag(tag) == self._key:
                series.put_in_ring(index_of_tag(tag) - first)
        for tag in self._decoders.failed():
            if key_of_tag(tag) == self._key:
                number = index_of_tag(tag) - first
                self._complaints.say(f"frame {number} cannot be decoded; it is kept as it came")

    @property
    def backlog(self) -> int:
        """Frames that were accepted and are not on disk yet."""
        return self._writer.backlog

    @property
    def decode_pending(self) -> int:
        """Frames that decode workers still have."""
        return self._decoders.backlog

    def close(self) -> None:
        """Close sockets and threads."""
        self._stack.close()
