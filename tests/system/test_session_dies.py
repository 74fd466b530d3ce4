"""The process of a session is killed during fly scans: the guard makes the beamline safe.

``APSBER_TEST_KILLS=10`` kills ten sessions instead of one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

import h5py
import numpy as np
import psutil
import pytest

from apsber_bluesky.core import RunLedger, RunState, SimulationSettings, iter_runs
from apsber_bluesky.session import ServiceProcess

KILLS = int(os.environ.get("APSBER_TEST_KILLS", "1"))
SAFE = {
    "shutter:Status_RBV": "Closed",
    "cam:cam1:Acquire_RBV": "Done",
    "rot:m1.MOVN": 0,
    "rot:pso:Armed_RBV": 0,
}
MARK = "APSBER_TEST_ID"

pytestmark = [pytest.mark.system, pytest.mark.timeout(60 + 60 * KILLS)]

PROFILE = """
name: real
session:
  beamline_id: REAL
  instrument_name: a beamline that does not end with the session
  data_root: {data_root}
  macros: {{P: "{prefix}"}}
devices:
  apsber_bluesky.devices.Camera: [{{name: camera, prefix: "$(P)cam:", labels: [detectors]}}]
  apsber_bluesky.devices.RotationStage: [{{name: rotation, prefix: "$(P)rot:"}}]
  apsber_bluesky.devices.SampleAxis: [{{name: sample_x, prefix: "$(P)m2"}}]
  apsber_bluesky.devices.FastShutter: [{{name: shutter, prefix: "$(P)shutter:"}}]
streaming: {{frame_address: "{frame_address}"}}
processing: {{centre: 31.5}}
"""

SESSION = """
import sys
from apsber_bluesky.session import start

with start(sys.argv[1]) as s:
    d = s.devices

    def tell(name, document):
        if name == "start":
            print(document["uid"], flush=True)

    s.RE.subscribe(tell)
    while True:
        s.RE(s.plans.fly_tomography(
            d.camera, d.rotation, d.shutter, d.sample_x, num_projections=90, exposure_s=0.02,
            rotation_stop_deg=90.0, num_darks=3, num_flats=4, sample_out_mm=4.5,
        ))
"""


@pytest.fixture(scope="module")
def beamline(tmp_path_factory):
    """A beamline that does not end with a session, as a real one."""
    folder = tmp_path_factory.mktemp("beamline")
    service = ServiceProcess("beamline", ["apsber_bluesky.simulation"], folder / "log")
    try:
        simulation = SimulationSettings(rows=64, columns=64).model_dump(mode="json")
        service.configure(
            {"prefix": None, "frame_address": "tcp://127.0.0.1:*", "simulation": simulation}
        )
        yield service.wait_ready(60)
    finally:
        service.stop()


def read(beamline, name):
    from caproto.sync.client import read as read_channel

    answer = read_channel(beamline["prefix"] + name, timeout=5, repeater=False)
    value = answer.data[0]
    return value.decode() if isinstance(value, bytes) else float(value)


def left_running(mark):
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def check_frames(folder):
    """What is in the spool is what the books say, and every frame is whole and in its place."""
    with RunLedger(folder.ledger) as ledger:
        assert ledger.state in (RunState.ABORTED, RunState.COMPLETE)
        books = ledger.books.streams
    if not folder.raw.exists():
        return 0
    with h5py.File(folder.raw) as file:
        for stream, own in books.items():
            numbers = file[f"entry/{stream}/frame_number"][...]
            there = np.flatnonzero(numbers >= 0).tolist()
            assert sorted(set(range(own.expected)) - set(own.missing)) == there
            assert own.written == len(there)
    return sum(own.written for own in books.values())


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_session_that_is_killed_leaves_a_safe_beamline_and_a_closed_run(
    beamline, tmp_path, wait_until, monkeypatch, kill
):
    for name, value in beamline["environment"].items():
        monkeypatch.setenv(name, value)
    profile = tmp_path / "real.yaml"
    data_root = tmp_path / "data"
    profile.write_text(PROFILE.format(data_root=data_root, **beamline))
    mark = f"{tmp_path}"
    with (tmp_path / "session.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SESSION, str(profile)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, MARK: mark},
        )
    try:
        uid = process.stdout.readline().decode().strip()
        assert uid, (tmp_path / "session.log").read_text()
        after_s = random.Random(kill).uniform(0.2, 5.0)
        time.sleep(after_s)
        before = {name: read(beamline, name) for name in SAFE}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    began = time.monotonic()
    wait_until(lambda: {name: read(beamline, name) for name in SAFE} == SAFE, 10)
    safe_s = time.monotonic() - began
    wait_until(lambda: read(beamline, "rot:m1.VELO") == 60.0, 10)
    deadline = time.monotonic() + 60
    while left := left_running(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    runs = list(iter_runs(data_root))
    kept = {str(folder.uid)[:8]: check_frames(folder) for folder in runs}
    log = next((data_root / ".apsber" / "logs").glob("guard-*.log")).read_text()
    print(
        f"\nkilled {after_s:.2f} s after the run began: {json.dumps(before)},"
        f" safe {safe_s:.2f} s later; frames kept {kept}; guard acted: {'making' in log}"
    )
    assert "not connected" not in log
