"""Slabs fit into memory, cover the volume and are estimated from above."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import ImageKey, InputError
from apsber_bluesky.pipeline import OfflineJob, SlabPlan, bytes_read, plan_slabs
from apsber_bluesky.processing import FrameGeometry
from apsber_bluesky.storage import FrameStack, ScanFile

GB = 10**9


def make_job(
    rows: int = 2048, columns: int = 2048, projections: int = 1500, *, whole=False, **geometry
) -> OfflineJob:
    stacks = {kind: FrameStack("/x", np.arange(20)) for kind in (ImageKey.FLAT, ImageKey.DARK)}
    stacks[ImageKey.PROJECTION] = FrameStack("/exchange/data", np.arange(projections))
    angles = np.arange(projections) * 180 / projections
    scan = ScanFile(Path("scan.h5"), "DXchange", rows, columns, "<u2", stacks, angles, None, whole)
    middle = (columns - 1) / 2
    return OfflineJob(scan, FrameGeometry(rows, columns, middle, 0, rows, **geometry), "finufft")


def check(plan: SlabPlan, slices: int) -> None:
    starts = [first for first, _ in plan.slabs]
    stops = [stop for _, stop in plan.slabs]
    assert starts == [0, *stops[:-1]]
    assert stops[-1] == slices
    assert all(first % 16 == 0 for first in starts)
    assert plan.total_bytes <= plan.free_bytes


@pytest.mark.parametrize("free", [4 * GB, 8 * GB, 24 * GB, 200 * GB])
@pytest.mark.parametrize("workers", [1, 2, 7, 64])
@pytest.mark.parametrize(
    "changes",
    [{}, {"rows": 70}, {"bin": 2}, {"tilt_deg": 1.0}, {"whole": True}, {"projections": 3000}],
    ids=str,
)
def test_slabs_cover_the_volume_within_memory(free, workers, changes):
    job = make_job(**changes)
    plan = plan_slabs(job, workers=workers, free_bytes=free, by_value=False)
    check(plan, job.geometry.slices)
    assert plan.workers <= workers


def test_less_memory_means_thinner_slabs_and_then_fewer_workers():
    job = make_job()
    plans = [
        plan_slabs(job, workers=8, free_bytes=free * GB, by_value=False) for free in (60, 12, 4)
    ]
    heights = [plan.slabs[0][1] for plan in plans]
    workers = [plan.workers for plan in plans]
    assert (heights[0], workers[0]) == (128, 8)
    assert heights[1] < 128
    assert 1 <= workers[2] < workers[1] <= 8


def test_too_little_memory_is_refused_with_advice():
    with pytest.raises(InputError, match=r"needs \d\.\d GB for 16 slices, 0.5 GB are free: bin"):
        plan_slabs(make_job(), workers=2, free_bytes=GB // 2, by_value=False)


def test_frames_that_are_decoded_whole_are_decoded_as_seldom_as_can_be():
    rows, whole = (
        plan_slabs(make_job(whole=kind), workers=2, free_bytes=60 * GB, by_value=False)
        for kind in (False, True)
    )
    assert len(whole.slabs) == 2 < len(rows.slabs)
    volume = 1500 * 2048 * 2048 * 2
    assert bytes_read(make_job(whole=True), whole) == 2 * volume
    assert bytes_read(make_job(), rows) == volume


def test_slabs_that_come_back_by_value_need_more_memory():
    job = make_job()
    free = {"free_bytes": 24 * GB, "workers": 2, "slab_slices": 64}
    assert (
        plan_slabs(job, by_value=True, **free).total_bytes
        > plan_slabs(job, by_value=False, **free).total_bytes + 2 * 2 * 64 * 2048 * 2048 * 4
    )


def test_what_is_done_sooner_than_processes_start_is_done_in_one():
    small = plan_slabs(make_job(64, 64, 90), free_bytes=8 * GB, by_value=False)
    assert (small.workers, len(small.slabs)) == (1, 1)


@pytest.mark.parametrize("height", [0, -16])
def test_slabs_without_slices_are_refused(height):
    with pytest.raises(InputError, match=f"slabs of {height} slices"):
        plan_slabs(make_job(), workers=1, free_bytes=GB, by_value=False, slab_slices=height)


_ALL_STEPS = "--stripes wavelet --zingers 0.3 --phase 100 --energy-keV 20 --distance-mm 40"


@pytest.mark.parametrize(
    ("engine", "output", "options"),
    [
        ("gridding", "v.zarr", ""),
        ("gridding", "v.h5", ""),
        ("finufft", "v.zarr", ""),
        ("finufft", "v.h5", ""),
        ("gridding", "v.zarr", f"{_ALL_STEPS} --pixel-size 5 --extend-edges"),
    ],
)
def test_no_more_memory_is_taken_than_was_estimated(tmp_path, engine, output, options):
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["exchange/data"] = random.integers(9000, 20000, (300, 48, 700), dtype="u2")
        file["exchange/data_white"] = np.full((3, 48, 700), 30000, np.uint16)
        file["exchange/data_dark"] = np.full((3, 48, 700), 100, np.uint16)
        file["exchange/theta"] = np.arange(300) * 0.6
    command = [sys.executable, "-m", "apsber_bluesky.cli", "reconstruct", "scan.h5", "-o", output]
    command += ["--engine", engine, "--centre", "350", "--jobs", "1", "--json"]
    command += options.split()
    code = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024\n"
        "print(json.dumps([done.returncode, done.stdout, done.stderr, peak]))"
    )
    run = [sys.executable, "-c", code, *command]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    status, out, err, peak = json.loads(done.stdout)
    assert status == 0, err
    estimated = json.loads(out)["plan"]["memory_bytes"]
    assert peak < estimated
    # An estimate that is far too high would waste the machine.
    assert peak > estimated / 4
