"""The server's side of the fan-out: sessions, what they may have, and what they are sent.

One thread owns it all.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import xxhash
import zmq
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, FrameError, FrameRange, RunDescription
from apsber_bluesky.streaming import _fan_out_wire as wire
from apsber_bluesky.streaming._fan_out_runs import FanOutRun

logger = logging.getLogger(__name__)

_REQUESTS_PER_TURN: Final = 256
_LOGGED_REFUSALS: Final = 20

Read = Callable[[FrameRange], NDArray[Any]]
Missing = Callable[[FrameRange], Collection[int]]


@dataclass(frozen=True, slots=True)
class FanOutLimits:
    """What clients may take of the server.

    Attributes
    ----------
    clients : int
        Consumers at a time.
    credit : int
        Frames under way to one of them, whatever it asked for.
    credit_bytes : int
        The same in bytes; one frame always may be.
    silence_s : float
        A client that has said nothing for so long is forgotten [s]; it may come back.
    runs : int
        Runs that can still be asked for; the oldest that has ended is forgotten first.
    """

    clients: int = 32
    credit: int = 64
    credit_bytes: int = 1 << 30
    silence_s: float = 600.0
    runs: int = 16


@dataclass(slots=True)
class _Session:
    hello: wire.Hello
    peer: str
    next: int
    run: FanOutRun | None = None
    started: bool = False
    ended: bool = False
    sequence: int = 0
    in_flight: deque[int] = field(default_factory=deque)
    heard_s: float = field(default_factory=time.monotonic)

    def number(self) -> int:
        """The number of the next message in order."""
        self.sequence += 1
        return self.sequence - 1


class Distributor:
    """Answer clients and send them frames, never waiting for any.

    Parameters
    ----------
    router : zmq.Socket
        ROUTER socket, mandatory, that clients are connected to.
    read, missing : callable
        As `FanOut` has them.
    limits : FanOutLimits
        What clients may take.
    """

    def __init__(
        self, router: zmq.Socket[bytes], read: Read, missing: Missing, limits: FanOutLimits
    ) -> None:
        self._router = router
        self._read, self._missing = read, missing
        self._limits = limits
        self._runs: dict[str, FanOutRun] = {}
        self._sessions: dict[bytes, _Session] = {}
        self._refused = 0

    def clients(self) -> list[dict[str, Any]]:
        """Who is served, and how far."""
        return [_describe(session) for session in self._sessions.values()]

    def serve(self) -> bool:
        """Send one message to each client that may have one; whether any was sent."""
        self._forget_silent()
        # One frame to each in turn: nobody waits for more than that of the others.
        sent = [self._advance(who, session) for who, session in list(self._sessions.items())]
        return any(sent)

    def begin(self, description: RunDescription) -> None:
        """A run has opened."""
        run = FanOutRun(description)
        self._runs.pop(run.uid, None)
        followed = {id(session.run) for session in self._sessions.values()}
        for old in list(self._runs.values()):
            if len(self._runs) >= self._limits.runs and old.ended and id(old) not in followed:
                del self._runs[old.uid]
        self._runs[run.uid] = run

    def add(self, frames: FrameRange) -> None:
        """More frames of a run can be read."""
        run = self._runs.get(frames.run_uid)
        if run is None or frames.stream not in run.streams:
            logger.debug("frames of %s %s, which never began", frames.run_uid, frames.stream)
            return
        try:
            missing = self._missing(frames)
        except Exception:
            # Frames of which nobody knows whether they are real are not handed out as real, and
            # whatever the books may raise must not stop the frames of the other streams.
            logger.exception("%s %d to %d stay back", frames.stream, frames.start, frames.stop)
            return
        run.streams[frames.stream].add(frames, missing)

    def end(self, run_uid: str, exit_status: str, reason: str) -> None:
        """A run has closed."""
        run = self._runs.get(run_uid)
        if run is not None:
            run.outcome = (exit_status[:64], reason[:1024])

    def hear(self) -> None:
        """Answer what clients have sent."""
        for _ in range(_REQUESTS_PER_TURN):
            try:
                who, *parts = self._router.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            identity = who.bytes
            peer = str(parts[-1].get("Peer-Address")) if parts else "nobody"
            try:
                request = wire.parse_request([part.buffer for part in parts])
                self._answer(identity, peer, request)
            except FrameError as error:
                self._refused += 1
                if self._refused <= _LOGGED_REFUSALS:
                    logger.warning("refused a message of %s: %s", peer, error)
                self._send(identity, wire.Problem(0, "malformed", str(error)[:1024]))

    def _answer(self, identity: bytes, peer: str, request: wire.Request) -> None:
        if isinstance(request, wire.Hello):
            self._greet(identity, peer, request)
            return
        session = self._sessions.get(identity)
        if session is None or session.hello.session != request.session:
            text = f"session {request.session} is not known; say hello"
            self._send(identity, wire.Problem(request.session, "unknown-session", text))
            return
        session.heard_s = time.monotonic()
        match request:
            case wire.Acknowledge():
                if request.next > session.next:
                    raise FrameError(f"acknowledged {request.next}, sent below {session.next}")
                while session.in_flight and session.in_flight[0] < request.next:
                    session.in_flight.popleft()
            case wire.Ping():
                known = session.run is not None
                self._send(identity, wire.Pong(request.session, session.sequence, known))
            case wire.Bye():
                del self._sessions[identity]

    def _greet(self, identity: bytes, peer: str, hello: wire.Hello) -> None:
        if identity not in self._sessions and len(self._sessions) >= self._limits.clients:
            self._probe()
        if identity not in self._sessions and len(self._sessions) >= self._limits.clients:
            text = f"{self._limits.clients} clients are served already; try again later"
            self._send(identity, wire.Problem(hello.session, "too-many-clients", text))
            return
        self._sessions[identity] = _Session(hello, peer, hello.next)

    def _probe(self) -> None:
        """Find sessions whose client has gone: a ROUTER tells only when it is to send."""
        for identity, session in list(self._sessions.items()):
            known = session.run is not None
            self._send(identity, wire.Pong(session.hello.session, session.sequence, known))

    def _forget_silent(self) -> None:
        before = time.monotonic() - self._limits.silence_s
        for identity in [who for who, s in self._sessions.items() if s.heard_s < before]:
            logger.info("forgot %s, silent for too long", self._sessions[identity].peer)
            del self._sessions[identity]

    def _advance(self, identity: bytes, session: _Session) -> bool:
        """Send a client one message, if there is one for it and it has credit left."""
        run = session.run = session.run or self._find_run(session.hello.run_uid)
        if run is None or session.ended:
            return False
        stream, scan = run.streams[session.hello.stream], run.scan
        if not session.started:
            session.started = True
            start = wire.Start(
                session.hello.session,
                session.number(),
                run.uid,
                session.hello.stream,
                np.dtype(scan.dtype).str,
                scan.rows,
                scan.columns,
                stream.num_planned,
            )
            return self._send(identity, start)
        if not self._has_credit(session, run):
            return False
        frame = stream.find(session.next, ended=run.ended)
        if frame is not None:
            return self._send_frame(identity, session, run, frame)
        if run.outcome is None:
            return False
        session.ended = True
        missing = list(stream.missing())
        end = wire.End(
            session.hello.session,
            session.number(),
            stream.num_frames,
            sum(stop - begin for begin, stop in missing),
            [list(pair) for pair in missing[: wire.MAXIMUM_RANGES]],
            *run.outcome,
        )
        return self._send(identity, end)

    def _find_run(self, run_uid: str) -> FanOutRun | None:
        if run_uid != wire.NEXT_RUN:
            return self._runs.get(run_uid)
        return next((run for run in self._runs.values() if not run.ended), None)

    def _has_credit(self, session: _Session, run: FanOutRun) -> bool:
        scan, limits = run.scan, self._limits
        frame_bytes = scan.rows * scan.columns * np.dtype(scan.dtype).itemsize
        bound = min(session.hello.credit, limits.credit, limits.credit_bytes // frame_bytes)
        return len(session.in_flight) < max(bound, 1)

    def _send_frame(
        self, identity: bytes, session: _Session, run: FanOutRun, frame: FrameRange
    ) -> bool:
        try:
            pixels = np.ascontiguousarray(self._read(frame)[0])
            _check(pixels, run, frame)
        except Exception as error:
            # Whatever a source may raise must not stop the frames of the others.
            logger.exception("cannot read frame %d of %s", frame.start, frame.uri)
            text = f"frame {frame.start} cannot be read: {error}"[:1024]
            self._send(identity, wire.Problem(session.hello.session, "unreadable", text))
            self._sessions.pop(identity, None)
            return False
        session.next = frame.stop
        session.in_flight.append(frame.start)
        checksum = xxhash.xxh3_64_intdigest(pixels.data)
        number = session.number()
        header = wire.FrameHeader(session.hello.session, number, frame.start, checksum)
        return self._send(identity, header, pixels)

    def _send(
        self, identity: bytes, answer: wire.Answer, pixels: NDArray[Any] | None = None
    ) -> bool:
        """Send without waiting; whoever has gone, or does not listen, is forgotten."""
        parts: list[Any] = [identity, wire.pack(answer), *([] if pixels is None else [pixels])]
        try:
            self._router.send_multipart(parts, zmq.DONTWAIT, copy=False)
        except zmq.ZMQError as error:
            session = self._sessions.pop(identity, None)
            if session is not None:
                logger.info("client %s has gone: %s", session.peer, error.strerror)
            return False
        return True


def _check(pixels: NDArray[Any], run: FanOutRun, frame: FrameRange) -> None:
    scan = run.scan
    if pixels.shape != (scan.rows, scan.columns) or pixels.dtype != np.dtype(scan.dtype):
        raise DataFileError(
            f"frame {frame.start} of {frame.uri} is {pixels.dtype.str} {pixels.shape}, the run"
            f" takes {scan.dtype} {(scan.rows, scan.columns)}"
        )


def _describe(session: _Session) -> dict[str, Any]:
    return {
        "peer": session.peer,
        "run_uid": session.hello.run_uid if session.run is None else session.run.uid,
        "stream": session.hello.stream,
        "next": session.next,
        "acknowledged": session.in_flight[0] if session.in_flight else session.next,
        "sent": session.sequence,
        "ended": session.ended,
    }
