"""A command that goes on by itself, once it is ready."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import ServiceError, explain_disk_errors

_POLL_S: Final = 0.1


def run_in_background(
    arguments: Sequence[str], log: Path, check: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], subprocess.Popen[bytes]]:
    """Start ``apsber``, wait until it is ready, and leave it: no terminal ends it.

    Parameters
    ----------
    arguments : sequence of str
        Of the command; ``--json`` is added, so that it says on standard output when it is ready.
    log : Path
        File that takes what it says to people.
    check : callable
        Called now and then while waiting; may raise to give up, and then it is ended.

    Returns
    -------
    dict
        What it said when it was ready.
    subprocess.Popen
        Its process, which goes on when this one ends.

    Raises
    ------
    ServiceError
        If it ends instead, with its last word.
    StorageError
        If the log cannot be written.
    """
    with explain_disk_errors(log, "write the log"):
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        stream = log.open("wb")
    with stream:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "apsber_bluesky.cli", *arguments, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            start_new_session=True,
        )
    try:
        line = _first_line(process, check)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    answer = json.loads(line) if line else {"error": _last_word(log)}
    if "error" in answer:
        process.wait()
        raise ServiceError(f"{answer['error']} (log: {log})")
    return answer, process


def _last_word(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # Wrong options are told in a box.
    words = [line.strip("│ ") for line in lines if any(map(str.isalnum, line))]
    return words[-1] if words else "it ended without a word"


def _first_line(process: subprocess.Popen[bytes], check: Callable[[], None]) -> bytes:
    assert process.stdout is not None
    line = b""
    with process.stdout as stdout:
        while not line.endswith(b"\n"):
            check()
            if not select.select([stdout], [], [], _POLL_S)[0]:
                continue
            block = os.read(stdout.fileno(), 65536)
            if not block:
                return b""
            line += block
    return line
