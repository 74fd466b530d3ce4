"""One decode worker, as the process that started it sees it."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from typing import IO

logger = logging.getLogger(__name__)

_END_TIMEOUT_S = 2.0


class DecodeProcess:
    """A decode worker and what it was asked.

    Parameters
    ----------
    ring_descriptor : int
        The ring's memory, which it inherits.

    Attributes
    ----------
    jobs : socket
        Takes jobs and gives results; it never blocks.
    outstanding : set of int
        Tags of the frames that it has been asked for.
    is_ready, is_ended : bool
        Whether it takes jobs; whether `end` was called.
    """

    def __init__(self, ring_descriptor: int) -> None:
        self.jobs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.jobs.setblocking(False)
        self.outstanding: set[int] = set()
        self.is_ready = self.is_ended = False
        self._said = b""
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "apsber_bluesky.streaming", "decode"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(ring_descriptor, theirs.fileno()),
                # One worker is one processor's work.
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            settings = {
                "parent_pid": os.getpid(),
                "ring_descriptor": ring_descriptor,
                "jobs_descriptor": theirs.fileno(),
            }
        self.stdout = self._pipe(self._process.stdout)
        os.set_blocking(self.stdout.fileno(), False)
        try:
            with self._pipe(self._process.stdin) as stdin:
                stdin.write(json.dumps(settings).encode() + b"\n")
        except BrokenPipeError:
            # It has ended already, which the socket tells as well.
            logger.warning("decode worker %d did not take its settings", self.pid)

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None:
            raise RuntimeError("the decode worker was started without pipes")
        return pipe

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def listen(self) -> bool:
        """Read what it says of itself; False when it will say no more."""
        block = os.read(self.stdout.fileno(), 4096)
        self._said += block
        if not self.is_ready and self._said.endswith(b"\n"):
            said = json.loads(self._said)
            self.is_ready = bool(said["ready"])
            if not self.is_ready:
                logger.error("decode worker %d cannot start: %s", self.pid, said["error"])
        return bool(block)

    def end(self) -> int:
        """End it, with force if it does not end by itself; its status."""
        self.is_ready, self.is_ended = False, True
        self.jobs.close()
        self.stdout.close()
        self._process.terminate()
        try:
            return self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
