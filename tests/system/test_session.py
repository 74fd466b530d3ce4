"""A session as a person or a script uses it, in a fresh interpreter."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]


def environment(tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    return {**kept, "APSBER_DATA_ROOT": str(tmp_path)}


SESSION = """
import json
from collections import Counter

import numpy as np
from event_model import DocumentNames, schema_validators

from apsber_bluesky.session import start

small = {"simulation": {"rows": 24, "columns": 40}}
scan = {"num_projections": 24, "exposure_s": 0.13, "num_darks": 2, "num_flats": 3}
with start("simulated", small) as s:
    d = s.devices
    documents = []
    s.RE.subscribe(lambda name, document: documents.append((name, document)))
    devices = (d.camera, d.rotation, d.shutter, d.sample_x)
    uids = []
    plans = [
        s.plans.fly_tomography(*devices, **scan, flat_mode="both", sample="a", md={"note": "fly"}),
        s.plans.step_tomography(*devices, num_projections=24, num_darks=2, num_flats=3),
    ]
    summaries = []
    for plan in plans:
        (uid,) = s.RE(plan)
        uids.append(uid)
        summaries.append(s.wait(uid, 60))
    for name, document in documents:
        schema_validators[DocumentNames[name]].validate(document)
    boundaries = [i for i, (name, _) in enumerate(documents) if name == "start"]
    counted = [Counter(n for n, _ in documents[:boundaries[1]]),
               Counter(n for n, _ in documents[boundaries[1]:])]
    starts = [doc for name, doc in documents if name == "start"]

    from databroker import Broker
    from tiled.queries import Key

    run = s.catalog[uids[0]]
    broker = Broker(s.catalog)
    found = list(s.processed.search(Key("sample") == "a"))
    raw = np.asarray(run["primary"]["camera_image"][5])
    table = broker[uids[1]].table()
    read = np.asarray(list(broker[uids[0]].data("camera_image")))
    processed = s.processed[uids[0]]["volume"]
    print("RESULT", json.dumps({
        "uids": uids,
        "states": [x["state"] for x in summaries],
        "frames": [x["frames"] for x in summaries],
        "shapes": [x["volume_shape"] for x in summaries],
        "streams": sorted(run),
        "image_shapes": {name: list(run[name]["camera_image"].shape)
                         for name in ("darks", "flats", "primary")},
        "projection_has_counts": bool(raw.any()),
        "found": found,
        "volume_mean": float(processed.read().mean()),
        "documents": [sorted(c) for c in counted],
        "angles": [round(float(a), 3) for a in table["rotation"]],
        "broker_frames": [list(read.shape), bool(np.array_equal(read[5], raw))],
        "broker_start": broker[-1].start["plan_name"],
        "baseline": sorted(run["baseline"].read()),
        "start": {k: starts[0][k] for k in
                  ("plan_name", "detectors", "motors", "num_points", "sample", "note", "scan_id",
                   "proposal_id", "beamline_id")},
        "tomography": starts[0]["tomography"],
    }))
"""


@pytest.fixture(scope="module")
def session(run_python, tmp_path_factory):
    done = run_python(SESSION, env=environment(tmp_path_factory.mktemp("session")))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def test_fly_and_step_scans_are_complete(session):
    assert session["states"] == ["complete", "complete"]
    assert session["shapes"] == [[24, 40, 40]] * 2
    assert session["frames"][0] == dict.fromkeys(("expected", "received", "written", "used"), 32)
    assert session["frames"][1] == dict.fromkeys(("expected", "received", "written", "used"), 29)


def test_one_run_has_darks_flats_projections_and_baseline(session):
    assert session["streams"] == ["baseline", "darks", "flats", "primary"]
    assert session["image_shapes"] == {
        "darks": [2, 24, 40],
        "flats": [6, 24, 40],
        "primary": [24, 24, 40],
    }
    assert session["projection_has_counts"]
    assert {"shutter_state", "storage_ring_current", "sample_x"} <= set(session["baseline"])


def test_documents_pass_their_schemas_and_name_external_frames(session):
    for documents in session["documents"]:
        assert {"start", "descriptor", "stream_resource", "stream_datum", "stop"} <= set(documents)


def test_start_document_has_what_users_expect(session):
    assert session["start"] == {
        "plan_name": "fly_tomography",
        "detectors": ["camera"],
        "motors": ["rotation"],
        "num_points": 24,
        "sample": "a",
        "note": "fly",
        "scan_id": 1,
        "proposal_id": "commissioning",
        "beamline_id": "SIM",
    }
    assert session["tomography"]["num_flats"] == 6


def test_step_scan_read_the_angles_back(session):
    assert session["angles"] == pytest.approx([7.5 * n for n in range(24)], abs=0.01)


def test_processed_volume_is_found_by_sample_and_through_databroker(session):
    assert session["found"] == [session["uids"][0]]
    assert session["volume_mean"] > 0
    assert session["broker_start"] == "step_tomography"
    assert session["broker_frames"] == [[24, 24, 40], True]
