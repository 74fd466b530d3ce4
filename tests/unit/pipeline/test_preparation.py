"""Frames become line integrals as the profile asks for it, alone and in a whole run."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from apsber_bluesky.core import (
    InputError,
    PhaseSettings,
    ProcessingSettings,
    RunDescription,
    TomographyScan,
)
from apsber_bluesky.pipeline import _held_projections
from apsber_bluesky.pipeline._held_projections import HeldProjections
from apsber_bluesky.pipeline._preparation import Preparation, ReferenceFrames
from apsber_bluesky.processing import normalise, remove_stripes_by_sorting

ROWS, COLUMNS, COUNT = 12, 24, 10
DARK, LIGHT = 100, 20000


def description(flat_mode="both", num_flats=8, **scan):
    return RunDescription(
        uid="run-1",
        flat_mode=flat_mode,
        scan=TomographyScan(
            num_projections=COUNT,
            num_flats=num_flats,
            num_darks=3,
            rows=ROWS,
            columns=COLUMNS,
            dtype="<u2",
            exposure_s=0.1,
            **scan,
        ),
    )


def references(levels, numbers=None):
    frames = np.stack([np.full((ROWS, COLUMNS), level, np.uint16) for level in levels])
    return ReferenceFrames(frames, list(range(len(levels)) if numbers is None else numbers))


DARKS = references([DARK] * 3)
DECAYED = [DARK + LIGHT] * 4 + [DARK + LIGHT * 3 // 4] * 4


def frames_of(lines, beam=1.0):
    return np.rint(DARK + LIGHT * beam * np.exp(-lines)).astype(np.uint16)


def test_flats_of_both_ends_are_interpolated_over_the_scan():
    beam = 1 - 0.25 * (np.arange(COUNT)[:, None, None] + 0.5) / COUNT
    lines = np.random.default_rng(0).uniform(0, 1, (COUNT, ROWS, COLUMNS))
    frames = frames_of(lines, beam)
    settings = ProcessingSettings(flats="interpolate")
    made = Preparation(description(), settings, DARKS, references(DECAYED))
    np.testing.assert_allclose(made(frames, 0), lines, atol=2e-4)
    np.testing.assert_array_equal(made(frames, 0)[7:], made(frames[7:], 7))
    assert made.parameters["flats"] == "interpolate"
    assert set(made.inputs) == {"dark", "flat before", "flat after"}
    averaged = Preparation(description(), ProcessingSettings(), DARKS, references(DECAYED))
    assert np.abs(averaged(frames, 0) - lines).max() > 0.1
    assert averaged.parameters["flats"] == "average"


@pytest.mark.parametrize(
    ("mode", "flats"),
    [
        ("start", references(DECAYED)),
        ("", references(DECAYED)),
        ("both", references(DECAYED[4:], numbers=[4, 5, 6, 7])),
        ("both", references(DECAYED[:3], numbers=[0, 1, 3])),
    ],
)
def test_flats_of_one_end_are_averaged(mode, flats):
    settings = ProcessingSettings(flats="interpolate")
    made = Preparation(description(mode), settings, DARKS, flats)
    frames = frames_of(np.full((2, ROWS, COLUMNS), 0.5))
    flat = flats.frames.mean(axis=0)
    expected = normalise(frames, np.full((ROWS, COLUMNS), DARK), flat)
    np.testing.assert_allclose(made(frames, 3), expected, atol=1e-6)
    assert made.parameters["flats"] == "average"


def test_bad_references_are_left_out_and_named_by_their_number():
    flats = references([DARK + LIGHT, 90, DARK + LIGHT, DARK + LIGHT], numbers=[0, 2, 5, 7])
    darks = references([DARK, DARK, DARK, 4000])
    made = Preparation(description("start"), ProcessingSettings(), darks, flats)
    assert made.used_flats == [0, 5, 7]
    assert made.used_darks == [0, 1, 2]
    assert made.warnings == [
        "dark 3 is left out: it is brighter than the others",
        "flat 2 is left out: it has 0% of the brightness of the others",
    ]
    assert "flat 2" in made.parameters["references_left_out"]
    frames = frames_of(np.full((1, ROWS, COLUMNS), 0.5))
    np.testing.assert_allclose(made(frames, 0), 0.5, atol=1e-4)


def test_zingers_are_replaced_and_counted():
    frames = frames_of(np.full((4, ROWS, COLUMNS), 1.0))
    frames[1, 3, 4] = frames[3, 0, 23] = 65535
    settings = ProcessingSettings(zingers=0.3)
    made = Preparation(description(), settings, DARKS, references([DARK + LIGHT] * 8))
    np.testing.assert_allclose(made(frames, 0), 1.0, atol=1e-3)
    assert made.parameters["zingers"] == 2
    made(frames[1:2], 1)
    assert made.parameters["zingers"] == 3


SETUP = {"pixel_size_um": 1.0, "energy_keV": 20.0, "sample_detector_distance_mm": 10.0}


def test_phase_retrieval_takes_its_numbers_from_the_scan_unless_the_profile_has_others():
    frames = frames_of(np.random.default_rng(1).uniform(0, 1, (1, ROWS, COLUMNS)))
    flats = references([DARK + LIGHT] * 8)

    def reach(phase, **scan):
        settings = ProcessingSettings(phase=phase)
        made = Preparation(description(**scan), settings, DARKS, flats)
        assert made(frames, 0).std() < 0.5 * normalise(frames, *plain).std()
        return made.parameters["phase_reach_px"]

    plain = np.full((ROWS, COLUMNS), DARK), np.full((ROWS, COLUMNS), DARK + LIGHT)
    from_scan = reach(PhaseSettings(delta_over_beta=2000), **SETUP)
    given = PhaseSettings(delta_over_beta=2000, energy_keV=20.0, distance_mm=10.0)
    assert reach(given, pixel_size_um=1.0) == from_scan
    other = PhaseSettings(delta_over_beta=2000, distance_mm=40.0)
    assert reach(other, **SETUP) == pytest.approx(2 * from_scan)


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        ("energy_keV", "processing.phase.energy_keV"),
        ("sample_detector_distance_mm", "processing.phase.distance_mm"),
        ("pixel_size_um", "pixel size"),
    ],
)
def test_phase_retrieval_without_a_number_says_which(left_out, named):
    scan = {name: value for name, value in SETUP.items() if name != left_out}
    settings = ProcessingSettings(phase=PhaseSettings(delta_over_beta=1000))
    with pytest.raises(InputError, match=named):
        Preparation(description(**scan), settings, DARKS, references([DARK + LIGHT] * 8))


def test_flats_that_were_all_lost_are_an_error():
    none = ReferenceFrames(np.zeros((0, ROWS, COLUMNS), np.uint16), [])
    with pytest.raises(InputError, match="give at least one frame"):
        Preparation(description(), ProcessingSettings(), DARKS, none)


def test_the_start_document_says_when_flats_were_taken():
    start = {
        "uid": "a",
        "tomography": description().scan.model_dump(),
        "reference_frames": {"flat_mode": "both"},
    }
    assert RunDescription.from_start(start).flat_mode == "both"
    del start["reference_frames"]
    assert RunDescription.from_start(start).flat_mode == ""


def test_held_projections_lose_the_stripes_of_those_that_are_there():
    lines = np.random.default_rng(2).normal(1, 0.1, (COUNT, ROWS, COLUMNS)).astype(np.float32)
    held = HeldProjections(description().scan, "sorting")
    held.keep(lines[:6], 0)
    held.keep(lines[6:], 6)
    kept = [0, 1, 2, 4, 5, 6, 9]
    expected = lines[kept]
    remove_stripes_by_sorting(expected)
    np.testing.assert_array_equal(held.without_stripes(kept)[kept], expected)


def test_projections_that_cannot_be_held_are_refused_before_the_first(monkeypatch):
    monkeypatch.setattr(_held_projections, "free_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"set processing.stripes to none"):
        HeldProjections(description().scan, "wavelet")


def volume_of(run):
    return zarr.open_array(run.folder.volume / "0", mode="r")[:]


@pytest.mark.parametrize("stripes", ["sorting", "wavelet"])
def test_a_run_without_stripes_is_complete_and_other_than_with_them(
    make_run, make_pipeline, log, stripes
):
    runs = {uid: make_run(uid) for uid in ("plain", "calm", "again")}
    runs["plain"].send_through(make_pipeline(centre=21.0))
    for uid, chunk in (("calm", 32), ("again", 7)):
        pipeline = make_pipeline(centre=21.0, stripes=stripes, chunk_projections=chunk)
        runs[uid].send_through(pipeline)
    assert {log.summary(uid)["state"] for uid in runs} == {"complete"}
    plain, calm, again = (volume_of(run) for run in runs.values())
    np.testing.assert_array_equal(calm, again)
    difference = np.abs(calm - plain).max() / plain.max()
    assert 0.001 < difference < 0.5


def test_a_run_with_lost_projections_loses_its_stripes(make_run, make_pipeline, log):
    run = make_run(missing={"primary": [0, 7, 8, 47]})
    run.send_through(make_pipeline(centre=21.0, stripes="sorting"))
    summary = log.summary(run.uid)
    assert summary["state"] == "incomplete"
    assert summary["frames"]["used"] == 52
    assert np.isfinite(volume_of(run)).all()


def test_a_bad_flat_of_a_run_is_told_and_not_used(make_run, make_pipeline, log, all_frames):
    frames = all_frames["flats"].copy()
    all_frames["flats"][2] = 100
    try:
        run = make_run()
        run.send_through(make_pipeline(centre=21.0))
    finally:
        all_frames["flats"][:] = frames
    told = [details for _, event, details in log.messages if event == "warning"]
    assert len(told) == 1
    assert "flat 2 is left out" in told[0]["message"]
    assert log.summary(run.uid)["frames"]["used"] == 55
