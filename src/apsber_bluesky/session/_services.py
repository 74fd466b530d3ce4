"""Processes that the session starts, talks to and stops by their own handles."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import ServiceError

_STOP_TIMEOUT_S: Final = 8.0
_POLL_S: Final = 0.1
_LOG_TAIL_LINES: Final = 8
_LONGEST_QUOTE: Final = 200
_ENVIRONMENT: Final = {
    # Work is spread over slices; threads inside a transform would only compete.
    "OMP_NUM_THREADS": "1",
    # The Tiled client would try for most of a minute; what waits for the catalogue lies on disk.
    "TILED_RETRY_ATTEMPTS": "3",
    "TILED_RETRY_TIMEOUT": "5",
}


class ServiceProcess:
    """One process of a session.

    It is started at once, so that its imports run beside those of the others; `configure` sends
    its settings when they are known and `wait_ready` waits until it serves. It lives in a process
    group of its own, so that Ctrl-C reaches it only through the session, and the kernel ends it
    when the session's process ends.

    Parameters
    ----------
    name : str
        For messages and the name of the log.
    module : sequence of str
        What to run: ``python -m <module>``.
    log : Path
        File that takes its standard error.
    descriptors : sequence of int
        File descriptors that it inherits.
    """

    def __init__(
        self, name: str, module: Sequence[str], log: Path, descriptors: Sequence[int] = ()
    ) -> None:
        self.name = name
        self.log = log
        self.answer: dict[str, Any] = {}
        with log.open("ab") as stream, _without_interrupts():
            self._process = subprocess.Popen(  # noqa: S603 - our own modules
                [sys.executable, "-m", *module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                start_new_session=True,
                pass_fds=tuple(descriptors),
                env={**os.environ, **_ENVIRONMENT},
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How it ended; None while it lives."""
        return self._process.poll()

    def configure(self, settings: dict[str, Any]) -> None:
        """Send the settings; plain JSON values."""
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            raise ServiceError(f"{self.name} was configured already")
        line = json.dumps({"parent_pid": os.getpid(), **settings}) + "\n"
        try:
            with stdin:
                stdin.write(line.encode())
        except BrokenPipeError as error:
            raise ServiceError(self._died()) from error

    def wait_ready(
        self, timeout_s: float, check: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Wait until the process serves.

        Parameters
        ----------
        timeout_s : float
            How long to wait [s].
        check : callable
            Called now and then; may raise to give up waiting.

        Returns
        -------
        dict
            What it said of itself, e.g. its address.

        Raises
        ------
        ServiceError
            If it says why it cannot, ends, or takes too long.
        """
        line = self._read_line(timeout_s, check)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            said = line[:_LONGEST_QUOTE]
            raise ServiceError(f"{self.name} said {said!r} instead of ready (log: {self.log})")
        if not answer.get("ready"):
            raise ServiceError(str(answer.get("error", f"{self.name} did not start")))
        self.answer = answer
        return self.answer

    def _read_line(self, timeout_s: float, check: Callable[[], None]) -> bytes:
        stdout = self._process.stdout
        if stdout is None:
            raise ServiceError(f"{self.name} has no standard output")
        deadline = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            check()
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{self.name} was not ready after {timeout_s:g} s; see {self.log}"
                )
            ready, _, _ = select.select([stdout], [], [], _POLL_S)
            if not ready:
                continue
            block = os.read(stdout.fileno(), 65536)
            if not block:
                raise ServiceError(self._died())
            line += block
        return line

    def _died(self) -> str:
        try:
            code = self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return (
                f"{self.name} no longer talks to the session, although it runs:"
                f" {self.log_tail()} (log: {self.log})"
            )
        return f"{self.name} ended with status {code}: {self.log_tail()} (log: {self.log})"

    def log_tail(self) -> str:
        """The last lines of its log, on one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-_LOG_TAIL_LINES:]) or "no message"

    def check(self) -> None:
        """Raise if the process has ended.

        Raises
        ------
        ServiceError
            If so, with the end of its log.
        """
        if not self.is_running:
            raise ServiceError(self._died())

    def stop(self) -> None:
        """End the process, with force if it does not end by itself."""
        process = self._process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back while a process is made, until it has left the terminal's group.

    It inherits that, too, which is as well: the processes of a session leave Ctrl-C to it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
