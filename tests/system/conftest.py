"""The suite as a user meets it: the command line, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

MARK = "APSBER_TEST_ID"


@dataclass
class Outcome:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        return value


class Apsber:
    """Run ``apsber`` and see that it leaves nothing running."""

    def __init__(self) -> None:
        self.mark = str(uuid.uuid4())
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))},
            MARK: self.mark,
        }

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            [sys.executable, "-m", "apsber_bluesky.cli", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], timeout: float = 90) -> Outcome:
        """Wait for a command to end."""
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Outcome(process.returncode, stdout, stderr)

    def __call__(self, *arguments: object) -> Outcome:
        """Run a command to its end."""
        return self.finish(self.start(*arguments))

    def left_running(self) -> list[list[str]]:
        """Command lines of processes that a command left behind."""
        left = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    left.append(process.cmdline())
            except psutil.Error:
                continue
        return left


def wait_until(condition: Callable[[], Any], timeout: float = 60) -> Any:
    """Wait for something to come true; its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session", name="wait_until")
def _wait_until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="module")
def apsber() -> Iterator[Apsber]:
    """Run ``apsber`` in this module; nothing may be left running at its end."""
    command = Apsber()
    yield command
    assert command.left_running() == []


@pytest.fixture(scope="session")
def tooth() -> Path:
    """A recorded scan: two rows of a tooth."""
    return Path(__file__).parents[1] / "data" / "tooth.h5"
