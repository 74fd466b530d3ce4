"""Devices that fail during a fly scan: each is named within seconds, and the hardware is safe."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

SESSION = """
import json, threading, time

from apsber_bluesky.core import ApsberError
from apsber_bluesky.session import start

changes = {
    "simulation": {"rows": 24, "columns": 40}, "processing": {"centre": 19.5},
    "session": {"connection_timeout_s": 2.0},
    "devices": {"apsber_bluesky.devices.RotationStage": [
        {"name": "rotation", "prefix": "$(P)rot:"}, {"name": "nowhere", "prefix": "$(P)nowhere:"},
    ]},
}
scan = {"num_projections": 60, "exposure_s": 0.02, "rotation_stop_deg": 60.0, "num_darks": 2,
        "num_flats": 2, "sample_out_mm": 4.2, "return_rotation": False}
outcomes = {}

with start("simulated", changes) as s:
    import epics

    d, P = s.devices, s.beamline["prefix"]
    stops, first = [], threading.Event()

    def listen(name, document):
        if name == "stop":
            stops.append(document)
    s.RE.subscribe(listen)

    def primary_comes(message):
        if (message["type"] == "frames" and message["stream"] == "primary"
                and message["received"] > 10):
            first.set()
    s.board.listen(primary_comes)

    def scanned(name, rotation, disturb, when="before"):
        first.clear()
        worker = threading.Thread(target=lambda: first.wait(30) and disturb())
        if when == "before":
            disturb()
        else:
            worker.start()
        began, before, outcome = time.monotonic(), len(stops), {}
        try:
            (uid,) = s.RE(s.plans.fly_tomography(d.camera, rotation, d.shutter, d.sample_x, **scan))
            outcome["frames"] = s.wait(uid, 60)["frames"]
        except Exception as error:
            outcome |= {"kind": type(error).__name__, "message": str(error)}
        if worker.is_alive() or when != "before":
            worker.join()
        outcome["seconds"] = time.monotonic() - began
        time.sleep(0.3)
        outcome["stop"] = [(doc["exit_status"], doc.get("reason")) for doc in stops[before:]]
        outcome["safe"] = [
            d.shutter.state.get(use_monitor=False),
            int(d.camera.cam.acquire.get(use_monitor=False)),
            int(d.rotation.axis.motor_is_moving.get(use_monitor=False)),
            int(d.rotation.pso.armed.get(use_monitor=False)),
        ]
        outcomes[name] = outcome

    hold = lambda value: epics.caput(f"{P}rot:m1.SPMG", value, wait=True)
    scanned("stalls before", d.rotation, lambda: hold("Pause"))
    hold("Go")
    time.sleep(0.5)
    scanned("stops on its way", d.rotation, lambda: hold("Pause"), "during")
    hold("Go")
    time.sleep(3.0)
    scanned("fewer frames", d.rotation, lambda: epics.caput(f"{P}cam:cam1:Acquire", 0), "during")
    missing = sorted(d.missing)
    scanned("never connects", d["nowhere"], lambda: None)
print("RESULT", json.dumps({"missing": missing, "outcomes": outcomes}))
"""

SAFE = ["Closed", 0, 0, 0]


@pytest.fixture(scope="module")
def session(run_python, tmp_path_factory):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    root = tmp_path_factory.mktemp("troubled")
    done = run_python(SESSION, env={**kept, "APSBER_DATA_ROOT": str(root)})
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stalls before", "rotation stalled at"),
        ("stops on its way", "rotation stopped at"),
    ],
)
def test_a_motor_that_does_not_arrive_is_named_and_the_hardware_is_safe(session, name, words):
    outcome = session["outcomes"][name]
    assert outcome["kind"] == "PlanError", outcome
    assert words in outcome["message"]
    assert outcome["safe"] == SAFE
    (stop,) = outcome["stop"]
    assert stop[0] == "fail"
    assert words in stop[1]
    assert outcome["seconds"] < 40


def test_frames_that_a_camera_does_not_give_are_taken_again(session):
    outcome = session["outcomes"]["fewer frames"]
    assert outcome["frames"]["expected"] == outcome["frames"]["written"] == 64, outcome
    assert outcome["stop"] == [["success", ""]]
    assert outcome["safe"] == SAFE


def test_a_stage_that_never_connects_is_named_before_anything_moves(session):
    assert "nowhere" in session["missing"]
    outcome = session["outcomes"]["never connects"]
    assert "nowhere" in outcome["message"], outcome
    assert outcome["stop"] == []
