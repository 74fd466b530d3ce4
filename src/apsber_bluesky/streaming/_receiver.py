"""The receiver: the only reader of a detector's frame port.

It checks and numbers frames, writes the spool, feeds the ring and accounts for every frame. One
thread does it all, so there is one order of events; consumers and the plan ask it over a control
socket and it never waits for any of them.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import zmq

from apsber_bluesky.core import (
    ApsberError,
    ConfigurationError,
    FrameBooks,
    FrameError,
    RunFolder,
    RunLedger,
    RunState,
    SeriesBooks,
    SeriesRequest,
    StorageError,
    StreamingSettings,
)
from apsber_bluesky.streaming._assembler import Series
from apsber_bluesky.streaming._formats import wire_format
from apsber_bluesky.streaming._messages import (
    MAXIMUM_MESSAGE_BYTES,
    bound_address,
    pack_message,
    unpack_message,
)
from apsber_bluesky.streaming._ring import FrameRing, frame_tag, stream_key
from apsber_bluesky.streaming._series_messages import (
    MAXIMUM_FRAME_BYTES,
    Frame,
    FrameReader,
    Message,
)
from apsber_bluesky.streaming._spool import Spool, dataset_path
from apsber_bluesky.streaming._wire import MAXIMUM_HEADER_BYTES

logger = logging.getLogger(__name__)

_FLUSH_FRAMES: Final = 16
_POLL_MS: Final = 50
_FREE_SPACE_FACTOR: Final = 1.05


class Receiver:
    """Receive the frames of one detector.

    Parameters
    ----------
    frame_address : str
        Where the detector publishes frames.
    data_root : Path
        Folder below which runs are kept.
    ring : FrameRing
        Where consumers find the newest frames.
    settings : StreamingSettings
        What the detector speaks, and how many frames may wait in the socket.
    report : callable
        Called with (run uid, stream, received, expected) when more frames are on disk.

    Attributes
    ----------
    control_address : str
        Where `ReceiverClient` connects.

    Raises
    ------
    ConfigurationError
        If `frame_address` is no address.
    """

    def __init__(
        self,
        frame_address: str,
        data_root: Path,
        ring: FrameRing,
        *,
        settings: StreamingSettings | None = None,
        report: Callable[[str, str, int, int], None] | None = None,
    ) -> None:
        self._data_root = data_root
        self._ring = ring
        self._report = report or (lambda *_: None)
        self._settings = settings or StreamingSettings()
        self._format = wire_format(self._settings.format)
        self._reader: FrameReader | None = None
        self._context = zmq.Context()
        self._frames = self._context.socket(self._format.socket_type)
        self._frames.rcvhwm = self._settings.high_water_mark
        self._frames.maxmsgsize = MAXIMUM_FRAME_BYTES + MAXIMUM_HEADER_BYTES
        if self._format.socket_type == zmq.SUB:
            self._frames.subscribe(b"")
        try:
            for address in frame_address.split(","):
                self._frames.connect(address.strip())
        except zmq.ZMQError as error:
            self._frames.close(0)
            self._context.term()
            raise ConfigurationError(
                f"streaming.frame_address is {frame_address!r}: {error.strerror}; give one like"
                " 'tcp://detector:5555'"
            ) from error
        self._control = self._context.socket(zmq.REP)
        self._control.maxmsgsize = MAXIMUM_MESSAGE_BYTES
        self._control.linger = 500
        self._control.bind("tcp://127.0.0.1:*")
        self.control_address = bound_address(self._control)
        self._spool: Spool | None = None
        self._ledger: RunLedger | None = None
        self._series: Series | None = None
        self._series_count = 0
        self._books: dict[str, SeriesBooks] = {}
        self._stream_key = 0
        self._pending = 0
        self._failure: ApsberError | None = None

    def serve(self, should_stop: Callable[[], bool]) -> None:
        """Receive until told to stop."""
        poller = zmq.Poller()
        poller.register(self._frames, zmq.POLLIN)
        poller.register(self._control, zmq.POLLIN)
        while not should_stop():
            ready = dict(poller.poll(_POLL_MS))
            if self._frames in ready:
                self._drain_frames()
            # Whoever waits for frames is answered only about what readers can already see.
            self._flush()
            if self._control in ready:
                self._control.send(pack_message(self._answer(self._control.recv())))

    def _drain_frames(self) -> None:
        for _ in range(_FLUSH_FRAMES):
            try:
                parts = self._frames.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            series, reader = self._series, self._reader
            if series is None or reader is None:
                logger.warning("refused: a message came while no series is armed")
                continue
            for message in self._read(reader, series, [part.buffer for part in parts]):
                try:
                    series.take(message, self._store)
                except FrameError as error:
                    logger.warning("refused: %s", error)
                except StorageError as error:
                    self._note(error)

    def _read(self, reader: FrameReader, series: Series, parts: list[memoryview]) -> list[Message]:
        try:
            return reader.read(parts)
        except FrameError as error:
            logger.warning("refused: %s", error)
            series.refused += 1
            return []

    def _note(self, failure: StorageError) -> None:
        """Tell whoever waits for the series; one line in the log is enough for a full disk."""
        if self._failure is None:
            logger.error("%s", failure)
        self._failure = failure

    def _store(self, stream: str, index: int, frame: Frame) -> None:
        if self._spool is None:
            raise FrameError(f"frame {frame.number} without an open spool")
        self._spool.write(stream, index, frame)
        # Consumers of compressed frames read the spool, which decodes in their own process.
        if frame.codec == "none" and frame.channel == 0:
            self._ring.put(frame_tag(self._stream_key, index), frame.pixels)
        self._pending += 1

    def _flush(self) -> None:
        if not self._pending or self._spool is None or self._series is None:
            return
        self._pending = 0
        try:
            self._spool.flush()
        except StorageError as error:
            self._note(error)
        series, request = self._series, self._series.request
        received = series.first_index + len(series.seen)
        expected = series.first_index + request.num_frames
        self._report(request.run_uid, request.stream, received, expected)

    def _answer(self, packed: bytes) -> dict[str, Any]:
        try:
            request = unpack_message(packed)
            answer = self._dispatch(request)
        except ApsberError as error:
            return {"type": "error", "error": type(error).__name__, "message": str(error)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return {"type": "error", "error": "ServiceError", "message": f"bad request: {error!r}"}
        return {"type": "answer", **answer}

    def _dispatch(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["type"]:
            case "arm":
                return self._arm(SeriesRequest(**request["request"]), request["proposal"])
            case "state":
                return self._state(request["run_uid"], request["stream"])
            case "end_series":
                self._end_series()
                return {}
            case "close_run":
                return self._close_run(request["run_uid"])
            case kind:
                raise FrameError(f"the receiver knows no request {kind!r}")

    def _arm(self, request: SeriesRequest, proposal: str) -> dict[str, Any]:
        self._end_series()
        if self._spool is not None and self._spool.request.run_uid != request.run_uid:
            logger.warning("run %s was never closed", self._spool.request.run_uid)
            self._close_spool()
        number = self._series_count + 1
        settings = self._settings
        series = Series(number, request, 0, settings.channels, settings.codec)
        series.source = number if self._format.repeats_number else None
        reader = self._format.make_reader(request, settings)
        self._check_space(request.num_frames * series.frame_bytes * settings.channels)
        if self._spool is None:
            self._open(request, proposal, series.frame_bytes)
        spool = self._spool
        if spool is None or (spool.request.rows, spool.request.columns, spool.request.dtype) != (
            request.rows,
            request.columns,
            request.dtype,
        ):
            raise FrameError(
                f"series of {request.dtype} {request.rows} x {request.columns} frames in a run"
                " that began with others; take one frame size and dtype per run"
            )
        series.first_index = spool.extend(request.stream, request.num_frames)
        self._series, self._series_count, self._reader = series, number, reader
        self._stream_key = stream_key(request.run_uid, request.stream)
        return {
            "uri": f"file://localhost{quote(str(spool.path.absolute()))}",
            "dataset": dataset_path(request.stream),
            "first_index": series.first_index,
            "series": number,
        }

    def _check_space(self, needed: int) -> None:
        try:
            self._data_root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._data_root).free
        except OSError as error:
            raise StorageError(
                f"cannot use data root {self._data_root}: {error.strerror}; choose another"
            ) from error
        if needed * _FREE_SPACE_FACTOR > free:
            raise StorageError(
                f"the series needs {needed / 1e9:.2f} GB, {self._data_root} has"
                f" {free / 1e9:.2f} GB free; free space or choose another data root"
            )

    def _open(self, request: SeriesRequest, proposal: str, frame_bytes: int) -> None:
        folder = RunFolder.of(self._data_root, proposal, request.run_uid).create()
        self._ledger = RunLedger(folder.ledger, create=True)
        self._ledger.set_state(RunState.ACQUIRING)
        settings = self._settings
        self._spool = Spool(folder.raw, request, codec=settings.codec, channels=settings.channels)
        self._ring.shape_for(frame_bytes)
        self._books = {}
        self._failure = None

    def _state(self, run_uid: str, stream: str) -> dict[str, Any]:
        if self._failure is not None:
            raise self._failure
        series = self._series
        books = self._books.get(stream, SeriesBooks())
        if series is None or (series.request.run_uid, series.request.stream) != (run_uid, stream):
            return {"written": books.written, "ended": True, "readable": books.expected}
        return {
            "written": books.written + len(series.seen),
            "readable": series.first_index + series.contiguous,
            "ended": series.complete or series.ended,
            "complete": series.complete,
            "expected": series.request.num_frames,
        }

    def _end_series(self) -> None:
        series = self._series
        if series is None:
            return
        self._drain_frames()
        self._flush()
        stream = series.request.stream
        self._series = None
        self._books[stream] = series.add_to(self._books.get(stream, SeriesBooks()))
        if self._ledger is not None:
            self._ledger.set_books(stream, self._books[stream])
        if not series.complete:
            logger.warning(
                "series %d (%s): %d of %d frames are missing",
                series.number,
                stream,
                len(series.missing),
                series.request.num_frames,
            )

    def _close_run(self, run_uid: str) -> dict[str, Any]:
        if self._spool is None or self._spool.request.run_uid != run_uid:
            return {"books": FrameBooks().to_dict()}
        try:
            self._end_series()
        finally:
            # Also when the disk is full: the next run starts with a spool of its own.
            self._close_spool()
        return {"books": FrameBooks(dict(self._books)).to_dict()}

    def _close_spool(self) -> None:
        spool, ledger = self._spool, self._ledger
        self._spool = self._ledger = self._series = None
        with contextlib.ExitStack() as stack:
            if ledger is not None:
                stack.callback(ledger.close)
            if spool is not None:
                stack.callback(spool.close)

    def close(self) -> None:
        """Close the spool and the sockets; what arrived is kept."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._context.term)
            stack.callback(self._control.close)
            stack.callback(self._frames.close, 0)
            stack.callback(self._close_spool)
            self._end_series()
