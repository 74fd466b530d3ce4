"""What a process of the suite does to itself: no real time, and no life without its parent."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")

CAP_IPC_LOCK, CAP_SYS_NICE = 14, 23


def capabilities(text: str) -> dict[str, int]:
    lines = (line.split(":") for line in text.splitlines() if line.startswith("Cap"))
    return {name: int(value, 16) for name, value in lines}


def test_the_right_to_real_time_and_locked_memory_is_given_up_and_no_other():
    code = """
import threading
from pathlib import Path
from apsber_bluesky.core import forgo_real_time
show = lambda: print(Path("/proc/thread-self/status").read_text(), end="")
show()
forgo_real_time()
print("=====")
thread = threading.Thread(target=show)
thread.start()
thread.join()
forgo_real_time()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = (capabilities(part) for part in done.stdout.split("====="))
    gone = (1 << CAP_IPC_LOCK) | (1 << CAP_SYS_NICE)
    for name in ("CapEff", "CapPrm"):
        assert after[name] == before[name] & ~gone


CHILD = """
import os, sys
from apsber_bluesky.core import die_with_parent
die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
sys.stdin.read()
"""
PARENT = f"""
import os, subprocess, sys
# The child's standard input stays open in the test's process, so only the kernel ends the child.
subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(os.getpid())]).wait()
"""


def test_a_child_ends_when_its_parent_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        child = int(parent.stdout.readline())
        # A handle that cannot come to mean another process.
        handle = os.pidfd_open(child)
        try:
            assert select.select([handle], [], [], 0)[0] == []
            parent.kill()
            parent.wait()
            assert select.select([handle], [], [], 30)[0] == [handle]
        finally:
            os.close(handle)
        # Its end of the pipe is closed too.
        assert parent.stdout.read() == b""


def test_a_child_whose_parent_has_already_gone_ends_at_once():
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "1"],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "parent process 1 has already gone" in done.stderr


WAITER = """
import signal, sys, threading
from apsber_bluesky.core import note_sigterm
stop = note_sigterm()
lines = iter(range(1000))

def trace(frame, event, _):
    if frame.f_code is not threading.Event.wait.__code__:
        return None
    if event == "line" and next(lines) == int(sys.argv[1]):
        signal.raise_signal(signal.SIGTERM)
        print("signalled", flush=True)
    return trace

sys.settrace(trace)
while not stop.wait(0.01):
    pass
print("noted")
"""


@pytest.mark.parametrize("line", range(4))
def test_sigterm_while_a_service_waits_is_noted_and_hangs_nobody(line):
    # At some of the lines of `Event.wait` the event's lock is held.
    done = subprocess.run(
        [sys.executable, "-c", WAITER, str(line)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == ["signalled", "noted"]
