"""A consumer on another computer gets every frame of a scan, if it has a key."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

SCRIPT = """
import json
import threading
from pathlib import Path

import numpy as np

from apsber_bluesky.session import start
from apsber_bluesky.streaming import (
    ClientKeys, FanOutClient, allow_key, create_keys, load_keys, load_public_key
)

root = Path({root!r})
server, viewer = root / ".apsber" / "keys", root / "viewer"
create_keys(server, "server")
create_keys(viewer, "viewer")
allow_key(server, viewer / "viewer.key")
changes = {{"simulation": {{"rows": 24, "columns": 40}},
            "streaming": {{"fan_out_address": "tcp://127.0.0.1:*"}}}}
with start("simulated", changes) as s:
    keys = ClientKeys(load_keys(viewer, "viewer"), load_public_key(server / "server.key"))
    client = FanOutClient(s.fan_out_address, keys=keys, patience_s=60)
    frames = []

    def consume():
        for index, frame in client:
            assert index == len(frames)
            frames.append(frame.copy())

    consumer = threading.Thread(target=consume)
    consumer.start()
    d = s.devices
    (uid,) = s.RE(s.plans.fly_tomography(d.camera, d.rotation, d.shutter, d.sample_x,
                                         num_projections=24, num_darks=2, num_flats=2))
    s.wait(uid, 60)
    consumer.join(30)
    stored = np.asarray(s.catalog[uid]["primary"]["camera_image"].read())
    print("RESULT", json.dumps([len(frames), bool(np.array_equal(frames, stored)), client.missing]))
    client.close()
"""


def test_a_remote_consumer_with_a_key_gets_every_projection_in_order(run_python, tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = run_python(
        SCRIPT.format(root=str(tmp_path)), env={**kept, "APSBER_DATA_ROOT": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.rpartition("RESULT ")[2]) == [24, True, []]


def test_a_fan_out_without_keys_is_refused_in_one_line(apsber, tmp_path):
    profile = tmp_path / "beamline.yaml"
    profile.write_text(
        "name: x\nsession: {beamline_id: a, instrument_name: b}\nsimulation: {rows: 24}\n"
        "streaming: {fan_out_address: 'tcp://127.0.0.1:*'}\n"
    )
    outcome = apsber("demo", "--profile", profile, "--data-root", tmp_path / "data", "--json")
    assert outcome.status == 1
    assert "apsber keys create server" in outcome.json["error"]
