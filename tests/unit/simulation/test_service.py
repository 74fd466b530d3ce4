from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

TOOTH = Path(__file__).parents[2] / "data" / "tooth.h5"
SMALL = {"rows": 8, "columns": 32}
STARTER = """
import json, subprocess, sys, os
child = subprocess.Popen([sys.executable, "-m", "apsber_bluesky.simulation"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
child.stdin.write(json.dumps({"parent_pid": os.getpid(), "simulation": {"rows": 8, "columns": 32}}))
child.stdin.close()
assert json.loads(child.stdout.readline())["ready"]
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def beamline(start_beamline: Callable[..., Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    simulation = SMALL | {"pixel_size_um": 0.65, "centre_offset_px": -1.5}
    with start_beamline(prefix="TEST:", simulation=simulation) as (process, ready):
        yield process, ready


def test_sigterm_ends_the_process_with_status_0_and_sigint_does_not(
    start_beamline: Callable[..., Any],
) -> None:
    with start_beamline(simulation=SMALL) as (process, ready):
        assert ready["ready"] is True
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.terminate()
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert errors == ""


def test_the_process_dies_with_its_parent() -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    child = psutil.Process(int(starter.stdout.readline()))
    os.kill(starter.pid, signal.SIGKILL)
    starter.communicate(timeout=20)
    try:
        child.wait(timeout=20)
    finally:
        if child.is_running():
            child.kill()
    assert not child.is_running()


def test_the_ready_line_describes_the_camera_and_how_to_reach_it(
    beamline: tuple[Any, dict[str, Any]],
) -> None:
    ready = dict(beamline[1])
    environment = ready.pop("environment")
    address = ready.pop("frame_address")
    assert ready == {
        "ready": True,
        "prefix": "TEST:",
        "rows": 8,
        "columns": 32,
        "dtype": "<u2",
        "pixel_size_um": 0.65,
        "centre_px": 14.0,
        "recorded": None,
        "detectors": {},
    }
    assert address.startswith("tcp://127.0.0.1:")
    for protocol in ("CA", "PVA"):
        assert environment[f"EPICS_{protocol}_ADDR_LIST"] == "127.0.0.1"
        assert environment[f"EPICS_{protocol}_AUTO_ADDR_LIST"] == "NO"
        assert 1024 < int(environment[f"EPICS_{protocol}_SERVER_PORT"]) < 65536


def test_the_process_listens_on_the_loopback_alone(beamline: tuple[Any, dict[str, Any]]) -> None:
    process, ready = beamline
    connections = psutil.Process(process.pid).net_connections(kind="inet")
    # PVXS listens for PV Access searches on every interface, and answers them with a port that
    # only this machine reaches; it also keeps one socket for its own replies.
    search_port = int(ready["environment"]["EPICS_PVA_BROADCAST_PORT"])
    tcp = {item.laddr.ip for item in connections if item.type is socket.SOCK_STREAM}
    udp = {item.laddr.port: item.laddr.ip for item in connections if item.type is socket.SOCK_DGRAM}
    assert tcp == {"127.0.0.1"}
    assert udp[int(ready["environment"]["EPICS_CA_SERVER_PORT"])] == "127.0.0.1"
    assert udp[int(ready["environment"]["EPICS_CA_REPEATER_PORT"])] == "127.0.0.1"
    assert search_port in udp


def test_two_beamlines_have_different_prefixes_and_ports(
    start_beamline: Callable[..., Any], beamline: tuple[Any, dict[str, Any]]
) -> None:
    one = beamline[1]
    with start_beamline(simulation=SMALL) as (_, other):
        assert one["prefix"] != other["prefix"]
        assert one["frame_address"] != other["frame_address"]
        for key in ("EPICS_CA_SERVER_PORT", "EPICS_CA_REPEATER_PORT", "EPICS_PVA_SERVER_PORT"):
            assert one["environment"][key] != other["environment"][key]


def test_a_recorded_scan_gives_the_camera_its_size_and_type(
    start_beamline: Callable[..., Any],
) -> None:
    simulation = {"data": str(TOOTH), "rows": 999}
    with start_beamline(simulation=simulation) as (_, ready):
        assert (ready["rows"], ready["columns"], ready["dtype"]) == (2, 640, "<f4")
        assert ready["centre_px"] is None
        assert ready["pixel_size_um"] is None
        recorded = ready["recorded"]
    assert recorded.pop("rotation_stop_deg") == pytest.approx(180.0)
    assert recorded == {
        "path": str(TOOTH),
        "num_projections": 181,
        "rotation_start_deg": 0.0,
        "num_flats": 10,
        "num_darks": 10,
    }


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"simulation": {"data": "/no/such/scan.h5"}}, "/no/such/scan.h5"),
        ({"simulation": {"phantom": "banana"}}, "'banana'"),
        ({"simulation": {"rows": 0}}, "simulation.rows"),
        ({"simulation": {"rows": 10**7, "columns": 10**7}}, "10000000 x 10000000"),
        ({"prefix": "has a space:"}, "prefix"),
        ({"frame_address": "tcp://127.0.0.1:none"}, "tcp://127.0.0.1:none"),
    ],
)
def test_a_bad_setting_is_one_clear_line_and_exit_status_1(
    start_beamline: Callable[..., Any], settings: dict[str, Any], reason: str
) -> None:
    with start_beamline(**settings) as (process, answer):
        out, errors = process.communicate(timeout=20)
    assert answer["ready"] is False
    assert reason in answer["error"]
    assert "\n" not in answer["error"]
    assert (process.returncode, out, errors) == (1, "", "")


def test_a_frame_port_in_use_is_named(start_beamline: Callable[..., Any]) -> None:
    context = zmq.Context()
    blocker = context.socket(zmq.PUSH)
    try:
        address = f"tcp://127.0.0.1:{blocker.bind_to_random_port('tcp://127.0.0.1')}"
        with start_beamline(frame_address=address, simulation=SMALL) as (process, answer):
            process.communicate(timeout=20)
    finally:
        blocker.close()
        context.term()
    assert answer["ready"] is False
    assert address in answer["error"]
    assert process.returncode == 1


def test_settings_that_are_not_json_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apsber_bluesky.simulation"],
        input="rows: 8\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "not JSON" in json.loads(done.stdout)["error"]
