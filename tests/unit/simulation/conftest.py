from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

Start = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], dict[str, Any]]]]


@contextlib.contextmanager
def _start(**settings: Any) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "apsber_bluesky.simulation"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps({"parent_pid": os.getpid(), **settings}))
        process.stdin.close()
        process.stdin = None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def start_beamline() -> Start:
    """Start the real process; as a context manager it gives the process and its first line."""
    return _start
