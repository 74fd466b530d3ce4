"""A session with a Jungfrau's calibration: raw frames on disk, energies in the volume."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from apsber_bluesky.core import RunFolder, file_checksum
from apsber_bluesky.processing import (
    JungfrauMap,
    Normaliser,
    average_reference,
    reconstruct,
    write_jungfrau_map,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

ROWS, COLUMNS, CENTRE = 24, 40, 21.0
PIXEL_M = 5e-6
TAKEN = "2026-05-04T12:00:00+00:00"

SESSION = """
import json, sys

from apsber_bluesky.core import ApsberError
from apsber_bluesky.session import start

# Counts stay below 2**14, so that every pixel reads as one in G0.
changes = {
    "simulation": {"rows": 24, "columns": 40, "flat_counts": 12000, "dead_pixel_fraction": 0},
    "processing": {
        "centre": 21.0,
        "jungfrau": {"pedestal_file": sys.argv[1], "gain_file": sys.argv[2]},
    },
    "storage": {"archive": False},
}
try:
    with start("simulated", changes) as s:
        d = s.devices
        plan = s.plans.fly_tomography(
            d.camera, d.rotation, d.shutter, d.sample_x,
            num_projections=48, exposure_s=0.05, num_darks=4, num_flats=4,
        )
        (uid,) = s.RE(plan)
        print("RESULT", json.dumps(s.wait(uid, 60)))
except ApsberError as error:
    print("RESULT", json.dumps({"error": str(error)}))
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(3)
    shape = (3, ROWS, COLUMNS)
    maps = {
        "pedestal": rng.normal([[[100]], [[14000]], [[14500]]], 2, shape),
        "gain": rng.normal([[[40]], [[-1.5]], [[-0.1]]], 0.01, shape),
    }
    found = {kind: tmp_path / f"{kind}.h5" for kind in maps}
    for kind, values in maps.items():
        write_jungfrau_map(found[kind], JungfrauMap(kind, values.astype(np.float32), TAKEN))
    return found


@pytest.fixture
def run(run_python, tmp_path, files):
    def run():
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
        arguments = ["", *(str(file) for file in files.values())]
        code = f"import sys; sys.argv = {arguments!r}\n{SESSION}"
        done = run_python(code, env={**kept, "APSBER_DATA_ROOT": str(tmp_path / "data")})
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.rpartition("RESULT ")[2])

    return run


def line_integrals(raw: h5py.File) -> np.ndarray:
    """Of the counts: what is the same for all frames of a pixel goes out with the flats."""
    darks, flats, primary = (raw[f"entry/{s}/data"][...] for s in ("darks", "flats", "primary"))
    dark, flat = average_reference(darks, what="darks"), average_reference(flats, what="flats")
    return Normaliser(dark, flat)(primary)


def test_a_profile_with_a_calibration_reconstructs_from_energies_and_says_so(run, files):
    summary = run()
    assert summary["state"] == "complete"
    folder = RunFolder(Path(summary["folder"]))
    with h5py.File(folder.raw) as raw:
        assert raw["entry/primary/data"].dtype == np.uint16
        projections = line_integrals(raw)
        angles = 180 / 48 * np.arange(48)
    expected = reconstruct(projections, angles, CENTRE) / PIXEL_M
    volume = zarr.open_array(folder.volume / "0", mode="r")[:]
    np.testing.assert_allclose(volume, expected, atol=1e-3 * np.abs(expected).max())
    with h5py.File(folder.nexus) as nexus:
        steps = {
            group["parameters"].name.split("/")[-2]: group
            for group in nexus["entry"].values()
            if group.attrs.get("NX_class") == "NXprocess"
        }
        step = next(group for name, group in steps.items() if "jungfrau_energy" in name)
        assert step["sequence_index"][()] == 1
        assert step["parameters/invalid_pixels"][()] == 0
        assert step["parameters/num_frames"][()] == 56
        assert step["parameters/gain_taken"].asstr()[()] == TAKEN
        provenance = {name: value[()] for name, value in step["provenance"].items()}
        assert file_checksum(files["gain"]) in str(provenance)


def test_a_calibration_that_is_no_file_of_maps_ends_the_start_with_one_line(run, files):
    files["gain"].write_bytes(b"no maps")
    error = run()["error"]
    assert str(files["gain"]) in error
    assert "\n" not in error
