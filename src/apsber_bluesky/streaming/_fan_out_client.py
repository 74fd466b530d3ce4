"""The consumer's end of the fan-out: frames in order, exactly once, through any interruption."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import xxhash
import zmq
from numpy.typing import NDArray
from zmq.utils.monitor import parse_monitor_message

from apsber_bluesky.core import (
    ConfigurationError,
    FrameError,
    ServiceError,
    StreamName,
    check_folder_name,
)
from apsber_bluesky.streaming import _fan_out_wire as wire
from apsber_bluesky.streaming._keys import KeyPair
from apsber_bluesky.streaming._series_messages import MAXIMUM_FRAME_BYTES

logger = logging.getLogger(__name__)

_PING_S: Final = 1.0
_MAXIMUM_BAD_CHECKSUMS: Final = 3
_HANDSHAKES: Final = 3
_SESSION_BITS: Final = 62
_REFUSALS: Final = {
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "it does not allow this key",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "it uses no CURVE, but keys were given",
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): (
        "its public key is not the one that was given, or it uses no CURVE"
    ),
}


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs to reach a server that uses CURVE.

    Attributes
    ----------
    own : KeyPair
        Its own keys; the server must allow the public one.
    server : bytes
        Public key of the server, Z85.
    """

    own: KeyPair
    server: bytes


class FanOutClient:
    """Iterate over the frames of a stream, ``(index, frame)``, in order and exactly once.

    A frame is acknowledged when the next one is asked for. Its array is overwritten `slots` frames
    later; copy what must last. A frame in hand when the iteration is left comes again in the next.

    Parameters
    ----------
    address : str
        Where the `FanOut` is.
    run_uid : str
        Run to follow; ``"next"`` is the one that is open, or else the next one to open.
    stream : {"primary", "flats", "darks"}
        Its stream.
    next_index : int
        First frame that is wanted. A consumer that starts again after it was killed says here what
        it has not got on its own disk yet.
    credit : int
        Frames that may be under way; 4 fill a fast line.
    slots : int
        Frames that stay valid at a time.
    name : str or None
        Name of the consumer, unlike that of any other; a new one replaces an old one at once. One
        is made up if not given.
    keys : ClientKeys or None
        For a server that uses CURVE.
    silence_s : float
        The server is asked again after it was silent for so long [s].
    patience_s : float
        How long the server may be away, or not know the run [s].

    Attributes
    ----------
    start : Start or None
        What the frames are, once the server has said so.
    end : End or None
        How the run ended, and which of its frames are missing.
    next_index : int
        Everything below has been acknowledged.
    reconnects : int
        How often it had to begin anew.

    Raises
    ------
    ConfigurationError
        If the address is none.
    InputError
        If the name is none.
    """

    def __init__(
        self,
        address: str,
        run_uid: str = wire.NEXT_RUN,
        stream: StreamName = "primary",
        *,
        next_index: int = 0,
        credit: int = 4,
        slots: int = 2,
        name: str | None = None,
        keys: ClientKeys | None = None,
        silence_s: float = 10.0,
        patience_s: float = 60.0,
    ) -> None:
        self.start: wire.Start | None = None
        self.end: wire.End | None = None
        self.next_index = next_index
        self.reconnects = 0
        self._address, self._run_uid, self._stream = address, run_uid, stream
        self._credit, self._num_slots, self._keys = credit, slots, keys
        self._name = check_folder_name(name or f"consumer-{secrets.token_hex(8)}", "client name")
        self._silence_s, self._patience_s = silence_s, patience_s
        self._ping_s = min(_PING_S, silence_s / 4, patience_s / 4)
        self._skipped: list[tuple[int, int]] = []
        self._slots: NDArray[Any] | None = None
        self._slot = 0
        self._bad = self._handshakes = 0
        self._context = zmq.Context()
        try:
            self._connect()
        except zmq.ZMQError as error:
            self._disconnect()
            self._context.term()
            raise ConfigurationError(
                f"cannot connect to {address!r}: {error.strerror}; give an address like"
                " 'tcp://beamline:5556'"
            ) from error
        self._alive_s = self._known_s = time.monotonic()

    def _connect(self) -> None:
        socket = self._socket = self._context.socket(zmq.DEALER)
        socket.linger = 500
        # Credit bounds what comes in. A limit here would also hold up the answers to heartbeats.
        socket.rcvhwm = 0
        socket.maxmsgsize = max(MAXIMUM_FRAME_BYTES, wire.MAXIMUM_ANSWER_BYTES)
        socket.setsockopt(zmq.IDENTITY, self._name.encode())
        socket.heartbeat_ivl = 2000
        socket.heartbeat_timeout = 30_000
        if self._keys is not None:
            socket.curve_serverkey = self._keys.server
            socket.curve_publickey = self._keys.own.public
            socket.curve_secretkey = self._keys.own.secret
        self._monitor = socket.get_monitor_socket(sum(_REFUSALS))
        self._monitor.linger = 0
        socket.connect(self._address)
        self._greet()

    def _disconnect(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()

    def _greet(self) -> None:
        """Say hello; whatever an earlier hello still brings is known by its number."""
        self._session = secrets.randbits(_SESSION_BITS)
        self._sequence = 0
        self._expected = self.next_index
        self._heard_s = self._pinged_s = time.monotonic()
        self._send(
            wire.Hello(self._session, self._run_uid, self._stream, self.next_index, self._credit)
        )

    def _send(self, request: wire.Request) -> None:
        self._socket.send(wire.pack(request))

    def _begin_anew(self, why: str) -> None:
        logger.info("begin anew at frame %d: %s", self.next_index, why)
        self.reconnects += 1
        self._disconnect()
        self._connect()

    def __iter__(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Frames in order.

        Raises
        ------
        FrameError
            If frames do not arrive as announced.
        ServiceError
            If the server refuses, does not answer or does not know the run.
        """
        if self._expected != self.next_index:
            # An iteration was left with a frame in hand, and what is under way lies behind it.
            self._greet()
        while self.end is None:
            found = self._receive()
            if found is None:
                continue
            yield found
            index = found[0]
            self._skip_to(index)
            self.next_index = index + 1
            self._send(wire.Acknowledge(self._session, self.next_index))
            # While the consumer had the frame nobody asked the server for anything.
            self._heard_s = self._alive_s = time.monotonic()

    def _skip_to(self, index: int) -> None:
        if index > self.next_index:
            self._skipped.append((self.next_index, index))

    def _receive(self) -> tuple[int, NDArray[Any]] | None:
        """The next frame; None when something else came, or nothing for a while."""
        if not self._socket.poll(int(self._ping_s * 1000)):
            self._idle()
            return None
        answer = wire.parse_answer(self._socket.recv())
        self._heard_s = self._alive_s = time.monotonic()
        self._handshakes = 0
        if answer.session not in (0, self._session):
            self._discard()
            return None
        if isinstance(answer, wire.Problem):
            self._fail(answer)
            return None
        if isinstance(answer, wire.Pong):
            self._hear_pong(answer)
            return None
        if answer.sequence != self._sequence:
            self._discard()
            self._begin_anew(f"message {self._sequence} was lost on the way")
            return None
        self._sequence += 1
        match answer:
            case wire.Start():
                self._begin(answer)
            case wire.FrameHeader():
                return self._take(answer)
            case wire.End():
                self._finish(answer)
        return None

    def _discard(self) -> None:
        while self._socket.rcvmore:
            self._socket.recv(copy=False)

    def _idle(self) -> None:
        now = time.monotonic()
        self._check_refusal()
        if now - self._alive_s > self._patience_s:
            raise ServiceError(
                f"no answer from the fan-out at {self._address} for {self._patience_s} s; is it"
                " running?"
            )
        if now - self._heard_s > self._silence_s:
            self._begin_anew("the server is silent")
        elif now - self._pinged_s >= self._ping_s:
            self._pinged_s = now
            self._send(wire.Ping(self._session))

    def _check_refusal(self) -> None:
        while self._monitor.poll(0):
            event = int(parse_monitor_message(self._monitor.recv_multipart())["event"])
            self._handshakes += 1
            # A server that is just going away looks like one with another key, but not each time.
            if event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL or self._handshakes >= _HANDSHAKES:
                why = _REFUSALS[event] if self._keys else "it uses CURVE, but no keys were given"
                raise ServiceError(f"the fan-out at {self._address} refused the connection: {why}")

    def _fail(self, problem: wire.Problem) -> None:
        if problem.code == "unknown-session":
            self.reconnects += 1
            self._greet()
            return
        raise ServiceError(f"the fan-out at {self._address}: {problem.code}: {problem.message}")

    def _hear_pong(self, pong: wire.Pong) -> None:
        now = time.monotonic()
        if pong.sequence > self._sequence:
            self._begin_anew(f"messages up to {pong.sequence} were lost on the way")
        elif pong.known or self._run_uid == wire.NEXT_RUN:
            self._known_s = now
        elif now - self._known_s > self._patience_s:
            raise ServiceError(
                f"the fan-out at {self._address} has known no run {self._run_uid!r} for"
                f" {self._patience_s} s; is it a run of this beamline, and recent?"
            )

    def _begin(self, start: wire.Start) -> None:
        known = self.start
        if known is None:
            shape = (self._num_slots, start.rows, start.columns)
            # Touched now: the first touch of a page costs many times a copy.
            self._slots = np.full(shape, 0, start.dtype)
        elif (start.run_uid, start.dtype, start.rows, start.columns) != (
            known.run_uid,
            known.dtype,
            known.rows,
            known.columns,
        ):
            raise FrameError(f"the server began with {known} and now offers {start}")
        if self._run_uid not in (wire.NEXT_RUN, start.run_uid) or start.stream != self._stream:
            raise FrameError(f"asked for {self._run_uid} {self._stream}, was offered {start}")
        self.start, self._run_uid = start, start.run_uid

    def _take(self, header: wire.FrameHeader) -> tuple[int, NDArray[Any]] | None:
        if self._slots is None or not self._socket.rcvmore or header.index < self._expected:
            raise FrameError(f"frame {header.index} where {self._expected} or a later one was due")
        frame = self._slots[self._slot]
        target = memoryview(frame.reshape(-1).view(np.uint8))
        size = self._socket.recv_into(target)
        if size != len(target) or self._socket.rcvmore:
            raise FrameError(f"frame {header.index} has {size} bytes instead of {len(target)}")
        if xxhash.xxh3_64_intdigest(target) != header.checksum:
            self._bad += 1
            if self._bad >= _MAXIMUM_BAD_CHECKSUMS:
                raise FrameError(f"frame {header.index} does not match its checksum, repeatedly")
            self._begin_anew(f"frame {header.index} does not match its checksum")
            return None
        self._bad = 0
        self._expected = header.index + 1
        self._slot = (self._slot + 1) % self._num_slots
        return header.index, frame

    def _finish(self, end: wire.End) -> None:
        if sum(stop - begin for begin, stop in end.missing) != end.num_missing:
            raise FrameError(f"{end.num_missing} frames are missing, more than could be named")
        self._skip_to(end.num_frames)
        for skipped in self._skipped:
            if not any(begin <= skipped[0] and skipped[1] <= stop for begin, stop in end.missing):
                raise FrameError(
                    f"frames {skipped[0]} to {skipped[1]} (excluded) neither came nor were named"
                )
        self._send(wire.Bye(self._session))
        self.end = end

    @property
    def missing(self) -> list[int]:
        """Frames of the stream that are missing, once the run has ended."""
        if self.end is None:
            return []
        return [i for begin, stop in self.end.missing for i in range(begin, stop)]

    def close(self) -> None:
        """Close the connection; frames not acknowledged can be asked for again."""
        if not self._socket.closed:
            self._disconnect()
            self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
