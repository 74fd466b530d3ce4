"""Processes of a running session are killed, and the run goes on."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

SESSION = """
import json, os, signal, threading, time

from apsber_bluesky.core import RunLedger
from apsber_bluesky.session import start

small = {"simulation": {"rows": 64, "columns": 96}}
with start("simulated", small) as s:
    d = s.devices
    killed = []

    def kill_when_frames_come(message):
        if message["type"] == "frames" and message["stream"] == "primary" and not killed:
            if message["received"] > 60:
                killed.append(s._workplace.services["receiver"].pid)
                os.kill(killed[0], signal.SIGKILL)

    s.board.listen(kill_when_frames_come)
    devices = (d.camera, d.rotation, d.shutter, d.sample_x)
    (uid,) = s.RE(
        s.plans.fly_tomography(
            *devices, num_projections=180, exposure_s=0.02, num_darks=2, num_flats=3
        )
    )
    summary = s.wait(uid, 90)
    with RunLedger(s.folder(uid).ledger) as ledger:
        books = ledger.books.to_dict()
    (next_uid,) = s.RE(s.plans.fly_tomography(*devices, num_projections=40, exposure_s=0.01))
    after = s.wait(next_uid, 90)
    print("RESULT", json.dumps({
        "killed": killed,
        "restarts": s._workplace._supervisor.restarts,
        "exit": s.catalog[uid].metadata["stop"]["exit_status"],
        "state": summary["state"],
        "books": books,
        "warnings": summary["warnings"],
        "volume": s.folder(uid).volume.is_dir(),
        "after": after,
    }))
"""


def test_a_receiver_that_is_killed_in_a_scan_is_replaced_and_the_scan_goes_on(run_python, tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = run_python(SESSION, env={**kept, "APSBER_DATA_ROOT": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.rpartition("RESULT ")[2])
    assert len(result["killed"]) == 1
    assert result["restarts"] == 1
    assert result["exit"] == "success"
    stream = result["books"]["streams"]["primary"]
    assert stream["recovered"] > 60
    assert stream["written"] == 180 - result["books"]["num_missing"]
    # Those that were in the sockets of the one that died, and no more.
    assert result["books"]["num_missing"] < 60
    assert any("the receiver was started again" in text for text in result["warnings"])
    assert result["volume"]
    assert result["after"]["state"] == "complete"
