"""A run on disk is prepared as the session prepared it while it ran, however it is cut."""

from __future__ import annotations

import threading

import h5py
import numpy as np
import pytest
import zarr

from apsber_bluesky.core import InputError, PhaseSettings
from apsber_bluesky.pipeline import (
    OfflineJob,
    OfflinePreparation,
    References,
    plan_slabs,
    reconstruct_offline,
)
from apsber_bluesky.processing import FrameGeometry, IterativeSettings
from apsber_bluesky.storage import open_scan

CENTRE = 21.0
# Its reach is a pixel: what lies 16 rows off still counts in the last bits.
PHASE = PhaseSettings(delta_over_beta=100.0, energy_keV=20.0, distance_mm=50.0)


class Kept:
    """A sink in memory."""

    deposit = None

    def __init__(self, shape):
        self.volume, self.processes = np.full(shape, np.nan, np.float32), None

    def write(self, first_slice, slab):
        self.volume[first_slice : first_slice + len(slab)] = slab


class Quiet:
    def stage(self, run_uid, stage, done, total):
        """Nobody looks."""

    message = stage


@pytest.fixture
def run(make_run):
    """A run whose beam was weaker when the second half of its flats was taken."""
    made = make_run()
    made.description = made.description.model_copy(update={"flat_mode": "both"})
    with h5py.File(made.folder.raw, "r+") as file:
        flats = file["entry/flats/data"]
        half = len(flats) // 2
        flats[half:] = (flats[half:] * 0.9).astype(flats.dtype)
        frames = file["entry/primary/data"]
        frames[5, 3, 7] = 60000
    return made


def offline(folder, *, slab_slices=None, rows=None, **changes):
    scan = open_scan(folder.path)
    first, last = rows or (0, scan.rows)
    geometry = FrameGeometry(scan.rows, scan.columns, CENTRE, first, last)
    preparation = OfflinePreparation(**changes)
    job = OfflineJob(scan, geometry, "gridding", preparation=preparation)
    references = References.measure(scan, interpolated=preparation.flats == "interpolate")
    plan = plan_slabs(job, free_bytes=8 << 30, by_value=True, workers=1, slab_slices=slab_slices)
    sink = Kept(job.shape)
    reconstruct_offline(job, references, plan, sink, progress=Quiet(), cancelled=threading.Event())
    return sink


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"flats": "interpolate"},
        {"zingers": 0.3},
        {"phase": PHASE},
        {"stripes": "sorting"},
        {"stripes": "wavelet", "extend_edges": True},
        {
            "flats": "interpolate",
            "zingers": 0.3,
            "phase": PHASE,
            "stripes": "sorting",
            "extend_edges": True,
        },
    ],
    ids=lambda changes: "+".join(changes) or "plain",
)
def test_the_volume_is_that_of_the_session(run, make_pipeline, log, changes):
    run.send_through(make_pipeline(engine="gridding", centre=CENTRE, **changes))
    assert log.summary(run.uid)["state"] == "complete"
    # Written in 1/m.
    live = zarr.open_array(run.folder.volume / "0", mode="r")[:] * 5e-6
    sink = offline(run.folder, **changes)
    assert np.abs(sink.volume - live).max() < 1e-6 * np.abs(live).max()
    if changes:
        plain = offline(run.folder).volume
        assert np.abs(sink.volume - plain).max() > 1e-4 * np.abs(live).max()


def test_each_step_is_in_the_provenance(run, make_pipeline):
    run.send_through(make_pipeline(engine="gridding", centre=CENTRE))
    sink = offline(run.folder, flats="interpolate", zingers=0.3, phase=PHASE, stripes="wavelet")
    normalise, stripes, reconstruct = sink.processes
    assert [record.sequence_index for record in sink.processes] == [1, 2, 3]
    assert (stripes.name, stripes.parameters) == ("remove stripes", {"method": "wavelet"})
    found = normalise.parameters
    assert (found["flats"], found["zinger_threshold"], found["phase"]) == (
        "interpolate", 0.3, "Paganin",
    )  # fmt: skip
    assert found["zingers"] >= 1
    assert 0.5 < found["phase_reach_px"] < 2
    assert set(normalise.inputs) == {"dark", "flat before", "flat after"}
    assert reconstruct.parameters["edges_extended"] is False


def test_zingers_are_counted_once_although_slabs_share_rows(tall_scan):
    def count(**options):
        sink = offline(tall_scan, zingers=0.2, phase=PHASE, **options)
        return sink.processes[0].parameters["zingers"]

    assert count(slab_slices=16) == count(slab_slices=64) > 3


class Folder:
    """What `offline` wants of a run folder."""

    def __init__(self, path):
        self.path = path


@pytest.fixture(scope="module")
def tall_scan(tmp_path_factory):
    """A scan of 64 rows with structure in each."""
    random = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("tall") / "scan.nxs"
    smooth = random.uniform(0.2, 1.5, (40, 16, 12)).repeat(4, axis=1).repeat(4, axis=2)
    counts = np.rint(100 + 20000 * np.exp(-smooth)).astype(np.uint16)
    counts[4, 15:17, 20] = counts[9, 16, 30] = counts[20, 40, 7] = 60000
    keys = [2, 1, *[0] * 40]
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry/instrument/detector")
        black, bright = np.full((1, 64, 48), 100), np.full((1, 64, 48), 20100)
        detector["data"] = np.concatenate([black, bright, counts]).astype(np.uint16)
        detector["image_key"] = keys
        detector["x_pixel_size"] = 5e-6
        file["entry/sample/rotation_angle"] = np.r_[0, 0, np.arange(40) * 4.5]
    return Folder(path)


def test_slabs_with_phase_retrieval_agree_to_the_rounding(tall_scan, monkeypatch):
    plain = offline(tall_scan).volume
    one, cut, part = (
        offline(tall_scan, phase=PHASE, zingers=0.3, **options).volume
        for options in ({"slab_slices": 64}, {"slab_slices": 16}, {"rows": (20, 28)})
    )
    largest = np.abs(one).max()
    # Transforms of other lengths round line integrals by 1e-6, and the ramp filter enlarges it.
    assert np.abs(cut - one).max() < 3e-5 * largest
    assert np.abs(part - one[20:28]).max() < 3e-5 * largest
    assert np.abs(plain - one).max() > 0.1 * largest
    # The rows around a slab are what makes it so.
    monkeypatch.setattr(OfflineJob, "halo_rows", 3)
    less = offline(tall_scan, phase=PHASE, zingers=0.3, slab_slices=16).volume
    assert np.abs(less - one).max() > 1e-3 * largest


@pytest.mark.parametrize(
    "changes",
    [{"zingers": 0.2}, {"stripes": "sorting"}, {"stripes": "wavelet", "extend_edges": True}],
    ids=str,
)
def test_slabs_without_phase_retrieval_agree_in_every_bit(tall_scan, changes):
    one = offline(tall_scan, slab_slices=64, **changes).volume
    np.testing.assert_array_equal(offline(tall_scan, slab_slices=16, **changes).volume, one)


def test_flats_of_one_time_alone_are_averaged(tall_scan):
    sink = offline(tall_scan, flats="interpolate")
    assert sink.processes[0].parameters["flats"] == "average"
    np.testing.assert_array_equal(sink.volume, offline(tall_scan).volume)


def test_phase_retrieval_without_a_number_is_refused_by_name(tall_scan):
    scan = open_scan(tall_scan.path)
    geometry = FrameGeometry(scan.rows, scan.columns, CENTRE, 0, scan.rows)
    lacking = OfflinePreparation(phase=PhaseSettings(delta_over_beta=100.0, energy_keV=20.0))
    with pytest.raises(InputError, match=r"needs the distance from sample .* \(--distance-mm\)"):
        OfflineJob(scan, geometry, "gridding", preparation=lacking)


def test_an_iterative_method_extends_no_edges(tall_scan):
    scan = open_scan(tall_scan.path)
    geometry = FrameGeometry(scan.rows, scan.columns, CENTRE, 0, scan.rows)
    settings = IterativeSettings(method="sirt")
    with pytest.raises(InputError, match="an iterative method knows nothing"):
        OfflineJob(
            scan,
            geometry,
            "gridding",
            iterative=settings,
            preparation=OfflinePreparation(extend_edges=True),
        )


def test_memory_counts_what_is_held_and_what_lies_around_a_slab(tall_scan):
    scan = open_scan(tall_scan.path)
    geometry = FrameGeometry(scan.rows, scan.columns, CENTRE, 0, scan.rows)

    def needed(**changes):
        preparation = OfflinePreparation(**changes)
        job = OfflineJob(scan, geometry, "gridding", preparation=preparation)
        return plan_slabs(job, free_bytes=8 << 30, by_value=True, slab_slices=16).task_bytes

    plain, held = needed(), needed(stripes="sorting")
    assert held - plain >= 40 * 16 * 48 * 4
    assert needed(phase=PHASE) > plain
