"""Bragg hits of the simulated EIGER: flagged as frames come; enough of them end the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SESSION = """
import json
from apsber_bluesky.session import start
from apsber_bluesky.storage import connect_catalog

changes = {
    "simulation": {
        "rows": 128, "columns": 128, "energy_keV": 12.4,
        "detectors": ["eiger", "jungfrau", "vortex"],
    },
    "storage": {"archive": False},
    "analysis": {"hits": {"least_peaks": 3}},
}
with start("simulated", changes) as s:
    d, take = s.devices, s.plans.scattering_series
    (first,) = s.RE(take(d.eiger, d.shutter, num_frames=4, exposure_s=0.05))
    # By then the search has been compiled, and keeps up.
    summaries = [s.wait(first, 150)]
    (uid,) = s.RE(take(
        d.eiger, d.shutter, num_frames=4, exposure_s=0.05,
        axis=d.sample_x, positions_mm=[0.0] * 30, stop_after_hits=6,
    ))
    summaries.append(s.wait(uid, 60))
    hits = connect_catalog(s.tiled_uri)["processed"][uid]["hits"]["entry"]["hits"]
    flags = hits["flag"].read().tolist()
print("RESULT " + json.dumps({"summaries": summaries, "flags": flags}))
"""


def test_a_run_is_flagged_published_and_ended_by_its_hits(tmp_path: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        env={**kept, "APSBER_DATA_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert "RESULT " in done.stdout, done.stdout[-4000:] + done.stderr[-6000:]
    found = json.loads(done.stdout.rpartition("RESULT ")[2])
    whole, stopped = found["summaries"]
    assert whole["state"] == stopped["state"] == "complete"
    frames = stopped["frames"]["expected"]
    # It takes two positions; the search may be some behind, but not all the way.
    assert 8 <= frames < 120
    assert frames % 4 == 0
    with h5py.File(Path(stopped["folder"]) / "hits.h5") as file:
        flags = file["entry/hits/flag"][:].tolist()
        assert len(file["entry/veto"]) == flags.count(0)
    # The simulated crystal is always in the beam.
    assert flags == found["flags"] == [1] * frames
