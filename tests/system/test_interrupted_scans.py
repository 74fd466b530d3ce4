"""Fly scans that are paused, suspended and aborted at random instants.

``APSBER_TEST_KILLS=10`` interrupts ten scans each way instead of one.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

KINDS = ("pause", "deferred", "suspend", "abort")
INSTANTS = int(os.environ.get("APSBER_TEST_KILLS", "1"))
TIMEOUT_S = 150 + 60 * INSTANTS

pytestmark = [pytest.mark.system, pytest.mark.timeout(TIMEOUT_S + 50)]

SESSION = """
import json, sys, threading, time

import h5py
import numpy as np
import zarr

from apsber_bluesky.core import RunLedger
from apsber_bluesky.session import start

small = {"simulation": {"rows": 64, "columns": 64}, "processing": {"centre": 31.5}}
scan = {
    "num_projections": 60, "exposure_s": 0.02, "rotation_stop_deg": 60.0, "num_darks": 2,
    "num_flats": 3, "sample_out_mm": 4.2, "return_rotation": False,
}
results = []

with start("simulated", small) as s:
    from bluesky.utils import RunEngineInterrupted
    from ophyd import EpicsSignal

    d, RE = s.devices, s.RE
    devices = (d.camera, d.rotation, d.shutter, d.sample_x)
    dump = EpicsSignal(f"{s.beamline['prefix']}ring:SimulateDump", name="dump")
    dump.wait_for_connection(timeout=10)
    usual_speed = d.rotation.axis.velocity.get()

    def fresh(signal):
        return signal.get(use_monitor=False)

    def hardware():
        return {
            "shutter": fresh(d.shutter.state),
            "exposing": int(fresh(d.camera.cam.acquire)),
            "turning": int(fresh(d.rotation.axis.motor_is_moving)),
            "armed": int(fresh(d.rotation.pso.armed)),
        }

    def settled():
        # The shutter takes 50 ms, the stage a little longer to stop.
        deadline = time.monotonic() + 3
        safe = {"shutter": "Closed", "exposing": 0, "turning": 0, "armed": 0}
        while (now := hardware()) != safe and time.monotonic() < deadline:
            time.sleep(0.02)
        return now

    def frames_of(uid):
        found = {}
        with h5py.File(s.folder(uid).raw) as file:
            for name in ("darks", "flats", "primary"):
                group = file["entry"][name]
                # Room for frames is made in steps.
                found[name] = (group["data"][()], group["frame_number"][()] >= 0)
        return found

    def interrupted(kind, at_s):
        documents = []
        token = RE.subscribe(lambda name, document: documents.append((name, document)))
        outcome = {"kind": kind, "at_s": at_s, "paused": None}
        def interrupt():
            if RE.state != "running":
                return
            if kind == "pause":
                RE.request_pause()
            elif kind == "deferred":
                RE.request_pause(defer=True)
            elif kind == "abort":
                RE.abort(reason="a test")
            else:
                dump.put(1)
                time.sleep(1.0)
                outcome["paused"] = hardware()
                dump.put(0)
        timer = threading.Timer(at_s, interrupt)
        timer.start()
        try:
            RE(s.plans.fly_tomography(*devices, **scan))
        except RunEngineInterrupted:
            if RE.state == "paused":
                outcome["paused"] = settled()
                RE.resume()
        timer.join()
        RE.unsubscribe(token)
        outcome["after"] = settled()
        outcome["speed"] = d.rotation.axis.velocity.get(use_monitor=False)
        uid = documents[0][1]["uid"]
        summary = s.wait(uid, 60)
        with RunLedger(s.folder(uid).ledger) as ledger:
            books = ledger.books.to_dict()
            outcome["ledger"] = str(ledger.state)
        streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
        announced = {}
        for name, doc in documents:
            if name == "stream_datum":
                ranges = (*doc["indices"].values(), *doc["seq_nums"].values())
                announced.setdefault(streams[doc["descriptor"]], []).append(ranges)
        return uid, outcome | {
            "exit": [doc["exit_status"] for name, doc in documents if name == "stop"],
            "state": summary["state"], "books": books, "announced": announced,
            "warnings": summary["warnings"],
        }

    began = time.monotonic()
    (uid,) = RE(s.plans.fly_tomography(*devices, **scan))
    duration_s = time.monotonic() - began
    s.wait(uid, 60)
    wanted = frames_of(uid)
    volume = zarr.open_array(s.folder(uid).volume / "0", mode="r")[:]
    for kind, fraction in json.loads(sys.argv[1]):
        uid, outcome = interrupted(kind, fraction * duration_s)
        try:
            same = {}
            for name, (data, there) in frames_of(uid).items():
                kept = np.flatnonzero(there[:len(data)])
                same[name] = bool(np.array_equal(data[kept], wanted[name][0][kept]))
            outcome["same_frames"] = same
        except FileNotFoundError:
            # Aborted before the first series.
            outcome["same_frames"] = {}
        if outcome["state"] == "complete":
            found = zarr.open_array(s.folder(uid).volume / "0", mode="r")[:]
            outcome["same_volume"] = bool(np.array_equal(found, volume))
        results.append(outcome)

    documents, points = [], 16
    token = RE.subscribe(lambda name, document: documents.append((name, document)))
    steps = s.plans.step_tomography(
        *devices, num_projections=points, exposure_s=0.05, num_darks=0, num_flats=0,
        rotation_stop_deg=16.0, return_rotation=False,
    )
    # While the fifth point is exposed.
    def pause_at_fifth(message):
        if message.command == "trigger" and len(triggered) < 5:
            triggered.append(message)
            if len(triggered) == 5:
                threading.Timer(0.02, RE.request_pause).start()
    triggered = []
    RE.msg_hook = pause_at_fifth
    try:
        RE(steps)
    except RunEngineInterrupted:
        paused = settled()
        RE.resume()
    RE.msg_hook = None
    uid = documents[0][1]["uid"]
    summary = s.wait(uid, 60)
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    with RunLedger(s.folder(uid).ledger) as ledger:
        own = ledger.books.to_dict()["streams"]["primary"]
    with h5py.File(s.folder(uid).raw) as file:
        group = file["entry/primary"]
        means, angles = group["data"][()].mean((1, 2)).tolist(), group["angle"][()].tolist()
    stepped = {
        "paused": paused, "books": own, "means": means, "angles": angles,
        "exit": [doc["exit_status"] for name, doc in documents if name == "stop"],
        "numbers": [doc["seq_num"] for name, doc in documents
                    if name == "event" and streams[doc["descriptor"]] == "primary"],
    }
print("RESULT", json.dumps({"usual_speed": usual_speed, "duration_s": duration_s,
                            "scans": results, "stepped": stepped}))
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    rng = random.Random(5)
    # Every other one while projections are taken.
    asked = [
        (kind, rng.uniform(0.6 if number % 2 == 0 else 0.02, 0.95))
        for number in range(INSTANTS)
        for kind in KINDS
    ]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = subprocess.run(
        [sys.executable, "-c", SESSION, json.dumps(asked)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        env={**kept, "APSBER_DATA_ROOT": str(tmp_path_factory.mktemp("interrupted"))},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.rpartition("RESULT ")[2])
    report(result)
    return result


def report(result):
    """The table of all instants, with ``pytest -s``."""
    print(f"\nan uninterrupted scan takes {result['duration_s']:.2f} s")
    for scan in result["scans"]:
        streams = scan["books"]["streams"].values()
        counts = [sum(b[name] for b in streams) for name in ("expected", "written", "refused")]
        print(
            f"{scan['kind']:9} {scan['at_s']:6.3f} s  {scan['exit'][0]:8} {scan['state']:9}"
            f" expected/written/refused {counts}  same volume {scan.get('same_volume')}"
            f" paused {scan['paused']}"
        )


SAFE = {"shutter": "Closed", "exposing": 0, "turning": 0, "armed": 0}


def scans_of(session, *kinds):
    found = [scan for scan in session["scans"] if scan["kind"] in kinds]
    assert len(found) == INSTANTS * len(kinds)
    return found


def test_the_hardware_is_safe_while_a_scan_is_paused(session):
    for scan in scans_of(session, "pause", "deferred"):
        # A deferred pause that finds no more checkpoint lets the scan end.
        assert scan["paused"] in (SAFE, None) if scan["kind"] == "deferred" else (SAFE,), scan


def test_a_resumed_scan_is_complete_and_its_frames_and_volume_are_those_of_another(session):
    for scan in scans_of(session, "pause", "deferred", "suspend"):
        assert (scan["exit"], scan["state"]) == (["success"], "complete"), scan
        books = scan["books"]["streams"]
        for name, number in (("darks", 2), ("flats", 3), ("primary", 60)):
            own = books[name]
            assert (own["expected"], own["written"], own["missing"]) == (number, number, ""), scan
            assert own["received"] == number + own["refused"] + own["duplicated"], scan
        assert scan["same_frames"] == {"darks": True, "flats": True, "primary": True}, scan
        assert scan["same_volume"], scan


def test_frames_are_announced_once_and_in_order_whatever_happens(session):
    for scan in session["scans"]:
        for ranges in scan["announced"].values():
            place = 0
            for start, stop, first_number, end_number in ranges:
                assert start == place, scan
                assert (first_number, end_number) == (start + 1, stop + 1), scan
                place = stop


def test_an_aborted_scan_leaves_the_hardware_safe_and_is_closed(session):
    for scan in scans_of(session, "abort"):
        assert scan["after"] == SAFE, scan
        assert (scan["exit"], scan["state"], scan["ledger"]) == (["abort"], "aborted", "aborted")
        assert all(scan["same_frames"].values()), scan
        for own in scan["books"]["streams"].values():
            assert own["expected"] - own["written"] == scan_length(own["missing"]), scan


def test_a_step_scan_that_is_paused_takes_its_point_again(session):
    stepped = session["stepped"]
    assert (stepped["paused"], stepped["exit"]) == (SAFE, ["success"])
    assert (stepped["books"]["expected"], stepped["books"]["written"]) == (16, 16)
    assert stepped["numbers"] == list(range(1, 17))
    assert stepped["angles"] == pytest.approx(list(range(16)), abs=0.01)
    # None of them behind a closed shutter.
    assert min(stepped["means"]) > 0.9 * max(stepped["means"])


def scan_length(ranges):
    """How many numbers a text like ``3, 7-9`` names."""
    parts = [part.split("-") for part in ranges.split(", ") if part]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in parts)


def test_the_stage_has_its_usual_speed_after_all_of_them(session):
    for scan in session["scans"]:
        assert scan["speed"] == session["usual_speed"], scan
