"""Slices of the volume while it is scanned: from the detector to a PV Access client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apsber_bluesky.core import forgo_real_time
from apsber_bluesky.storage import open_volume

forgo_real_time()

from p4p.client.thread import Context  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

# Each line that it reads is a scan; then it tells of the run.
SESSION = """
import json, sys
from apsber_bluesky.session import start

small = {
    "simulation": {"rows": 24, "columns": 40},
    "processing": {"chunk_projections": 8, "live_slices": {"hz": 20}},
}
told = []
with start("simulated", small) as s:
    s.board.listen(lambda m: told.append(m) if m["type"] == "live_slices" else None)
    print(json.dumps(s._workplace.services["monitor"].answer), flush=True)
    d = s.devices
    for _ in sys.stdin:
        told.clear()
        (uid,) = s.RE(
            s.plans.fly_tomography(d.camera, d.rotation, d.shutter, d.sample_x, num_projections=64)
        )
        summary = s.wait(uid, 60)
        print(json.dumps({**summary, "uid": uid, "told": told}), flush=True)
"""


@pytest.fixture
def session(apsber, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION],
        env={**apsber.environment, "APSBER_DATA_ROOT": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_three_slices_grow_on_pvs_while_the_scan_runs(session, wait_until):
    ready = json.loads(session.stdout.readline())
    settings = {
        "EPICS_PVA_NAME_SERVERS": ready["name_server"],
        "EPICS_PVA_ADDR_LIST": "",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }
    seen = {"XY": [], "XZ": [], "YZ": []}
    runs = []
    with Context("pva", conf=settings, useenv=False) as client:
        for plane, images in seen.items():
            client.monitor(f"APSBER:Live:{plane}", images.append)
        wait_until(lambda: all(seen.values()))
        assert {images[0].raw.uniqueId for images in seen.values()} == {-1}
        for _ in range(2):
            session.stdin.write("scan\n")
            session.stdin.flush()
            runs.append(json.loads(session.stdout.readline()))
            own = runs[-1]["uid"]
            for images in seen.values():
                wait_until(
                    lambda images=images, own=own: (
                        images[-1].attrib.get("RunUid") == own and images[-1].raw.uniqueId == 64
                    )
                )
    first, second = runs
    # 1/m -> 1/pixel
    volume = open_volume(Path(second["folder"]) / "volume.zarr")[:] * 5e-6
    for plane, images in seen.items():
        of_run = [image for image in images if image.attrib.get("RunUid") == second["uid"]]
        numbers = [image.raw.uniqueId for image in of_run]
        assert numbers == sorted(numbers)
        last = of_run[-1]
        assert last.shape == ((40, 40) if plane == "XY" else (24, 40))
        assert (last.attrib["CentreFrom"], last.attrib["Binning"]) == ("last run", 1)
        assert last.attrib["Centre"] == first["centre_px"]
        assert (last.attrib["Plane"], last.severity) == (plane, 0)
        # It is what the volume holds there, but that was made about the second run's centre.
        z, y, x = (size // 2 for size in volume.shape)
        expected = {"XY": volume[z], "XZ": volume[:, y], "YZ": volume[:, :, x]}[plane]
        assert np.corrcoef(np.asarray(last).ravel(), expected.ravel())[0, 1] > 0.99
        assert np.sum(last) == pytest.approx(np.sum(expected), rel=0.02)
    # What the session is told, with the time from a projection to its slice.
    told = second["told"]
    assert (told[-1]["used"], told[-1]["total"], told[-1]["dropped"]) == (64, 64, 0)
    assert all(0 <= message["latency_s"] < 60 for message in told)
    assert first["told"][-1]["centre_from"] == "middle of the frame"
