"""An EIGER at the simulated beamline: `scattering_series` from RE, and what goes wrong with it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the filters of the frames
import numpy as np
import pytest

from apsber_bluesky.core import RunFolder, RunLedger
from apsber_bluesky.simulation import Diffraction, DiffractionGeometry

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

DISTANCE_MM, PIXEL_MM, ENERGY_KEV = 100.0, 0.075, 12.4

SESSION = """
import json, logging, threading, time

from bluesky.utils import RunEngineInterrupted

from apsber_bluesky.core import ApsberError
from apsber_bluesky.session import start

eigers = [
    {"name": "eiger", "prefix": "$(P)eiger:", "labels": ["detectors"]},
    {"name": "eiger1", "prefix": "$(P)eiger1:", "stream": 1, "labels": ["detectors"]},
    {"name": "absent_eiger", "prefix": "$(P)nowhere:", "labels": ["detectors"]},
]
changes = {
    "session": {"connection_timeout_s": 3},
    "simulation": {
        "rows": 16, "columns": 16, "energy_keV": 12.4,
        "detectors": ["eiger", "eiger1", "jungfrau", "vortex"],
    },
    "streaming": {
        "series_timeout_s": 1.5,
        "detectors": {"eiger1": {"format": "eiger1", "codec": "bslz4"}},
    },
    "devices": {"apsber_bluesky.devices.EigerDetector": eigers},
    "storage": {"archive": False},
}
records = []
began = time.monotonic()
laps = []

def lap(name):
    laps.append([name, round(time.monotonic() - began, 1)])

class Keep(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())

logging.getLogger("apsber_bluesky.devices").addHandler(Keep(logging.WARNING))
found = {"runs": {}, "errors": {}}


with start("simulated", changes) as s:
    d, plan = s.devices, s.plans.scattering_series
    documents = []
    s.RE.subscribe(lambda name, document: documents.append((name, document)))

    def run(name, detector=None, **arguments):
        detector = d.eiger if detector is None else detector
        arguments = {"num_frames": 5, "exposure_s": 0.04, **arguments}
        documents.clear()
        records.clear()
        lap(name)
        (uid,) = s.RE(plan(detector, d.shutter, **arguments))
        streams = {}
        for kind, document in documents:
            if kind == "descriptor":
                streams[document["uid"]] = document["name"]
        found["runs"][name] = {
            "summary": s.wait(uid, 60),
            "start": next(document for kind, document in documents if kind == "start"),
            "events": [
                [streams[document["descriptor"]], document["data"]]
                for kind, document in documents
                if kind == "event"
            ],
            "warnings": list(records),
        }
        return uid

    def refused(name, detector=None, **arguments):
        documents.clear()
        lap(name)
        try:
            s.RE(plan(detector or d.eiger, d.shutter, **{"num_frames": 2, **arguments}))
        except (ApsberError, TimeoutError) as error:
            kind = type(error).__name__
            found["errors"][name] = [kind, str(error), [name for name, _ in documents]]

    found["missing"] = dict(d.missing)
    found["connected"] = list(records)
    d.eiger.cam.data_source.put("Stream", wait=True)
    run("internal", energy_keV=12.4, transmission=0.75, sample="spheres", num_frames=8)
    found["data_source"] = d.eiger.cam.data_source.get()
    run("positions", axis=d.sample_x, positions_mm=[0.0, -0.5], num_darks=2)
    for trigger in ("external", "gate", "start"):
        turn = {"rotation": d.rotation, "rotation_start_deg": 10.0, "rotation_step_deg": 0.5}
        run(trigger, trigger=trigger, frame_period_s=0.06, **turn)
    run("step", trigger="step")
    run("first_generation", d.eiger1)

    cam = d.eiger.cam
    simulate = {
        name: cam.prefix + f"Simulate{name}" for name in ("Loss", "Ignored", "PowerCut")
    }
    import epics

    def put(name, value):
        assert epics.caput(simulate[name], value, wait=True, timeout=20) == 1

    put("Loss", "1 3")
    run("loss", retake_missing=False)
    run("retaken")
    put("Loss", " ")
    put("Ignored", "2")
    run("ignored", trigger="external", frame_period_s=0.06, **turn)
    put("Ignored", " ")

    refused("energy", energy_keV=20.0)
    refused("period", exposure_s=0.5, frame_period_s=0.5)
    refused("limits", axis=d.sample_x, positions_mm=[99.0])
    refused("rotation", rotation=d.rotation)
    refused("count", num_frames=0)
    refused("transmission", transmission=1.5)
    refused("axis", positions_mm=[1.0])
    refused("absent", d.absent_eiger)

    d.eiger.stage()
    cam.stream_enable.put("Disable", wait=True)
    try:
        d.eiger.driver.arm()
    except ApsberError as error:
        found["errors"]["stream"] = [type(error).__name__, str(error), []]
    d.eiger.unstage()

    put("PowerCut", 1)
    refused("power")
    cam.initialize.put(1, wait=True)
    documents.clear()

    def soon(what):
        before = cam.sequence_id.get()

        def wait():
            deadline = time.monotonic() + 30
            while cam.sequence_id.get() == before and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.4)
            what()

        threading.Thread(target=wait, daemon=True).start()

    # RE runs in the main thread; another interrupts it, as Ctrl-C would.
    soon(lambda: s.RE.abort("enough"))
    try:
        s.RE(plan(d.eiger, d.shutter, num_frames=600, exposure_s=0.1))
    except RunEngineInterrupted:
        pass
    except BaseException as error:
        found["abort_error"] = repr(error)
    time.sleep(0.5)
    found["abort"] = {
        "armed": int(cam.armed.get()),
        "acquire": int(cam.acquire.get()),
        "shutter": d.shutter.state.get(),
        "stop": [document for kind, document in documents if kind == "stop"],
    }
    run("afterwards")

    documents.clear()
    soon(s.RE.request_pause)
    paused = {"num_frames": 30, "exposure_s": 0.04, "frame_period_s": 0.06, **turn}
    try:
        s.RE(plan(d.eiger, d.shutter, trigger="external", **paused))
    except RunEngineInterrupted:
        pass
    deadline = time.monotonic() + 10
    while d.shutter.state.get() != "Closed" and time.monotonic() < deadline:
        time.sleep(0.02)
    found["while_paused"] = [d.shutter.state.get(), int(cam.armed.get())]
    (uid,) = s.RE.resume()
    found["runs"]["paused"] = {"summary": s.wait(uid, 60)}
lap("end")
found["laps"] = laps
print("RESULT", json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that one session saw."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    root = tmp_path_factory.mktemp("scattering")
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        env={**kept, "APSBER_DATA_ROOT": str(root)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "RESULT " in done.stdout, done.stdout[-4000:] + done.stderr[-6000:]
    result = json.loads(done.stdout.rpartition("RESULT ")[2])
    assert isinstance(result, dict)
    print(result["laps"])
    return result


def folder_of(run: dict[str, Any]) -> RunFolder:
    return RunFolder(Path(run["summary"]["folder"]))


def frames_of(run: dict[str, Any], detector: str, stream: str = "primary") -> dict[str, np.ndarray]:
    with h5py.File(folder_of(run).raw_of(detector)) as raw:
        return {name: array[()] for name, array in raw[f"entry/{stream}"].items()}


def books_of(run: dict[str, Any], stream: str) -> Any:
    with RunLedger(folder_of(run).ledger) as ledger:
        return ledger.books.streams[stream]


def masked(image: np.ndarray) -> np.ndarray:
    """Counts, without the values that mean gaps and dead pixels."""
    return np.where(image >= np.iinfo(image.dtype).max - 1, np.nan, image.astype(float))


def test_a_session_starts_with_an_eiger_that_never_connects(found):
    assert list(found["missing"]) == ["absent_eiger"]
    assert "nowhere:" in found["missing"]["absent_eiger"]
    kind, message, documents = found["errors"]["absent"]
    assert (kind, documents) == ("ServiceError", [])
    assert "absent_eiger is not connected" in message


def test_records_that_an_older_ioc_lacks_are_named_once_and_worked_around(found):
    # On a busy machine an optional record of another detector may answer late, and is named, too.
    (warning,) = (w for w in found["connected"] if w.startswith("eiger1:"))
    assert warning.startswith("eiger1: the IOC lacks some records:")
    assert "StreamVersion: the stream is the legacy one" in warning
    assert "Threshold2Energy" in warning
    run = found["runs"]["first_generation"]
    assert run["summary"]["state"] == "complete"
    assert run["warnings"] == []
    assert frames_of(run, "eiger1")["frame_number"].tolist() == [0, 1, 2, 3, 4]


def test_the_start_document_says_what_nxsas_wants_to_know(found):
    start = found["runs"]["internal"]["start"]
    assert (start["plan_name"], start["technique"]) == ("scattering_series", "scattering")
    assert start["detectors"] == ["eiger"]
    assert start["sample"] == "spheres"
    scattering = start["scattering"]
    assert scattering["energy_keV"] == pytest.approx(ENERGY_KEV)
    assert scattering["transmission"] == 0.75
    assert scattering["num_frames"] == start["num_points"] == 8
    detector = start["detectors_metadata"]["eiger"]
    assert detector["photon_energy_keV"] == pytest.approx(ENERGY_KEV)
    assert detector["detector_distance_mm"] == pytest.approx(DISTANCE_MM)
    assert detector["pixel_size_um"] == pytest.approx(1000 * PIXEL_MM)
    assert detector["beam_centre_px"] == [124.5, 130.25]
    assert detector["first_frame_number"] == 0
    assert detector["shape"] == [256, 256]
    assert detector["sensor_material"] == "Si"


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("internal", {"primary": 8}),
        ("positions", {"darks": 2, "primary": 10}),
        ("external", {"primary": 5}),
        ("gate", {"primary": 5}),
        ("start", {"primary": 5}),
        ("step", {"primary": 5}),
        ("afterwards", {"primary": 5}),
    ],
)
def test_every_frame_is_on_disk_at_its_place_whatever_triggered_it(found, name, streams):
    run = found["runs"][name]
    assert run["summary"]["state"] == "complete"
    for stream, expected in streams.items():
        books = books_of(run, f"eiger:{stream}")
        assert (books.expected, books.written, books.missing) == (expected, expected, [])
        numbers = frames_of(run, "eiger", stream)["frame_number"].tolist()
        series = 5 if name == "positions" and stream == "primary" else expected
        assert numbers == list(range(series)) * (expected // series)


def test_the_ioc_no_longer_takes_every_second_image_of_the_stream(found):
    assert found["data_source"] == "None"
    (warning,) = found["runs"]["internal"]["warnings"]
    assert "DataSource was 'Stream'" in warning


def test_the_pattern_lies_where_the_metadata_put_it(found):
    """Centre and radius of the spheres' second ring, found in the frames alone."""
    run = found["runs"]["internal"]
    frames = frames_of(run, "eiger")["data"]
    image = np.where(np.isnan(masked(frames[0])), np.nan, frames.mean(axis=0))
    detector = run["start"]["detectors_metadata"]["eiger"]
    row, column = detector["beam_centre_px"]
    # tan x = 3 x / (3 - x^2): the second maximum of Rayleigh's form factor, radius 6 nm.
    two_theta = 2 * math.asin(5.763459 / 60.0 * (12.398419843 / ENERGY_KEV) / (4 * math.pi))
    wanted_px = DISTANCE_MM * math.tan(two_theta) / PIXEL_MM
    rows, columns = np.indices(image.shape)
    radius = np.hypot(rows - row, columns - column)
    bins = np.arange(0.75 * wanted_px, 1.3 * wanted_px, 0.5)
    place = np.digitize(radius, bins)
    profile = [np.nanmean(image[place == i]) for i in range(1, len(bins))]
    fit = np.polyfit(bins[:-1] + 0.25, profile, 4)
    ring = np.linspace(bins[0] + 1, bins[-1] - 1, 500)
    assert ring[np.argmax(np.polyval(fit, ring))] == pytest.approx(wanted_px, abs=0.5)
    # The centre of the light on that ring, a pixel and its opposite at a time.
    on_ring = np.abs(radius - wanted_px) < 4
    across = np.rint(2 * row - rows[on_ring]).astype(int)
    along = np.rint(2 * column - columns[on_ring]).astype(int)
    pair = image[on_ring] - image[across, along]
    scale = np.nanmean(image[on_ring])
    assert abs(np.nanmean(pair * np.sign(rows - row)[on_ring])) < 0.05 * scale
    assert abs(np.nanmean(pair * np.sign(columns - column)[on_ring])) < 0.05 * scale


def test_frames_with_the_shutter_closed_count_nothing(found):
    run = found["runs"]["positions"]
    assert not np.nansum(masked(frames_of(run, "eiger", "darks")["data"]))
    assert np.nansum(masked(frames_of(run, "eiger")["data"])) > 0


def test_each_position_is_recorded_and_its_frames_follow_from_their_number(found):
    run = found["runs"]["positions"]
    assert run["start"]["scattering"]["positions_mm"] == [0.0, -0.5]
    places = [data["sample_x"] for stream, data in run["events"] if stream == "positions"]
    np.testing.assert_allclose(places, [0.0, -0.5], atol=1e-3)


def test_a_step_scan_has_one_event_for_each_frame(found):
    events = [stream for stream, _ in found["runs"]["step"]["events"] if stream == "primary"]
    assert len(events) == 5


@pytest.mark.parametrize(("name", "period_s"), [("external", 0.06), ("gate", 0.06)])
def test_pulses_of_the_rotation_stage_set_the_pace(found, name, period_s):
    stamps = frames_of(found["runs"][name], "eiger")["timestamp"]
    np.testing.assert_allclose(np.diff(stamps), period_s, atol=0.005)


def test_images_that_the_detector_drops_are_named_and_counted(found):
    run = found["runs"]["loss"]
    assert run["summary"]["state"] == "incomplete"
    books = books_of(run, "eiger:primary")
    assert (books.expected, books.written, books.missing) == (5, 3, [1, 3])
    assert any("eiger dropped 2 images of the series" in text for text in run["warnings"])
    (status,) = [data for stream, data in run["events"] if stream == "detector_status"]
    assert list(status.values()) == [2]


def test_images_that_got_lost_are_taken_again(found):
    """The detector loses images 1 and 3 of each series; alone they are image 0."""
    run = found["runs"]["retaken"]
    assert run["summary"]["state"] == "complete"
    books = books_of(run, "eiger:primary")
    assert (books.expected, books.written, books.missing) == (5, 5, [])
    assert (frames_of(run, "eiger")["frame_number"] >= 0).all()


def test_fewer_frames_than_asked_for_are_named_and_not_taken_for_others(found):
    run = found["runs"]["ignored"]
    assert run["summary"]["state"] == "incomplete"
    assert books_of(run, "eiger:primary").missing == [4]
    assert any("eiger took fewer images than it was to get pulses" in w for w in run["warnings"])


def test_a_series_that_is_paused_goes_on_from_the_first_missing_frame(found):
    assert found["while_paused"] == ["Closed", 0]
    run = found["runs"]["paused"]
    assert run["summary"]["state"] == "complete"
    books = books_of(run, "eiger:primary")
    assert (books.expected, books.written, books.missing) == (30, 30, [])
    frames = frames_of(run, "eiger")
    assert (frames["frame_number"] >= 0).all()
    # In order of place, with one gap in time where it was paused.
    steps = np.diff(frames["timestamp"])
    assert (steps > 0).all()
    assert (steps > 0.2).sum() == 1
    assert likeliest_angles(frames["data"]) == [10.0 + 0.5 * i for i in range(30)]


def test_each_frame_of_a_rotation_shows_the_pattern_of_its_angle(found):
    frames = frames_of(found["runs"]["external"], "eiger")["data"]
    assert likeliest_angles(frames) == [10.0 + 0.5 * i for i in range(5)]


def likeliest_angles(frames: np.ndarray) -> list[float]:
    """For each frame the angle, of those from 8 to 30 deg, whose pattern it shows best."""
    geometry = DiffractionGeometry(
        256, 256, distance_mm=DISTANCE_MM, energy_keV=ENERGY_KEV, beam_centre_px=(124.5, 130.25)
    )
    diffraction = Diffraction(geometry, seed=1)
    angles = np.arange(8.0, 30.0, 0.5)
    good = (masked(frames[0]) >= 0).ravel()
    expected = np.array([0.04 * diffraction.rate(angle).ravel()[good] + 1e-9 for angle in angles])
    counts = frames.reshape(len(frames), -1)[:, good].astype(float)
    # Poisson: the logarithm of the likelihood but for what all angles share.
    likelihood = counts @ np.log(expected).T - expected.sum(axis=1)
    return [float(angle) for angle in angles[likelihood.argmax(axis=1)]]


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("energy", "InputError", "energy_keV is 20, eiger is set for 12.4 keV"),
        ("period", "InputError", "eiger needs 0.5 s from one exposure"),
        ("limits", "InputError", "positions_mm has 99 mm, the limits of sample_x are -20 to 20"),
        ("rotation", "InputError", "trigger is 'internal', with which rotation cannot trigger"),
        ("count", "InputError", "num_frames is 0"),
        ("transmission", "InputError", "transmission is 1.5"),
        ("axis", "InputError", "axis and positions_mm belong together"),
        ("power", "ServiceError", "eiger is not initialised; set"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run_begins(found, name, error, told):
    kind, message, documents = found["errors"][name]
    assert kind == error
    assert told in message
    assert documents == []


def test_a_stream_that_is_disabled_is_named_when_it_is_armed(found):
    kind, message, _ = found["errors"]["stream"]
    assert kind == "ServiceError"
    assert "the stream of eiger is disabled" in message
    assert "StreamEnable" in message


def test_an_abort_disarms_the_detector_closes_the_shutter_and_the_run(found):
    abort = found["abort"]
    assert (abort["armed"], abort["acquire"], abort["shutter"]) == (0, 0, "Closed")
    (stop,) = abort["stop"]
    assert stop["exit_status"] == "abort"
    assert "abort_error" not in found
