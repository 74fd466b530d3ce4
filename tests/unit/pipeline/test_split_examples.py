"""Parts of a scan share no projection, average to the whole, and become examples."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import ImageKey, InputError
from apsber_bluesky.pipeline import OfflineJob, References, SplitPlan, make_split_examples
from apsber_bluesky.pipeline._split_reconstructions import (
    reconstruct_parts,
    see_with_parts,
    split_job,
    spread_blocks,
)
from apsber_bluesky.processing import FrameGeometry, IterativeSettings
from apsber_bluesky.simulation import make_phantom
from apsber_bluesky.storage import open_scan

ROWS, COLUMNS, PROJECTIONS = 4, 96, 120
CENTRE = 47.0
FLAT = 20_000
PLAN = SplitPlan(splits=4, blocks=2, slices=5, patch=32)


def write_scan(path: Path, *, photons: float | None, phantom: bool = True) -> Path:
    """A DXchange scan of the Shepp-Logan phantom."""
    random = np.random.default_rng(2)
    angles = np.arange(PROJECTIONS) * 180 / PROJECTIONS
    seen = make_phantom("shepp_logan")
    lines = np.stack(
        [seen.project(a, rows=ROWS, columns=COLUMNS, centre_px=CENTRE) for a in angles]
    )
    counts = FLAT * np.exp(-lines if phantom else 0 * lines)
    if photons is not None:
        counts = random.poisson(counts * photons / FLAT) * FLAT / photons
    with h5py.File(path, "w") as file:
        file["exchange/data"] = counts.astype(np.float32)
        file["exchange/data_white"] = np.full((4, ROWS, COLUMNS), FLAT, np.float32)
        file["exchange/data_dark"] = np.zeros((4, ROWS, COLUMNS), np.float32)
        file["exchange/theta"] = angles
    return path


def job_of(path: Path) -> tuple[OfflineJob, References]:
    scan = open_scan(path)
    geometry = FrameGeometry(ROWS, COLUMNS, CENTRE, 0, ROWS)
    return OfflineJob(scan, geometry, "gridding"), References.measure(scan)


def test_parts_take_turns_by_angle_and_share_nothing(tmp_path: Path) -> None:
    job, _ = job_of(write_scan(tmp_path / "s.h5", photons=None))
    # Interlaced: the order of the file is not that of the angles.
    shuffled = np.random.default_rng(1).permutation(job.angles_deg)
    job = replace(job, scan=job.scan.with_angles(shuffled))
    jobs = split_job(job, 3)
    numbers = [part.scan.numbers(ImageKey.PROJECTION) for part in jobs]
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(PROJECTIONS))
    for part in jobs:
        np.testing.assert_allclose(np.diff(np.sort(part.angles_deg)), 3 * 180 / PROJECTIONS)


def test_parts_average_to_the_whole(tmp_path: Path) -> None:
    job, references = job_of(write_scan(tmp_path / "s.h5", photons=2000))
    parts = reconstruct_parts(split_job(job, 4), references, 0, ROWS)
    (whole,) = reconstruct_parts([job], references, 0, ROWS)
    assert np.abs(parts.mean(axis=0) - whole).max() < 0.02 * whole.max()
    assert np.abs(parts[0] - whole).max() > 0.2 * whole.max()


@pytest.mark.parametrize(
    ("slices", "blocks", "expected"),
    [
        (2, 8, [(0, 2)]),
        (40, 8, [(0, 16), (16, 32), (24, 40)]),
        (160, 1, [(80, 96)]),
        (160, 2, [(32, 48), (112, 128)]),
    ],
)
def test_blocks_are_whole_and_spread_over_the_volume(slices, blocks, expected) -> None:
    assert spread_blocks(slices, blocks) == expected


@pytest.mark.parametrize(
    ("splits", "change", "message"),
    [
        (1, {}, "120 projections cannot be split into 1 parts; give from 2 to 15"),
        (16, {}, "cannot be split into 16 parts"),
        (4, {"iterative": IterativeSettings(method="cgls")}, "not with cgls; use --method fbp"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path, splits, change, message) -> None:
    job, _ = job_of(write_scan(tmp_path / "s.h5", photons=None))
    with pytest.raises(InputError, match=message):
        split_job(replace(job, **change), splits)


def make(folder: Path, path: Path, plan: SplitPlan = PLAN, **options: Any) -> Any:
    job, references = job_of(path)
    how = {"origin": "test", "made_with": {"scan": path.name}, "cancelled": threading.Event()}
    return make_split_examples(job, references, folder, plan, **{**how, **options})


def test_what_goes_in_is_the_mean_of_the_other_parts(tmp_path: Path) -> None:
    lit = make(tmp_path / "a", write_scan(tmp_path / "s.h5", photons=500))
    inputs, targets = lit.training.inputs(0), lit.training.targets(0)
    # Slices are mirrored beyond both ends; rows up to the middle are trained on.
    assert inputs.shape == targets.shape == (4, ROWS + 4, COLUMNS // 2, COLUMNS)
    np.testing.assert_array_equal(inputs[:, 0], inputs[:, 4])
    assert lit.held_out.inputs(0).shape[2:] == (32, COLUMNS)
    values = targets.astype(np.float64)
    mean = values.mean(axis=0)
    for part in range(4):
        np.testing.assert_allclose(
            inputs[part], (4 * mean - values[part]) / 3, atol=2e-2, rtol=1e-2
        )


def test_an_estimate_takes_the_streaks_of_few_angles_out_of_the_parts(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "s.h5", photons=None)
    job, references = job_of(path)
    (whole,) = reconstruct_parts([job], references, 0, ROWS)
    seen = see_with_parts(split_job(job, 4), whole)
    parts = reconstruct_parts(split_job(job, 4), references, 0, ROWS)
    # Without noise, what a part shows of the object is the part itself.
    inner = np.s_[:, :, 24:72, 24:72]
    streaks = float(np.std((parts - whole)[inner]))
    assert float(np.std((parts - seen)[inner])) < 0.35 * streaks

    plain = make(tmp_path / "a", path, PLAN)
    better = make(tmp_path / "b", path, PLAN, denoise=lambda slices, level: slices)

    def spread(examples: Any) -> float:
        return float(examples.training.targets(0).astype(np.float64).std(axis=0).mean())

    assert spread(better) < 0.35 * spread(plain)


def test_an_estimate_leaves_noise_independent(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "s.h5", photons=300)
    truth = make_phantom("shepp_logan").volume(ROWS, COLUMNS)
    plain = make(tmp_path / "a", path)
    better = make(tmp_path / "b", path, denoise=lambda slices, level: truth.astype(np.float32))
    assert abs(better.independence - 1) < 0.08
    assert abs(better.independence - 1) < abs(plain.independence - 1)


def test_examples_of_another_scan_are_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "a", write_scan(tmp_path / "s.h5", photons=500))
    first = (tmp_path / "a" / "examples" / "00000-inputs.npy").read_bytes()
    with pytest.raises(InputError, match="holds other examples"):
        make(tmp_path / "a", write_scan(tmp_path / "t.h5", photons=500))
    make(tmp_path / "a", tmp_path / "s.h5")
    assert (tmp_path / "a" / "examples" / "00000-inputs.npy").read_bytes() == first


def test_too_small_slices_and_empty_ones_are_refused(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "s.h5", photons=None)
    with pytest.raises(InputError, match="96 x 96 pixels are too small for patches of 64; give"):
        make(tmp_path / "a", path, replace(PLAN, patch=64))
    nothing = write_scan(tmp_path / "n.h5", photons=None, phantom=False)
    with pytest.raises(InputError, match=r"no object stands out|must be positive"):
        make(tmp_path / "b", nothing)
