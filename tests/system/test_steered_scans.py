"""Scans that are steered while they go on: by processing, and by whoever asks for a capture."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest
import zarr

from apsber_bluesky.core import RunFolder

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SESSION = """
import json, threading, time

from apsber_bluesky.core import RunLedger
from apsber_bluesky.session import start

changes = {
    "simulation": {"rows": 64, "columns": 64, "phantom": "disc", "dead_pixel_fraction": 0.0},
    "processing": {"centre": 34.75},
    "storage": {"archive": False},
}
few = {"num_darks": 2, "num_flats": 8, "exposure_s": 0.01, "sample_out_mm": 5.0}
golden = {**few, "projections_per_turn": 24, "most_turns": 4, "tolerance": 0.1}
said = {}

with start("simulated", changes) as s:
    from bluesky import plan_stubs as bps
    from bluesky.utils import RunEngineInterrupted
    from ophyd import EpicsSignal

    d, RE = s.devices, s.RE
    d.rotation.axis.velocity.put(360.0, wait=True)
    stage = (d.camera, d.rotation, d.shutter, d.sample_x)
    asks = {}
    for name in ("Capture", "Flats", "Darks", "End", "State", "Count"):
        asks[name] = EpicsSignal(f"{s.beamline['prefix']}capture:{name}", name=name)
        asks[name].wait_for_connection(timeout=10)
    documents = []
    RE.subscribe(lambda name, document: documents.append((name, document)))

    def until(condition):
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)

    def hardware():
        def now():
            signals = (d.shutter.state, d.camera.cam.acquire, d.rotation.pso.armed,
                       d.rotation.axis.motor_is_moving)
            return [signal.get(use_monitor=False) for signal in signals]
        # The shutter takes 50 ms, the stage a little longer.
        until(lambda: now() == ["Closed", 0, 0, 0])
        return now()


    def readings(stream):
        own = {x["uid"] for name, x in documents if name == "descriptor" and x["name"] == stream}
        return [x["data"] for name, x in documents if name == "event" and x["descriptor"] in own]

    def projections():
        own = {x["uid"] for name, x in documents
               if name == "descriptor" and x["name"] == "primary"}
        stops = [x["indices"]["stop"] for name, x in list(documents)
                 if name == "stream_datum" and x["descriptor"] in own]
        return max(stops, default=0)

    def run(plan, meanwhile=None):
        documents.clear()
        helper = threading.Thread(target=meanwhile or (lambda: None))
        helper.start()
        try:
            RE(plan)
        except RunEngineInterrupted:
            if RE.state == "paused":
                said.setdefault("while_paused", []).append(hardware())
                RE.resume()
        helper.join()
        return {
            "uid": documents[0][1]["uid"],
            "exit": documents[-1][1]["exit_status"],
            "turns": readings("convergence"),
            "captures": readings("captures"),
        }

    def processed(uid):
        summary = s.wait(uid, 60)
        with RunLedger(s.folder(uid).ledger) as ledger:
            books = ledger.books.to_dict()["streams"]
            chain = [p for stage in ledger.stages for p in (stage.record or {})["processes"]]
        return {
            "books": books,
            "chain": chain,
            "published": uid in s.processed and list(s.processed[uid]),
            **{name: summary[name] for name in ("state", "reason", "frames", "warnings")},
        }

    def when(number, *commands):
        until(lambda: projections() >= number)
        for command in commands:
            command() if callable(command) else asks[command].put(1)

    said["easy"] = run(s.plans.golden_tomography(*stage, **golden))
    RE(bps.mv(d.filters, [1, 2, 3]))
    # The filters come in one after another.
    until(lambda: d.filters.transmission.get() < 0.15)
    said["transmission"] = d.filters.transmission.get()
    said["hard"] = run(
        s.plans.golden_tomography(*stage, **golden), lambda: when(12, RE.request_pause))
    RE(bps.mv(d.filters, []))
    # The simulated stage ends at two turns.
    streaming = {**few, "projections_per_half_turn": 48, "projections_before": 8,
                 "frame_period_s": 0.0125, "longest_s": 1.6}

    def visitor():
        when(40, "Capture")
        when(90, "Flats")
        when(100, "Capture")
        when(106, RE.request_pause)

    said["streaming"] = run(
        s.plans.streaming_tomography(*stage, d.capture_requests, **streaming), visitor)
    said["told"] = [asks["State"].get(as_string=True), asks["Count"].get()]
    said["aborted"] = run(
        s.plans.streaming_tomography(*stage, d.capture_requests, **streaming),
        lambda: when(30, lambda: RE.abort("a test")),
    )
    said["safe"] = [*hardware(), d.rotation.axis.velocity.get(use_monitor=False)]
    said["ended"] = run(
        s.plans.streaming_tomography(*stage, d.capture_requests, **streaming),
        lambda: when(20, "End"),
    )
    for one in list(said.values()):
        if isinstance(one, dict):
            one.update(processed(one["uid"]))
print("RESULT", json.dumps(said))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("steered")


@pytest.fixture(scope="module")
def said(run_python, root):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = run_python(SESSION, env={**kept, "APSBER_DATA_ROOT": str(root)})
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def folder(root, run):
    return RunFolder.of(root, "commissioning", run["uid"])


def volume(folder):
    return zarr.open_array(folder / "volume.zarr" / "0", mode="r")[:]


def turns(run):
    names = ("turns", "projections", "converged", "frames_saved")
    return [tuple(one[f"live_quality_{name}"] for name in names) for one in run["turns"]]


def test_a_golden_scan_of_an_easy_sample_stops_early_and_says_what_it_saved(said):
    run = said["easy"]
    assert turns(run)[0] == (1, 24, 0, 72)
    number, projections, converged, saved = turns(run)[-1]
    assert number < 4
    assert (projections, converged, saved) == (24 * number, 1, 96 - 24 * number)
    assert run["turns"][-1]["live_quality_relative_error"] <= 0.1
    assert (run["exit"], run["state"], run["reason"]) == ("success", "complete", "")
    assert run["books"]["primary"]["expected"] == run["books"]["primary"]["used"] == projections
    told = next(one for one in run["chain"] if one["name"] == "live quality")["parameters"]
    assert (told["projections"], told["planned_projections"]) == (projections, 96)


def test_a_golden_scan_of_a_hard_sample_takes_all_its_turns(said):
    run = said["hard"]
    assert 0 < said["transmission"] < 0.15
    assert turns(run)[-1] == (4, 96, 0, 0)
    errors = [one["live_quality_relative_error"] for one in run["turns"][1:]]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 0.1
    assert run["state"] == "complete"


def test_angles_in_the_record_are_those_of_the_rule(said, root):
    with h5py.File(folder(root, said["hard"]).nexus) as file:
        keys = file["entry/instrument/detector/image_key"][:]
        angles = file["entry/sample/rotation_angle"][:][keys == 0].reshape(4, 24)
    golden = np.mod(np.arange(4) * 0.6180339887498949, 1)
    np.testing.assert_allclose(angles[0], 7.5 * np.arange(24), atol=1e-6)
    np.testing.assert_allclose(angles[:, 0], 7.5 * golden, atol=1e-6)


def test_a_golden_scan_that_was_paused_is_complete(said):
    run = said["hard"]
    # This one, and the streaming scan.
    assert said["while_paused"] == [["Closed", 0, 0, 0]] * 2
    assert (run["exit"], run["state"]) == ("success", "complete")
    assert run["books"]["primary"]["missing"] == ""
    assert run["books"]["primary"]["written"] == 96


def test_a_streaming_scan_captures_what_was_asked_for_from_before_on(said):
    run = said["streaming"]
    assert (run["exit"], run["state"], run["reason"]) == ("success", "complete", "")
    captures = run["captures"]
    assert [one["capture_number"] for one in captures] == [1, 2]
    for capture in captures:
        first, asked = capture["capture_first"], capture["capture_asked"]
        assert capture["capture_end"] - first == 48
        assert 0 <= asked - first <= 8
        assert capture["capture_start_deg"] == pytest.approx(3.75 * first)
    assert captures[0]["capture_asked"] - captures[0]["capture_first"] == 8
    assert captures[0]["capture_asked"] >= 40
    assert said["told"] == ["over", 2]


def test_what_was_planned_beyond_the_end_is_neither_missing_nor_on_disk(said, root):
    run = said["streaming"]
    own = run["books"]["primary"]
    assert own["expected"] == own["written"] == own["received"] - own["refused"]
    assert own["missing"] == ""
    with h5py.File(folder(root, run).raw) as file:
        primary = file["entry/primary"]
        assert primary["data"].shape == (own["written"], 64, 64)
        assert (primary["frame_number"][:] >= 0).all()
        # Flats and a pause are between them, and the rotation went on where it was.
        np.testing.assert_allclose(primary["angle"][:], 3.75 * np.arange(own["written"]), atol=1e-3)
        assert file["entry/flats/data"].shape[0] == 16


def test_each_capture_is_a_volume_of_the_phantom(said, root):
    run, place = said["streaming"], folder(root, said["streaming"]).path
    assert sorted(one.name for one in (place / "captures").iterdir()) == ["0001"]
    easy = volume(folder(root, said["easy"]).path)
    y, x = np.mgrid[:64, :64] - 32
    inside = np.hypot(x, y) < 27
    for own in (place / "captures" / "0001", place):
        found = volume(own)
        assert found.shape == (64, 64, 64)
        assert np.corrcoef(found[30:34, inside].ravel(), easy[30:34, inside].ravel())[0, 1] > 0.9
        assert (own / "quality.json").is_file()
    told = json.loads((place / "captures" / "0001" / "capture.json").read_text())
    assert told["first_projection"] == run["captures"][0]["capture_first"]
    record = next(one for one in run["chain"] if one["name"] == "capture")["parameters"]
    assert record["first_projection"] == run["captures"][1]["capture_first"]
    assert run["published"]


def test_an_aborted_streaming_scan_leaves_the_hardware_safe_and_its_frames_kept(said):
    run = said["aborted"]
    assert (run["exit"], run["state"]) == ("abort", "aborted")
    assert said["safe"] == ["Closed", 0, 0, 0, 360.0]
    assert run["books"]["primary"]["written"] >= 30


def test_a_scan_that_nobody_captures_has_its_last_projections_for_a_volume(said, root):
    run = said["ended"]
    assert (run["captures"], run["exit"], run["state"]) == ([], "success", "complete")
    own = run["books"]["primary"]
    # The scan was to have 176.
    assert 20 <= own["expected"] == own["written"] < 120
    assert own["used"] == min(48, own["written"])
    assert volume(folder(root, run).path).shape == (64, 64, 64)
