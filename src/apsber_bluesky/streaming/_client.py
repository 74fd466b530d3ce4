"""The receiver as a camera sees it, across processes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import zmq

from apsber_bluesky import core
from apsber_bluesky.core import (
    DEFAULT_PROPOSAL,
    ApsberError,
    FrameBooks,
    RunDescription,
    SeriesRequest,
    SeriesTicket,
    ServiceError,
    parse_ranges,
)
from apsber_bluesky.streaming._health import ReceiverHealth
from apsber_bluesky.streaming._messages import pack_message, unpack_message

_POLL_S: Final = 0.02
_REPEAT_S: Final = 2.0


class ReceiverClient:
    """Ask the receiver process; implements `apsber_bluesky.core.FrameReceiver`.

    Parameters
    ----------
    address : str
        Control address of the receiver.
    timeout_s : float
        How long an answer may take [s].
    """

    def __init__(self, address: str, *, timeout_s: float = 10.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._context = zmq.Context()
        self._lock = threading.Lock()
        self._socket = self._connect()
        self._proposal: dict[str, str] = {}

    def _connect(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.REQ)
        socket.linger = 0
        socket.connect(self._address)
        return socket

    def _ask(self, **request: Any) -> dict[str, Any]:
        packed, deadline = pack_message(request), time.monotonic() + self._timeout_s
        with self._lock:
            while True:
                self._socket.send(packed)
                left_s = max(deadline - time.monotonic(), 0.0)
                if self._socket.poll(int(min(left_s, _REPEAT_S) * 1000)):
                    break
                # A REQ socket that got no answer can ask no more. The receiver may have died and
                # been started again at the same address: each request may safely be repeated.
                self._socket.close()
                self._socket = self._connect()
                if left_s <= _REPEAT_S:
                    raise ServiceError(
                        f"the frame receiver at {self._address} did not answer"
                        f" {request['type']!r} within {self._timeout_s} s; see its log"
                    )
            answer = unpack_message(self._socket.recv())
        if answer["type"] == "error":
            kind = getattr(core, str(answer["error"]), ApsberError)
            raise kind(str(answer["message"]))
        return answer

    def begin_run(self, run: RunDescription) -> None:
        """Remember which proposal the run belongs to; it names the folder of its spool."""
        self._proposal = {run.uid: run.proposal}

    def arm(self, request: SeriesRequest) -> SeriesTicket:
        """Get ready for a series; frames that arrive from now on belong to it.

        Raises
        ------
        StorageError
            If there is no room for the frames or the place cannot be written.
        """
        proposal = self._proposal.get(request.run_uid, DEFAULT_PROPOSAL)
        answer = self._ask(
            type="arm", request=request.to_dict(), proposal=proposal, id=uuid.uuid4().hex
        )
        return SeriesTicket(
            uri=answer["uri"],
            dataset=answer["dataset"],
            first_index=answer["first_index"],
            series=answer["series"],
        )

    def written(self, run_uid: str, stream: str) -> int:
        """Frames of the stream, from the first on without a gap, that are readable on disk."""
        return int(self._ask(type="state", run_uid=run_uid, stream=stream)["readable"])

    def health(self) -> ReceiverHealth:
        """How the receiver is doing now.

        Raises
        ------
        ServiceError
            If it does not answer.
        """
        return ReceiverHealth.from_dict(self._ask(type="health")["health"])

    def interrupt(self, run_uid: str) -> None:
        """Use nothing of the series that comes from now on, nor what came just before.

        The frames so far stay; see ``streaming.retake_s``.
        """
        self._ask(type="interrupt", run_uid=run_uid)

    def missing(self, run_uid: str, stream: str, first: int, count: int) -> list[int]:
        """Which of `count` frames of a stream, from index `first` on, are not on disk."""
        answer = self._ask(type="missing", run_uid=run_uid, stream=stream, first=first, count=count)
        return parse_ranges(answer["missing"])

    def give_up(self, run_uid: str, stream: str) -> None:
        """Frames of the stream that are missing will not be asked for again."""
        self._ask(type="give_up", run_uid=run_uid, stream=stream)

    def curtail(self, run_uid: str, stream: str) -> int:
        """End the series that is armed, and its stream behind the last frame on disk.

        What was planned beyond is expected no more. Frames that come later are refused.

        Returns
        -------
        int
            Places that the stream has now.
        """
        return int(self._ask(type="curtail", run_uid=run_uid, stream=stream)["planned"])

    def finish(
        self,
        run_uid: str,
        stream: str,
        *,
        timeout_s: float,
        given_up: Callable[[], bool] = lambda: False,
    ) -> int:
        """Wait for the end of the series and enter it in the books.

        Parameters
        ----------
        run_uid, stream : str
            The series that is armed.
        timeout_s : float
            How long no new frame may come [s] before the rest is given up as missing.
        given_up : callable
            Asked now and then; when it is true the series is left as it is.

        Returns
        -------
        int
            Frames of the stream that are on disk.
        """
        written, since = -1, time.monotonic()
        while True:
            state = self._ask(type="state", run_uid=run_uid, stream=stream)
            if state["written"] != written:
                written, since = int(state["written"]), time.monotonic()
            if state["ended"] or time.monotonic() - since > timeout_s:
                break
            if given_up():
                return written
            time.sleep(_POLL_S)
        self._ask(type="end_series")
        return int(self._ask(type="state", run_uid=run_uid, stream=stream)["written"])

    def close_run(self, run_uid: str) -> FrameBooks:
        """Close the spool of a run and return its books."""
        return FrameBooks.from_dict(self._ask(type="close_run", run_uid=run_uid)["books"])

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            self._socket.close()
            self._context.term()
