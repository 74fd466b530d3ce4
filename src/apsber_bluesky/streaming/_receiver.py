"""The receiver: the only reader of a detector's frame port.

It checks and numbers frames, has them written to spool and ring, and accounts for every one. This
thread reads the sockets and keeps the books, so there is one order of events; another writes.
Consumers and the plan ask over a control socket, and it waits for none of them.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import zmq

from apsber_bluesky.core import (
    MAXIMUM_FRAMES,
    ApsberError,
    FrameBooks,
    FrameError,
    RunLedger,
    SeriesBooks,
    SeriesRequest,
    ServiceError,
    StorageError,
    StreamingSettings,
    find_run,
    format_ranges,
)
from apsber_bluesky.streaming._disk_space import check_space
from apsber_bluesky.streaming._frame_flow import FrameFlow
from apsber_bluesky.streaming._health import ReceiverHealth, time_until_full_s
from apsber_bluesky.streaming._messages import (
    MAXIMUM_MESSAGE_BYTES,
    bound_address,
    pack_message,
    unpack_message,
)
from apsber_bluesky.streaming._received_run import ReceivedRun, own_books
from apsber_bluesky.streaming._receiver_state import ReceiverState, forget_state
from apsber_bluesky.streaming._ring import FrameRing

logger = logging.getLogger(__name__)

_TURN_MESSAGES: Final = 16
_POLL_MS: Final = 50
_COUNTS: Final = ("expected", "received", "written", "duplicated", "refused", "decoded")


class Receiver:
    """Receive the frames of one detector.

    Parameters
    ----------
    frame_address : str
        Where the detector publishes frames; several addresses are separated by commas.
    data_root : Path
        Folder below which runs are kept.
    ring : FrameRing
        Where consumers find the newest frames.
    settings : StreamingSettings
        What the detector speaks, and how many frames may wait.
    report : callable
        Called with (run uid, stream, received, expected) when more frames are on disk.
    warn : callable
        Called with (run uid, text) when something is wrong with the frames of a run.
    control_address : str
        Where to listen for `ReceiverClient`.
    state_file : Path, optional
        Remembers the run that is being received; a receiver that finds one there goes on with it.
    largest_message : int, optional
        Refuse larger messages [byte].
    detector : str
        Name of the detector, if it has this receiver for itself.
    on_series : callable
        Called with the number and the request of a series that is armed, and with None when it is
        over.

    Attributes
    ----------
    control_address : str
        Where `ReceiverClient` connects.

    Raises
    ------
    ConfigurationError
        If `frame_address` is no address.
    ServiceError
        If `control_address` is taken.
    """

    def __init__(
        self,
        frame_address: str,
        data_root: Path,
        ring: FrameRing,
        *,
        settings: StreamingSettings | None = None,
        report: Callable[[str, str, int, int], None] = lambda *_: None,
        warn: Callable[[str, str], None] = lambda *_: None,
        control_address: str = "tcp://127.0.0.1:*",
        state_file: Path | None = None,
        largest_message: int | None = None,
        detector: str = "",
        on_series: Callable[[tuple[int, SeriesRequest] | None], None] = lambda _: None,
    ) -> None:
        self._data_root = data_root
        self._ring = ring
        self._settings = settings or StreamingSettings()
        self._state_file = state_file
        self._detector = detector
        self._on_series = on_series
        self._run: ReceivedRun | None = None
        self._closed: tuple[str, FrameBooks] = ("", FrameBooks())
        self._given_up: tuple[str, ApsberError | None] = ("", None)
        self._series_count = 0
        self._last_stream = ""
        with contextlib.ExitStack() as stack:
            context = zmq.Context()
            stack.callback(context.term)
            self._control = self._listen(context, control_address)
            stack.callback(self._control.close)
            self.control_address = bound_address(self._control)
            self._flow = FrameFlow(
                context,
                frame_address,
                ring,
                self._settings,
                report=report,
                warn=warn,
                largest_message=largest_message,
            )
            stack.callback(self._flow.close)
            if state_file is not None:
                self._resume(state_file)
            self._stack = stack.pop_all()

    @staticmethod
    def _listen(context: zmq.Context[Any], address: str) -> zmq.Socket[bytes]:
        control: zmq.Socket[bytes] = context.socket(zmq.REP)
        control.maxmsgsize = MAXIMUM_MESSAGE_BYTES
        control.linger = 500
        try:
            control.bind(address)
        except zmq.ZMQError as error:
            control.close()
            raise ServiceError(
                f"the receiver cannot listen at {address}: {error.strerror}"
            ) from error
        return control

    def _resume(self, state_file: Path) -> None:
        state = None
        try:
            state = ReceiverState.load(state_file)
            if state is None:
                return
            run = ReceivedRun.resume(self._data_root, state, self._settings, state_file)
        except ApsberError as error:
            # Its frames so far are on disk, and the plan is told when it asks for more.
            logger.exception("cannot go on with the run that was being received")
            if state is not None:
                self._given_up = (state.run_uid, error)
            forget_state(state_file)
            return
        self._run, self._series_count = run, run.state.series_count
        self._flow.begin_run(run)
        if run.series is not None:
            self._begin_series(run)
            self._flow.tell(f"the receiver was started again in series {self._series_count}")

    def serve(self, should_stop: Callable[[], bool]) -> None:
        """Receive until told to stop."""
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        while not should_stop():
            self._flow.watch(poller)
            ready = dict(poller.poll(_POLL_MS))
            self._flow.receive(_TURN_MESSAGES)
            self._flow.settle()
            if self._control in ready:
                self._control.send(pack_message(self._answer(self._control.recv())))

    def _answer(self, packed: bytes) -> dict[str, Any]:
        try:
            answer = self._dispatch(unpack_message(packed))
        except ApsberError as error:
            return {"type": "error", "error": type(error).__name__, "message": str(error)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return {"type": "error", "error": "ServiceError", "message": f"bad request: {error!r}"}
        return {"type": "answer", **answer}

    def _dispatch(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["type"]:
            case "arm":
                series = SeriesRequest(**request["request"])
                return self._arm(series, request["proposal"], request.get("id", ""))
            case "state":
                return self._state(request["run_uid"], request["stream"])
            case "interrupt":
                if self._run is not None and self._run.uid == request["run_uid"]:
                    self._flow.interrupt(self._run)
                return {}
            case "missing":
                return self._missing(**{k: v for k, v in request.items() if k != "type"})
            case "give_up":
                if self._run is not None and self._run.uid == request["run_uid"]:
                    self._run.give_up(request["stream"])
                return {}
            case "curtail":
                return {"planned": self._curtail(request["run_uid"], request["stream"])}
            case "end_series":
                self._end_series()
                return {}
            case "close_run":
                return self._close_run(request["run_uid"])
            case "health":
                return {"health": self.health().to_dict()}
            case kind:
                raise FrameError(f"the receiver knows no request {kind!r}")

    def _arm(self, request: SeriesRequest, proposal: str, arm_id: str = "") -> dict[str, Any]:
        run = self._run
        if arm_id and run is not None and run.series is not None and run.state.arm_id == arm_id:
            # The client repeats what it got no answer to.
            return run.ticket()
        self._end_series()
        if run is not None and run.uid != request.run_uid:
            logger.warning("run %s was never closed", run.uid)
            self._close()
        settings = self._settings
        needed = request.num_frames * request.frame_bytes * settings.channels
        check_space(self._data_root, needed)
        if request.detector != self._detector:
            raise FrameError(
                f"the receiver of {self._detector or 'all detectors'} was asked for frames of"
                f" {request.detector or 'no detector'}; see streaming.detectors of the profile"
            )
        if self._run is None:
            self._run = ReceivedRun.create(
                self._data_root, proposal, request, settings, self._state_file
            )
            self._flow.begin_run(self._run)
        self._run.arm(request, self._series_count + 1, arm_id)
        self._series_count += 1
        self._begin_series(self._run)
        self._on_series((self._series_count, request))
        return self._run.ticket()

    def _begin_series(self, run: ReceivedRun) -> None:
        if run.series is not None:
            self._last_stream = run.series.request.stream
            self._flow.begin_series(run.series)

    def _state(self, run_uid: str, stream: str) -> dict[str, Any]:
        run, (lost_uid, error) = self._run, self._given_up
        if error is not None and run_uid == lost_uid:
            raise error
        if run is None or run.uid != run_uid:
            books = self._closed_books(run_uid).streams.get(stream, SeriesBooks())
            return {"written": books.written, "ended": True, "readable": books.expected}
        if run.failure is not None:
            raise run.failure
        books, series = run.books.get(stream, SeriesBooks()), run.series
        readable = run.readable(stream)
        if series is None or series.request.stream != stream:
            return {"written": books.written, "ended": True, "readable": readable}
        settled = self._flow.backlog == 0
        return {
            "written": books.written + len(series.written - series.kept),
            "readable": readable,
            "ended": series.complete or (series.ended and settled),
            "complete": series.complete,
            "expected": series.request.num_frames,
        }

    def _missing(self, run_uid: str, stream: str, first: int, count: int) -> dict[str, Any]:
        run = self._run
        if not 0 <= first <= first + count <= MAXIMUM_FRAMES:
            raise FrameError(f"frames {first} to {first + count} of a stream cannot be")
        if run is None or run.uid != run_uid:
            absent = list(range(first, first + count))
        else:
            absent = run.missing(stream, first, count)
        return {"missing": format_ranges(absent)}

    def _end_series(self) -> None:
        if self._run is not None:
            if self._run.series is not None:
                self._on_series(None)
            self._flow.end_series(self._run)

    def _curtail(self, run_uid: str, stream: str) -> int:
        if self._run is None or self._run.uid != run_uid:
            return 0
        # What is on its way is of no use any more, and its absence no fault.
        self._flow.interrupt(self._run)
        self._end_series()
        return self._run.curtail(stream)

    def _close_run(self, run_uid: str) -> dict[str, Any]:
        run = self._run
        if run is None or run.uid != run_uid:
            return {"books": self._closed_books(run_uid).to_dict()}
        try:
            self._end_series()
        finally:
            # Also when the disk is full: the next run starts with a spool of its own.
            self._close()
        return {"books": self._closed[1].to_dict()}

    def _closed_books(self, run_uid: str) -> FrameBooks:
        """The books of a run that is closed, for a client that asks again."""
        if run_uid == self._closed[0]:
            return self._closed[1]
        try:
            with RunLedger(find_run(self._data_root, run_uid).ledger) as ledger:
                return own_books(ledger.books, self._detector)
        except StorageError:
            # Never begun: then there are no books.
            return FrameBooks()

    def _close(self) -> None:
        run, self._run = self._run, None
        self._flow.end_run()
        if run is not None:
            self._closed = (run.uid, FrameBooks(dict(run.books)))
            run.close()

    def health(self) -> ReceiverHealth:
        """How the receiver is doing now."""
        run, ring = self._run, self._ring
        frames_hz, mb_s = self._flow.counter.rates()
        disk = shutil.disk_usage(self._data_root) if self._data_root.is_dir() else None
        free = float(disk.free) if disk else 0.0
        values: dict[str, Any] = {
            "frame_rate_hz": frames_hz,
            "data_rate_mb_s": mb_s,
            "silent_s": self._flow.counter.silent_s(),
            "backlog_frames": self._flow.backlog,
            "ring_slots": ring.slots,
            "ring_fill": ring.fill,
            "spool_free_gb": free / 1e9,
            "spool_size_gb": disk.total / 1e9 if disk else 0.0,
            "spool_free_s": time_until_full_s(free, mb_s),
        }
        if run is not None:
            values |= self._run_health(run)
        return ReceiverHealth(**values)

    def _run_health(self, run: ReceivedRun) -> dict[str, Any]:
        stream, request = self._last_stream, run.state.first_request
        books = run.books.get(stream, SeriesBooks())
        values: dict[str, Any] = {
            "run_uid": run.uid,
            "stream": stream,
            "rows": request.rows,
            "columns": request.columns,
            "dtype": request.dtype,
            "failure": str(run.failure or ""),
            "armed": run.series is not None,
        }
        counts = {name: int(getattr(books, name)) for name in _COUNTS}
        counts["missing"] = books.num_missing
        if run.series is not None:
            # Not the books of the series: they name its missing frames, which takes longer.
            series = run.series
            for name, count in series.counts().items():
                counts[name] += count
            newest = series.newest_decoded
            values["newest"] = series.first_index + newest if newest >= 0 else -1
        return values | counts | {"decode_pending": self._flow.decode_pending}

    def close(self) -> None:
        """Close the spool and the sockets; what arrived is kept."""
        with self._stack:
            try:
                self._end_series()
            finally:
                self._close()
