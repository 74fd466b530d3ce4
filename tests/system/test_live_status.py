"""A session seen from outside while it runs: ``apsber status``, its PVs, and the gateway."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from apsber_bluesky.core import forgo_real_time

forgo_real_time()

from p4p.client.thread import Context  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

SESSION = """
import sys
from apsber_bluesky.session import start

small = {"simulation": {"rows": 24, "columns": 40}, "streaming": {"preview_hz": 10}}
with start("simulated", small) as s:
    d = s.devices
    plan = s.plans.fly_tomography(d.camera, d.rotation, d.shutter, d.sample_x, num_projections=24)
    (uid,) = s.RE(plan)
    s.wait(uid, 60)
    print(uid, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def session(apsber, tmp_path_factory):
    """A session after its first scan: the data root and the run's uid."""
    root = tmp_path_factory.mktemp("live")
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION],
        env={**apsber.environment, "APSBER_DATA_ROOT": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    uid = process.stdout.readline().strip()
    yield root, uid
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert apsber("status", "--data-root", root, "--json").json["session"] is None
    assert not (root / ".apsber" / "session.json").exists()


def client_of(**settings):
    fixed = {"EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVA_ADDR_LIST": ""}
    return Context("pva", conf={**fixed, **settings}, useenv=False)


def test_status_tells_how_the_session_is_doing(apsber, session):
    root, uid = session
    live = apsber("status", "--data-root", root, "--json").json["session"]
    assert (live["profile"], live["health_prefix"]) == ("simulated", "APSBER:")
    health = live["health"]
    assert isinstance(health["armed"], bool)
    assert health["spool_size_gb"] > health["spool_free_gb"] > 0
    assert health["ring_slots"] > 0
    told = apsber("status", "--data-root", root)
    assert told.stdout.startswith("session simulated")
    assert f"EPICS_PVA_NAME_SERVERS={live['name_server']}" in told.stdout
    assert uid[:8] in told.stdout


def test_the_last_frames_can_be_seen_on_the_preview(apsber, session, wait_until):
    root, uid = session
    live = apsber("status", "--data-root", root, "--json").json["session"]
    with client_of(EPICS_PVA_NAME_SERVERS=live["name_server"]) as client:
        image = client.get("APSBER:Preview:Image", timeout=20)
        assert image.shape == (24, 40)
        assert image.attrib["RunUid"] == uid
        assert image.any()
        rate = client.get("APSBER:Health:FrameRate_RBV", timeout=20)
        assert (rate.severity, rate.raw.display.units) == (0, "Hz")


def test_the_gateway_finds_the_session_by_itself(apsber, session):
    root, uid = session
    profile = root / "gateway.yaml"
    with socket.socket() as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports = {"server_port": one.getsockname()[1], "broadcast_port": two.getsockname()[1]}
    profile.write_text(
        json.dumps(
            {
                "name": "bench",
                "session": {"beamline_id": "X", "instrument_name": "Y"},
                "gateway": ports,
            }
        )
    )
    process = apsber.start("gateway", "-p", profile, "--data-root", root, "--json")
    try:
        answer = json.loads(process.stdout.readline())
        assert answer["pvs"] == ["APSBER:Preview:Image"]
        with client_of(
            EPICS_PVA_ADDR_LIST="127.0.0.1",
            EPICS_PVA_BROADCAST_PORT=str(ports["broadcast_port"]),
        ) as client:
            assert client.get("APSBER:Preview:Image", timeout=20).attrib["RunUid"] == uid
    finally:
        process.terminate()
        outcome = apsber.finish(process)
    assert outcome.status == 0, outcome.stderr


def test_a_monitor_that_dies_does_not_harm_the_session(apsber, session, wait_until):
    import psutil

    root, _ = session
    pid = apsber("status", "--data-root", root, "--json").json["session"]["pid"]
    monitors = [p for p in psutil.Process(pid).children() if p.cmdline()[-1] == "monitor"]
    assert len(monitors) == 1
    os.kill(monitors[0].pid, 9)
    wait_until(lambda: monitors[0].status() == psutil.STATUS_ZOMBIE)
    live = apsber("status", "--data-root", root, "--json").json["session"]
    assert live["health"] is not None
