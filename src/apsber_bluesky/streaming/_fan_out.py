"""Lossless, in-order delivery of frames to remote consumers: credit, acknowledgement, replay.

A consumer has at most its credit of frames under way. Whatever it has not acknowledged can be read
again, from the ring or the spool, so no frame is kept here and nobody upstream ever waits.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import threading
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import zmq

from apsber_bluesky.core import (
    ConfigurationError,
    FrameRange,
    InputError,
    RunDescription,
)
from apsber_bluesky.streaming._authenticator import CurveAuthenticator
from apsber_bluesky.streaming._fan_out_distributor import (
    Distributor,
    FanOutLimits,
    Missing,
    Read,
)
from apsber_bluesky.streaming._fan_out_runs import missing_in_ledger
from apsber_bluesky.streaming._messages import bound_address

_POLL_MS: Final = 200
_HEARTBEAT_MS: Final = 2000
_HEARTBEAT_TIMEOUT_MS: Final = 30_000
_LINGER_MS: Final = 1000
#: Answers that may wait for a client that does not listen; its credit is far below.
_HIGH_WATER_MARK: Final = 1024
_MAXIMUM_PART_BYTES: Final = 64 << 10


class FanOut:
    """Hand the frames of runs to any number of remote consumers; a `core.FrameConsumer`.

    Parameters
    ----------
    read : callable
        Reads a `FrameRange` as `core.FrameSource.read` does; called in the fan-out's thread.
    address : str
        Where to bind, ``tcp://127.0.0.1:*`` for any free port of this machine alone.
    missing : callable
        Which of announced frames are missing after all; the receiver's books unless given.
    authenticator : CurveAuthenticator or None
        Who may connect. Without one, `address` must be of this machine alone.
    allow_plain : bool
        Whether everybody on the network may read the frames, unencrypted.
    limits : FanOutLimits
        What clients may take.

    Attributes
    ----------
    address : str
        The bound address.

    Raises
    ------
    ConfigurationError
        If `address` is no address, is taken, or is open to others without an authenticator.
    """

    def __init__(
        self,
        read: Read,
        address: str = "tcp://127.0.0.1:*",
        *,
        missing: Missing = missing_in_ledger,
        authenticator: CurveAuthenticator | None = None,
        allow_plain: bool = False,
        limits: FanOutLimits | None = None,
    ) -> None:
        check_open_address(address, secured=authenticator is not None or allow_plain)
        self._own_context = authenticator is None
        self._context = zmq.Context() if authenticator is None else authenticator.context
        self._router = self._bind(address, authenticator)
        self.address = bound_address(self._router)
        self._wake, self._woken = (self._context.socket(zmq.PAIR) for _ in range(2))
        self._woken.bind(f"inproc://fan-out-{id(self)}")
        self._wake.connect(f"inproc://fan-out-{id(self)}")
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._distributor = Distributor(self._router, read, missing, limits or FanOutLimits())
        self._thread = threading.Thread(target=self._serve, name="fan-out")
        self._thread.start()

    def _bind(self, address: str, authenticator: CurveAuthenticator | None) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.router_mandatory = True
        router.router_handover = True
        router.sndhwm = router.rcvhwm = _HIGH_WATER_MARK
        router.maxmsgsize = _MAXIMUM_PART_BYTES
        router.heartbeat_ivl = _HEARTBEAT_MS
        router.heartbeat_timeout = _HEARTBEAT_TIMEOUT_MS
        router.linger = _LINGER_MS
        if authenticator is not None:
            authenticator.secure(router)
        try:
            router.bind(address)
        except zmq.ZMQError as error:
            router.close(0)
            if self._own_context:
                self._context.term()
            raise ConfigurationError(
                f"cannot offer frames at {address!r}: {error.strerror}; give a free address like"
                " 'tcp://127.0.0.1:*'"
            ) from error
        return router

    def begin_run(self, run: RunDescription) -> None:
        """A run has opened; only tomography runs are handed out."""
        if run.tomography is not None:
            self._do(lambda: self._distributor.begin(run))

    def frames(self, frames: FrameRange) -> None:
        """More frames of the run can be read."""
        self._do(lambda: self._distributor.add(frames))

    def capture(self, run_uid: str, start: int, stop: int) -> None:
        """Consumers get all projections alike."""

    def end_run(self, run_uid: str, exit_status: str, reason: str) -> None:
        """The run has closed; what has not been announced by now is missing."""
        self._do(lambda: self._distributor.end(run_uid, exit_status, reason))

    def clients(self) -> list[dict[str, Any]]:
        """Who is served, and how far: ``peer run_uid stream next acknowledged sent ended``.

        Raises
        ------
        InputError
            If the fan-out has been closed.
        """
        answer: queue.SimpleQueue[list[dict[str, Any]]] = queue.SimpleQueue()
        self._do(lambda: answer.put(self._distributor.clients()))
        return answer.get()

    def _do(self, command: Callable[[], None] | None) -> None:
        with self._lock:
            if self._closed:
                raise InputError("the fan-out has been closed")
            self._closed = command is None
            self._commands.put(command)
            # One token that has not been taken yet wakes the loop as well as many.
            with contextlib.suppress(zmq.Again):
                self._wake.send(b"", zmq.DONTWAIT)

    def close(self) -> None:
        """Stop; what consumers have not got they can ask for when somebody serves it again."""
        with contextlib.suppress(InputError):
            self._do(None)
        self._thread.join()
        self._wake.close(0)
        if self._own_context:
            self._context.term()

    def _serve(self) -> None:
        distributor = self._distributor
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        busy = False
        try:
            while self._obey():
                ready = dict(poller.poll(0 if busy else _POLL_MS))
                if self._woken in ready:
                    self._woken.recv()
                if self._router in ready:
                    distributor.hear()
                busy = distributor.serve()
        finally:
            self._woken.close(0)
            self._router.close()

    def _obey(self) -> bool:
        """Do what other threads asked for; False when that was to stop."""
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return True
            if command is None:
                return False
            command()


def check_open_address(address: str, *, secured: bool) -> None:
    """Refuse to offer frames to a network without asking who reads them.

    Raises
    ------
    ConfigurationError
        If other machines can reach `address` and it is not `secured`.
    """
    parts = urlsplit(address)
    if secured or parts.scheme in ("ipc", "inproc"):
        return
    host = parts.netloc.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host != "localhost":
        raise ConfigurationError(
            f"anybody who reaches {address!r} could read the frames; give an authenticator (keys"
            " are made with 'apsber keys create'), or an address of this machine alone"
        )
