"""A scan that loses frames on the wire: marked incomplete everywhere, and reconstructed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import RunFolder

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

LOST = {"darks": [1], "flats": [], "primary": [0, 7, 8, 9, 30]}

# A wire between detector and receiver that loses frames of the second scan, and those of the
# projections of the third, which takes them again.
SESSION = """
import json, sys, threading

import msgpack
import numpy as np
import zmq
from tiled.queries import Key

from apsber_bluesky.session import start

LOST = json.loads(sys.argv[1])
context = zmq.Context()
out = context.socket(zmq.PUSH)
port = out.bind_to_random_port("tcp://127.0.0.1")
changes = {
    "simulation": {"rows": 24, "columns": 40, "centre_offset_px": 1.5},
    "processing": {"centre": 21.0},
    "streaming": {"frame_address": f"tcp://127.0.0.1:{port}"},
}

with start("simulated", changes) as s:
    back = context.socket(zmq.PULL)
    back.connect(s._workplace.beamline["frame_address"])
    lossy, again, stop = threading.Event(), threading.Event(), threading.Event()

    def pump():
        streams = []
        while not stop.is_set():
            if not back.poll(50):
                continue
            parts = back.recv_multipart()
            header = msgpack.unpackb(parts[0])
            if header["type"] == "start" and again.is_set():
                streams.append("primary" if header["num_frames"] == 48 else "flats")
            elif header["type"] == "start" and lossy.is_set():
                streams.append(("darks", "flats", "primary")[len(streams)])
            if header["type"] == "frame" and streams and header["number"] in LOST[streams[-1]]:
                continue
            out.send_multipart(parts)

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        d = s.devices
        devices = (d.camera, d.rotation, d.shutter, d.sample_x)
        scan = {"num_projections": 48, "exposure_s": 0.05, "num_darks": 4, "num_flats": 4}
        summaries = []
        for event in (None, lossy, again):
            if event is not None:
                event.set()
            retake = event is again
            (uid,) = s.RE(s.plans.fly_tomography(*devices, **scan, retake_missing=retake))
            summaries.append(s.wait(uid, 60))
        found = {
            name: list(s.processed.search(query))
            for name, query in {
                "complete": Key("frames.complete") == True,
                "incomplete": Key("state") == "incomplete",
                "missing": Key("frames.num_missing") == 6,
                "named": Key("frames.streams.primary.missing") == "0, 7-9, 30",
            }.items()
        }
    finally:
        stop.set()
        thread.join()
        back.close(0)
        out.close(0)
context.term()
print("RESULT", json.dumps({"summaries": summaries, "found": found}))
"""


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp("lost")


@pytest.fixture(scope="module")
def session(run_python, data_root):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    code = f"import sys; sys.argv = ['', {json.dumps(LOST)!r}]\n{SESSION}"
    done = run_python(code, env={**kept, "APSBER_DATA_ROOT": str(data_root)})
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


@pytest.fixture(scope="module")
def folders(session):
    return [RunFolder(Path(summary["folder"])) for summary in session["summaries"]]


def test_the_run_is_incomplete_and_says_how_many_frames_it_lacks(session):
    whole, holed, _ = session["summaries"]
    assert (whole["state"], holed["state"]) == ("complete", "incomplete")
    assert holed["reason"] == "6 of 56 frames are missing"
    assert whole["frames"] == dict.fromkeys(("expected", "received", "written", "used"), 56)
    assert holed["frames"] == {"expected": 56, "received": 50, "written": 50, "used": 50}
    assert holed["quality"]["missing_frames"]["value"] == pytest.approx(6 / 56)
    assert (
        holed["quality"]["missing_frames"]["note"]
        == "1 of 4 darks (1); 5 of 48 primary (0, 7-9, 30)"
    )


def test_frames_that_are_taken_again_make_the_scan_whole(session, folders):
    whole, _, again = session["summaries"]
    assert again["state"] == "complete"
    assert again["frames"] == whole["frames"] | {"received": again["frames"]["received"]}
    # 7 to 9 lie so close that 8 and 30 are flown over.
    with h5py.File(folders[0].raw) as first, h5py.File(folders[2].raw) as last:
        for stream in ("darks", "flats", "primary"):
            assert np.array_equal(first[f"entry/{stream}/data"], last[f"entry/{stream}/data"])
            angles = last[f"entry/{stream}/angle"][...]
            assert np.array_equal(first[f"entry/{stream}/angle"][...], angles, equal_nan=True)


def test_the_record_has_image_key_3_and_the_same_numbers(session, folders):
    with h5py.File(folders[1].nexus) as file:
        keys = file["entry/instrument/detector/image_key"][...]
        frames = file["entry/instrument/detector/data"][...]
        assert np.flatnonzero(keys == 3).tolist() == [1, *(8 + n for n in LOST["primary"])]
        assert not frames[keys == 3].any()
        assert frames[keys != 3].any(axis=(1, 2)).all()
        books = file["entry/acquisition"]
        assert (books["complete"][()], books["num_missing"][()]) == (0, 6)
        assert books["fault"].asstr()[()] == "6 of 56 frames are missing"
        assert books["primary_missing"][...].tolist() == LOST["primary"]
        assert books["primary_used"][()] == 43


def test_the_catalogue_finds_it_by_what_it_lacks(session):
    whole, holed, again = (summary["uid"] for summary in session["summaries"])
    assert session["found"] == {
        "complete": [whole, again],
        "incomplete": [holed],
        "missing": [holed],
        "named": [holed],
    }


def test_the_command_line_names_the_frames(session, apsber, data_root, folders):
    uid = session["summaries"][1]["uid"]
    options = ["--data-root", data_root, "--json"]
    frames = apsber("frames", uid, "--each", *options)
    books = frames.json
    assert books["streams"]["primary"]["missing"] == "0, 7-9, 30"
    assert "missing in darks: 1" in frames.stderr
    states = {(line["stream"], line["index"]): line["states"] for line in books["each"]}
    missing = {place for place, own in states.items() if "missing" in own}
    assert missing == {(stream, n) for stream, numbers in LOST.items() for n in numbers}
    assert {place for place, own in states.items() if "used" in own} == set(states) - missing
    status = apsber("status", uid, *options).json
    assert (status["state"], status["reason"]) == ("incomplete", "6 of 56 frames are missing")
    assert "incomplete: 6 of 56 frames are missing" in apsber("show", uid, *options).stderr
    quality = json.loads(folders[1].quality.read_text())
    assert (quality["complete"], quality["frames"]["num_missing"]) == (False, 6)


def test_the_attenuation_is_that_of_the_whole_scan(folders):
    import zarr

    whole, holed = (zarr.open_array(one.volume / "0", mode="r")[8:16] for one in folders[:2])
    y, x = np.mgrid[:40, :40] - 20
    inside = np.hypot(x, y) < 15
    # Left out without new weights, 5 of 48 projections would take 10 per cent off.
    assert holed[:, inside].mean() / whole[:, inside].mean() == pytest.approx(1, abs=0.03)
