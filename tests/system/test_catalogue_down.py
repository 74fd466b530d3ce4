"""The catalogue is killed while a scan runs: the scan goes on, and nothing of it is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

# The frames come by PV Access here, relayed to the common receiver, as at beamlines without ZMQ.
SESSION = """
import json, os, signal, threading
import numpy as np
from apsber_bluesky.session import start
from apsber_bluesky.storage import find_runs, run_of, volume_of

changes = {
    "simulation": {"rows": 24, "columns": 40},
    "streaming": {"frame_address": "pva://$(P)cam:Pva1:Image"},
}
with start("simulated", changes) as s:
    d = s.devices
    d.camera.frames_by = "pva"
    scan = {"num_projections": 24, "exposure_s": 0.05, "num_darks": 2, "num_flats": 2}
    catalog = s._workplace.services["catalog"]
    address = s.tiled_uri
    # So the run is half in the catalogue when its server dies.
    killed = []

    def kill(name, document):
        if name == "descriptor" and document["name"] == "primary" and not killed:
            killed.append(catalog.pid)
            threading.Timer(0.4, os.kill, (catalog.pid, signal.SIGKILL)).start()

    s.RE.subscribe(kill)
    uids, summaries = [], []
    for sample in ("a", "b"):
        devices = (d.camera, d.rotation, d.shutter, d.sample_x)
        (uid,) = s.RE(s.plans.fly_tomography(*devices, sample=sample, **scan))
        uids.append(uid)
    summaries = [s.wait(uid, 120) for uid in uids]
    runs = [s.catalog[uid] for uid in uids]
    found = find_runs(s.catalog, detector="camera", technique="tomography", since="2020")
    volume = volume_of(runs[1])
    raw = np.asarray(runs[1]["primary"]["camera_image"][:])
    import h5py
    with h5py.File(s.folder(uids[1]).raw) as file:
        same = bool(np.array_equal(file["entry/primary/data"][:], raw))
    v2 = s.catalog.v2[uids[0]]
    kept = [p.name for p in s._workplace.journal.folder.glob("*.documents")]
    print("RESULT", json.dumps({
        "killed": killed,
        "pids": [catalog.pid, s._workplace.services["catalog"].pid],
        "same_address": s.tiled_uri == address,
        "states": [x["state"] for x in summaries],
        "frames": [x["frames"]["used"] for x in summaries],
        "uids": uids,
        "found": [run.metadata["start"]["uid"] for run in found],
        "all": len(s.catalog),
        "stops": [run.metadata["stop"]["exit_status"] for run in runs],
        "shapes": [list(run["primary"]["camera_image"].shape) for run in runs],
        "same": same,
        "volume": list(volume.shape),
        "run_of": run_of(volume).metadata["start"]["uid"],
        "v2": [v2.metadata["start"]["sample"], sorted(v2)],
        "v2_ring": len(v2["baseline"].read()["storage_ring_current"]),
        "kept": kept,
        "start": runs[0].metadata["start"],
    }))
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    root = tmp_path_factory.mktemp("session")
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        env={**kept, "APSBER_DATA_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def test_the_scan_went_on_and_the_catalogue_came_back_at_its_address(session):
    assert len(session["killed"]) == 1
    assert session["pids"][0] != session["pids"][1]
    assert session["same_address"]
    assert session["states"] == ["complete", "complete"]
    assert session["frames"] == [28, 28]


def test_each_run_is_in_the_catalogue_once_and_whole(session):
    assert session["all"] == 2
    assert session["found"] == session["uids"][::-1]
    assert session["stops"] == ["success", "success"]
    assert session["shapes"] == [[24, 24, 40], [24, 24, 40]]
    assert session["same"]
    assert session["kept"] == []


def test_volume_and_run_are_found_from_each_other(session):
    assert session["volume"] == [24, 40, 40]
    assert session["run_of"] == session["uids"][1]


def test_databroker_reads_the_run_in_its_second_manner(session):
    sample, streams = session["v2"]
    assert sample == "a"
    assert {"primary", "darks", "flats", "baseline"} <= set(streams)
    assert session["v2_ring"] == 2


def test_runs_say_of_themselves_what_users_search_by(session):
    start = session["start"]
    expected = {
        "title": "a",
        "plan_name": "fly_tomography",
        "technique": "tomography",
        "detectors": ["camera"],
        "motors": ["rotation"],
        "num_points": 24,
        "beamline_id": "SIM",
        "instrument_name": "simulated tomography beamline",
        "proposal_id": "commissioning",
        "profile": "simulated",
        "sample": "a",
        "scan_id": 1,
    }
    assert {key: start[key] for key in expected} == expected
    assert {"apsber_bluesky", "bluesky", "ophyd", "event_model", "tiled"} <= set(start["versions"])
    assert "@" in start["login_id"]
    assert isinstance(start["pid"], int)
    assert start["hints"]["dimensions"]
