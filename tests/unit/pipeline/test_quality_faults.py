"""Each fault that the simulated beamline can have moves its quality numbers the right way."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    AnalysisSettings,
    FrameRange,
    ImageKey,
    ProcessingSettings,
    RunDescription,
    RunFolder,
    RunLedger,
    SeriesBooks,
    SimulationSettings,
    TomographyScan,
)
from apsber_bluesky.pipeline import Assess, FindCentre, Reconstruct, TomographyPipeline
from apsber_bluesky.simulation import PhantomSource
from apsber_bluesky.storage import VolumeWriter
from apsber_bluesky.streaming import RingOrFileSource

ROWS, COLUMNS, PROJECTIONS, REFERENCES = 16, 64, 60, 4
CENTRE = (COLUMNS - 1) / 2 + 2.25


class Quiet:
    def stage(self, *_):
        pass

    def message(self, *_):
        pass


def open_volume(folder, shape, voxel_size_um):
    return VolumeWriter(folder.volume, shape, voxel_size_um=voxel_size_um)


def frames_of(settings: dict, stop_deg: float) -> dict[str, np.ndarray]:
    wanted = {"phantom": "soil", "dead_pixel_fraction": 0.0, "centre_offset_px": 2.25, **settings}
    source = PhantomSource(SimulationSettings(rows=ROWS, columns=COLUMNS, **wanted))
    angles = np.arange(PROJECTIONS) * (stop_deg / PROJECTIONS)
    still = np.zeros(REFERENCES)
    taken: dict[str, list[np.ndarray]] = {"darks": [], "flats": [], "primary": []}
    unique_id = 0
    for stream, kind, places in (
        ("darks", ImageKey.DARK, still),
        ("flats", ImageKey.FLAT, still),
        ("primary", ImageKey.PROJECTION, angles),
        ("flats", ImageKey.FLAT, still),
    ):
        for angle in places:
            unique_id += 1
            image = source.image(kind, number=0, unique_id=unique_id, angle_deg=float(angle))
            taken[stream].append(image)
    return {stream: np.array(images) for stream, images in taken.items()}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Quality numbers of a scan with a fault; those of a good one are measured once."""
    root, known = tmp_path_factory.mktemp("faults"), {}

    def measure(settings=None, *, stop_deg=180.0, lost=(), centre=CENTRE):
        key = json.dumps([settings, stop_deg, list(lost), centre])
        if key in known:
            return known[key]
        frames = frames_of(settings or {}, stop_deg)
        scan = TomographyScan(
            num_projections=PROJECTIONS, rotation_stop_deg=stop_deg, rows=ROWS, columns=COLUMNS,
            num_flats=2 * REFERENCES, num_darks=REFERENCES, dtype="<u2", exposure_s=0.1,
        )  # fmt: skip
        uid = f"run-{len(known)}"
        run = RunDescription(uid=uid, tomography=scan, flat_mode="both")
        folder = RunFolder.of(root, run.proposal, uid).create()
        frames["primary"][list(lost)] = 0
        with h5py.File(folder.raw, "w") as file, RunLedger(folder.ledger, create=True) as ledger:
            for stream, images in frames.items():
                file[f"entry/{stream}/data"] = images
                gone = list(lost) if stream == "primary" else []
                here = len(images) - len(gone)
                ledger.set_books(stream, SeriesBooks(len(images), here, here, missing=gone))
        processing = ProcessingSettings(centre=centre)
        stages = [
            FindCentre(processing),
            Reconstruct(processing, open_volume),
            Assess(AnalysisSettings(), processing),
        ]
        pipeline = TomographyPipeline(root, RingOrFileSource(), processing, stages, Quiet())
        pipeline.begin_run(run)
        for stream, images in frames.items():
            place = f"/entry/{stream}/data"
            pipeline.frames(FrameRange(uid, stream, 0, len(images), folder.raw.as_uri(), place))
        pipeline.end_run(uid, "success", "")
        pipeline.close()
        found = json.loads(folder.quality.read_text())["metrics"]
        known[key] = {metric["name"]: metric["value"] for metric in found}
        return known[key]

    return measure


@pytest.mark.parametrize(
    ("fault", "name", "least"),
    [
        ({"settings": {"gain_change": 0.05}}, "ring_score", 2.0),
        ({"settings": {"drift_px": 3.0}}, "drift", 5.0),
        ({"settings": {"drift_px": 1.5}, "stop_deg": 360.0}, "drift", 5.0),
        ({"settings": {"flat_counts": 400.0}}, "resolution", 1.3),
        ({"settings": {"flat_counts": 400.0}}, "resolution_3d", 1.3),
        ({"settings": {"flat_counts": 400.0}}, "signal_to_noise", -3.0),
        ({"settings": {"flat_counts": 400.0}}, "contrast_to_noise", -1.5),
        ({"lost": range(20, 30)}, "missing_frames", 0.0),
        ({"lost": range(20, 30)}, "reprojection_residual", 2.0),
        ({"settings": {"flat_counts": 66000.0}}, "saturated_pixels", 0.0),
        ({"settings": {"dead_pixel_fraction": 0.02}}, "dead_pixels", 0.0),
        ({"settings": {"beam_swing": 0.3}}, "flat_stability", 5.0),
        ({"centre": CENTRE + 3}, "centre_residual", 5.0),
        ({"centre": CENTRE + 3}, "reprojection_residual", 1.5),
    ],
)
def test_a_fault_moves_its_number_by_a_factor(numbers, fault, name, least):
    good = numbers(stop_deg=fault.get("stop_deg", 180.0))[name]
    bad = numbers(**fault)[name]
    if least < 0:
        assert bad * -least < good
    else:
        assert bad > good * least
        assert bad > 0
