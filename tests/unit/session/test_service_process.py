"""Processes of the session, against small real programs that behave well and badly."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys

import pytest

from apsber_bluesky.core import ServiceError
from apsber_bluesky.session import ServiceProcess, _services

GOOD = """
import json, os, signal, sys, threading
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
settings = json.loads(sys.stdin.readline())
print("log line", file=sys.stderr, flush=True)
answer = {"ready": True, "settings": settings, "threads": os.environ["OMP_NUM_THREADS"]}
print(json.dumps(answer), flush=True)
stop.wait()
"""
REFUSES = """
import json, sys
sys.stdin.readline()
print(json.dumps({"ready": False, "error": "the port is taken"}), flush=True)
raise SystemExit(1)
"""
DIES = """
import sys
sys.stdin.readline()
raise RuntimeError("no such PV")
"""
SILENT = "import sys, time\nsys.stdin.readline()\nprint('x', end='', flush=True)\ntime.sleep(600)\n"
DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"ready": true}', flush=True)
time.sleep(600)
"""
HANGS_UP = """
import os, sys, time
sys.stdin.readline()
print("closing", file=sys.stderr, flush=True)
os.close(1)
time.sleep(600)
"""
GARBAGE = "import sys\nsys.stdin.readline()\nsys.stdout.buffer.write({!r})\nsys.stdout.flush()\n"


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with contextlib.ExitStack() as stack:

        def start(code: str) -> ServiceProcess:
            (tmp_path / "small_service.py").write_text(code)
            service = ServiceProcess("receiver", ["small_service"], tmp_path / "receiver.log")
            stack.callback(service.stop)
            return service

        yield start


def test_a_process_gets_its_settings_answers_and_stops(start):
    service = start(GOOD)
    service.configure({"data_root": "/data"})
    answer = service.wait_ready(60)
    assert answer["settings"] == {"data_root": "/data", "parent_pid": os.getpid()}
    assert answer["threads"] == "1"
    assert service.answer == answer
    service.check()
    assert os.getpgid(service.pid) == service.pid
    service.stop()
    assert not service.is_running
    assert service.log_tail() == "log line"
    service.stop()


def test_settings_are_sent_once(start):
    service = start(GOOD)
    service.configure({})
    with pytest.raises(ServiceError, match="configured already"):
        service.configure({})


def test_a_process_that_cannot_start_says_why(start):
    service = start(REFUSES)
    service.configure({})
    with pytest.raises(ServiceError, match=r"^the port is taken$"):
        service.wait_ready(60)


def test_a_process_that_dies_is_told_with_its_status_and_the_end_of_its_log(start, tmp_path):
    service = start(DIES)
    service.configure({})
    with pytest.raises(ServiceError, match=r"receiver ended with status 1: .*no such PV") as told:
        service.wait_ready(60)
    assert str(tmp_path / "receiver.log") in str(told.value)
    assert "\n" not in str(told.value)
    with pytest.raises(ServiceError, match="no such PV"):
        service.check()


def test_a_process_that_dies_before_it_is_configured_is_told(start):
    service = start("raise SystemExit('wrong Python')")
    service._process.wait()
    with pytest.raises(ServiceError, match="wrong Python"):
        service.configure({"large": "x" * 1_000_000})


@pytest.mark.parametrize(
    "said",
    [b"Hello!\n", b"\xff\xfe\n", b"[1, 2]\n", b"17\n", b"\n", b'{"ready": true}{}\n'],
)
def test_a_process_that_says_something_else_is_quoted(start, said):
    service = start(GARBAGE.format(said))
    service.configure({})
    with pytest.raises(ServiceError, match=r"receiver said .* instead of ready"):
        service.wait_ready(60)


def test_a_process_that_is_too_slow_is_given_up_and_stopped(start, tmp_path):
    service = start(SILENT)
    service.configure({})
    with pytest.raises(ServiceError, match=r"not ready after 0\.2 s; see .*receiver\.log"):
        service.wait_ready(0.2)
    service.stop()
    assert not service.is_running


def test_a_process_that_hangs_up_but_lives_is_told(start, monkeypatch):
    monkeypatch.setattr(_services, "_STOP_TIMEOUT_S", 0.2)
    service = start(HANGS_UP)
    service.configure({})
    with pytest.raises(ServiceError, match="no longer talks to the session, although it runs"):
        service.wait_ready(60)


def test_a_process_that_ignores_being_told_to_stop_is_killed(start, monkeypatch):
    monkeypatch.setattr(_services, "_STOP_TIMEOUT_S", 0.2)
    service = start(DEAF)
    service.configure({})
    service.wait_ready(60)
    service.stop()
    assert not service.is_running
    assert service._process.returncode == -signal.SIGKILL


def test_an_interrupt_of_the_session_does_not_reach_the_process(start):
    service = start(GOOD)
    service.configure({})
    service.wait_ready(60)
    assert os.getpgid(service.pid) != os.getpgid(0)


def test_descriptors_are_handed_over(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "small_service.py").write_text(
        "import json, os, sys\n"
        "number = json.loads(sys.stdin.readline())['ring']\n"
        "print(json.dumps({'ready': True, 'size': os.fstat(number).st_size}), flush=True)\n"
    )
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, 1234)
    log = tmp_path / "log"
    service = ServiceProcess("worker", ["small_service"], log, [descriptor])
    os.close(descriptor)
    service.configure({"ring": descriptor})
    assert service.wait_ready(60)["size"] == 1234
    service.stop()


SESSION = """
import sys
from pathlib import Path
from apsber_bluesky.session import ServiceProcess
service = ServiceProcess("child", ["small_service"], Path(sys.argv[1]))
service.configure({})
service.wait_ready(60)
print(service.pid, flush=True)
sys.stdin.read()
"""
SERVICE = """
import json, signal, sys
from apsber_bluesky.core import die_with_parent
die_with_parent(json.loads(sys.stdin.readline())["parent_pid"])
print('{"ready": true}', flush=True)
signal.pause()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")
def test_processes_end_with_a_session_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "small_service.py").write_text(SERVICE)
    with subprocess.Popen(
        [sys.executable, "-c", SESSION, tmp_path / "log"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as session:
        child = os.pidfd_open(int(session.stdout.readline()))
        session.kill()
        session.wait()
        ended, _, _ = select.select([child], [], [], 30)
        os.close(child)
        assert ended == [child]


def test_the_modules_of_the_session_name_what_they_run():
    done = subprocess.run(
        [sys.executable, "-m", "apsber_bluesky.session", "reboot"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert json.dumps("reboot").strip('"') in done.stderr
