"""Darks, flats, alignment, mosaics and energies: checks, order, metadata, and a safe end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ophyd.sim import NullStatus

from apsber_bluesky.core import (
    AxisEstimate,
    InputError,
    PlanError,
    RunDescription,
    asking_for_predictions,
)
from apsber_bluesky.plans import (
    align_rotation_axis,
    collect_darks,
    collect_flats,
    energy_series,
    mosaic_tomography,
)
from apsber_bluesky.plans._energy_series import xanes_energies


class Axis:
    """An axis in memory that goes where it is told."""

    parent = None
    limits = (-20.0, 20.0)

    def __init__(self, name: str, calls: list[tuple[str, str, Any]], position: float = 0.0) -> None:
        self.name, self.position = name, position
        self._calls = calls

    def set(self, value: float) -> NullStatus:
        self._calls.append((self.name, "set", value))
        self.position = value
        return NullStatus()

    def stop(self, *, success: bool = False) -> None:
        self._calls.append((self.name, "stop", None))

    def read(self) -> dict[str, Any]:
        return {self.name: {"value": self.position, "timestamp": 1.0}}

    def describe(self) -> dict[str, Any]:
        return {self.name: {"source": "memory", "dtype": "number", "shape": []}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}

    def check(self, energies_keV: list[float]) -> None:
        for energy in energies_keV:
            if not 4 <= energy <= 120:
                raise InputError(f"cannot go to {energy:g} keV")


class Picture:
    """Sees the axis where the stage has put it, as a finder would."""

    def __init__(self, stage: Any, *, per_mm: float, offset_px: float, lean_deg: float) -> None:
        self._stage, self._per_mm = stage, per_mm
        self._offset_px, self._lean_deg = offset_px, lean_deg
        self.asked: list[int] = []

    def find(self, run_uid: str, first: int, *, num_darks: int, num_flats: int) -> AxisEstimate:
        self.asked.append(first)
        return AxisEstimate(
            1.5 + self._offset_px + self._per_mm * self._stage.x.position,
            self._lean_deg + self._stage.roll.position,
            0.01,
            0.01,
            1.0,
        )


class Stage:
    """A sample stage in memory."""

    name, parent = "stage", None

    def __init__(self, calls: list[tuple[str, str, Any]]) -> None:
        self._calls = calls
        self.x, self.y, self.roll = (Axis(f"stage_{n}", calls) for n in ("x", "y", "roll"))
        self.axis_finder: Any = None

    def stop(self, *, success: bool = False) -> None:
        self._calls.append(("stage", "stop", None))


@pytest.fixture
def stage(beamline):
    stage = Stage(beamline.calls)
    stage.axis_finder = Picture(stage, per_mm=200.0, offset_px=-0.9, lean_deg=1.2)
    return stage


@pytest.fixture
def energy(beamline):
    return Axis("energy", beamline.calls, position=20.0)


def moves(calls):
    return [
        f"{name} {value:g}"
        for name, what, value in calls
        if what == "set" and name != "shutter" and not name.startswith("camera")
    ]


def series(calls):
    return [
        (value.stream, value.num_frames)
        for name, what, value in calls
        if what == "prepare" and name == "camera"
    ]


# -- collect


def test_darks_are_a_run_of_their_own_with_the_shutter_closed(engine, documents, beamline):
    engine(collect_darks(beamline.camera, beamline.shutter, num_darks=3, md={"note": "x"}))
    run = RunDescription.from_start(documents["start"][0])
    assert (run.technique, run.plan_name) == ("detector", "collect_darks")
    assert run.conditions == {"purpose": "darks", "exposure_s": 0.02, "num_darks": 3}
    assert documents["start"][0]["note"] == "x"
    assert series(beamline.calls) == [("darks", 3)]
    assert ("shutter", "set", "open") not in beamline.calls
    assert documents["stop"][0]["exit_status"] == "success"


def test_flats_bring_the_sample_back(engine, documents, beamline):
    engine(
        collect_flats(
            beamline.camera, beamline.shutter, beamline.sample_x, num_flats=2, num_darks=1
        )
    )
    assert series(beamline.calls) == [("darks", 1), ("flats", 2)]
    assert moves(beamline.calls) == ["sample_x 8", "sample_x 0"]
    assert [v for n, w, v in beamline.calls if n == "shutter" and w == "set"][-1] == "close"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_flats": 0}, "num_flats is 0"),
        ({"num_darks": -1}, "num_darks is -1"),
        ({"exposure_s": 0}, "exposure_s is 0"),
        ({"sample_in_mm": 8.0}, "both 8"),
        ({"sample_out_mm": math.nan}, "sample_out_mm is nan"),
    ],
)
def test_flats_that_cannot_be_are_refused_before_anything_moves(beamline, arguments, words):
    with pytest.raises(InputError, match=words):
        next(collect_flats(beamline.camera, beamline.shutter, beamline.sample_x, **arguments))
    assert beamline.calls == []


def test_a_camera_that_fails_leaves_flats_safe(engine, documents, beamline):
    beamline.camera.fails_at["kickoff"] = RuntimeError("no trigger")
    with pytest.raises(RuntimeError, match="no trigger"):
        engine(collect_flats(beamline.camera, beamline.shutter, beamline.sample_x))
    assert documents["stop"][0]["exit_status"] == "fail"
    assert beamline.calls[-1][1] in ("stop", "unstage")
    assert {("camera", "stop", None), ("sample_x", "stop", None)} <= set(beamline.calls)
    assert [v for n, w, v in beamline.calls if n == "shutter" and w == "set"][-1] == "close"


# -- alignment


def align(beamline, stage, **arguments):
    return align_rotation_axis(
        beamline.camera, beamline.rotation, beamline.shutter, stage, **arguments
    )


@pytest.mark.parametrize("per_mm", [200.0, -200.0, 310.0])
def test_the_axis_is_brought_to_the_middle_and_upright(engine, documents, beamline, stage, per_mm):
    stage.axis_finder = Picture(stage, per_mm=per_mm, offset_px=-90.0, lean_deg=1.2)
    engine(align(beamline, stage, wanted_column_px=1.5))
    seen = [doc["data"] for doc in documents["event"] if "axis_column_px" in doc["data"]]
    assert seen[0]["axis_column_px"] == pytest.approx(-88.5)
    assert seen[-1]["axis_column_px"] == pytest.approx(1.5, abs=0.5)
    assert seen[-1]["axis_roll_deg"] == pytest.approx(0.0, abs=0.05)
    # A stage that goes the other way, or pixels of another size, cost one look more.
    assert len(seen) == (2 if per_mm == 200.0 else 3)
    assert stage.axis_finder.asked == [2 * number for number in range(len(seen))]


def test_an_axis_that_is_where_it_should_be_is_left_alone(engine, beamline, stage):
    stage.axis_finder = Picture(stage, per_mm=200.0, offset_px=0.1, lean_deg=0.01)
    engine(align(beamline, stage))
    assert moves(beamline.calls) == ["stage_x 8", "stage_x 0", "rotation 0", "rotation 180"]


def test_a_lean_that_is_not_to_be_corrected_is_only_told(engine, documents, beamline, stage):
    engine(align(beamline, stage, correct_roll=False))
    assert stage.roll.position == 0.0
    assert documents["start"][0]["detector"]["tolerance_roll_deg"] is None


def test_an_axis_that_cannot_be_brought_there_is_told_with_its_place(
    engine, documents, beamline, stage
):
    stage.axis_finder = Picture(stage, per_mm=0.0, offset_px=1.0, lean_deg=0.0)
    with pytest.raises(PlanError, match=r"after 2 pairs .* column 2\.50, 1\.50 is wanted"):
        engine(align(beamline, stage, max_iterations=2))
    assert documents["stop"][0]["exit_status"] == "fail"
    assert ("rotation", "stop", None) in beamline.calls


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"wanted_column_px": 4.0}, "wanted_column_px is 4"),
        ({"tolerance_px": 0}, "tolerance_px is 0"),
        ({"max_iterations": 0}, "max_iterations is 0"),
        ({"num_darks": 0}, "num_darks is 0"),
        ({"tolerance_roll_deg": "small"}, "tolerance_roll_deg is 'small'"),
    ],
)
def test_alignments_that_cannot_be_are_refused(beamline, stage, arguments, words):
    with pytest.raises(InputError, match=words):
        next(align(beamline, stage, **arguments))
    assert beamline.calls == []


def test_alignment_needs_a_finder_and_the_size_of_a_pixel(beamline, stage):
    stage.axis_finder = None
    with pytest.raises(InputError, match="no axis finder"):
        next(align(beamline, stage))
    stage.axis_finder = Picture(stage, per_mm=1.0, offset_px=0.0, lean_deg=0.0)
    beamline.camera.pixel_size_um = None
    with pytest.raises(InputError, match="pixel_size_um"):
        next(align(beamline, stage))


# -- mosaic

FEW = {"num_projections": 3, "num_darks": 1, "num_flats": 1, "exposure_s": 0.01}


def mosaic(beamline, stage, **arguments):
    return mosaic_tomography(
        beamline.camera, beamline.rotation, beamline.shutter, stage, **{**FEW, **arguments}
    )


def test_each_tile_is_a_run_that_knows_its_place(engine, documents, beamline, stage):
    engine(mosaic(beamline, stage, tiles_x=2, tiles_y=2, overlap=0.5, sample="leaf"))
    tiles = [start["mosaic"] for start in documents["start"]]
    assert len({tile["uid"] for tile in tiles}) == 1
    # To and fro; 4 columns and 3 rows of 5 um, half of each shared.
    assert [(t["column"], t["row"]) for t in tiles] == [(0, 0), (1, 0), (1, 1), (0, 1)]
    places = [(t["x_mm"], t["y_mm"]) for t in tiles]
    assert places == [(0.005, 0.00375), (-0.005, 0.00375), (-0.005, -0.00375), (0.005, -0.00375)]
    assert {start["plan_name"] for start in documents["start"]} == {"mosaic_tomography"}
    assert [stop["exit_status"] for stop in documents["stop"]] == ["success"] * 4
    assert moves(beamline.calls)[-2:] == ["stage_x 0", "stage_y 0"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tiles_x": 0}, "tiles_x is 0"),
        ({"overlap": 0.95}, "overlap is 0.95"),
        ({"overlap": 0.0}, "overlap is 0"),
        ({"tiles_x": 3000}, r"stage_x at .* mm, its limits are -20 to 20 mm"),
        ({"sample_out_mm": 0.01}, r"field of view is 0\.02 mm wide"),
        ({"num_projections": 0}, "num_projections is 0"),
        ({"centre_x_mm": math.inf}, "centre_x_mm is inf"),
    ],
)
def test_mosaics_that_cannot_be_are_refused_before_anything_moves(
    beamline, stage, arguments, words
):
    with pytest.raises(InputError, match=words):
        next(mosaic(beamline, stage, **arguments))
    assert beamline.calls == []


# -- energies


def energies(beamline, energy, **arguments):
    return energy_series(
        beamline.camera,
        beamline.rotation,
        beamline.shutter,
        beamline.sample_x,
        energy,
        **{"num_darks": 1, "num_flats": 2, "exposure_s": 0.01, **arguments},
    )


def test_images_of_all_energies_are_one_run_with_flats_at_each(engine, documents, beamline, energy):
    engine(energies(beamline, energy, energies_keV=[8.0, 8.5], num_images=3))
    assert series(beamline.calls) == [
        ("darks", 1),
        ("flats", 2),
        ("primary", 3),
        ("flats", 2),
        ("primary", 3),
    ]
    (start,) = documents["start"]
    assert start["detector"]["energies_keV"] == [8.0, 8.5]
    names = {doc["uid"]: doc["name"] for doc in documents["descriptor"]}
    read = [
        doc["data"]["energy"]
        for doc in documents["event"]
        if names[doc["descriptor"]] == "energies"
    ]
    assert read == [8.0, 8.5]


def test_tomography_is_one_run_per_energy_that_says_which(engine, documents, beamline, energy):
    engine(
        energies(beamline, energy, energies_keV=[8.0, 8.5], mode="tomography", num_projections=3)
    )
    runs = [RunDescription.from_start(start) for start in documents["start"]]
    assert [run.scan.energy_keV for run in runs] == [8.0, 8.5]
    parts = [start["energy_series"] for start in documents["start"]]
    assert [part["index"] for part in parts] == [0, 1]
    assert len({part["uid"] for part in parts}) == 1


def test_energies_about_an_edge_are_dense_where_it_rises():
    found = xanes_energies(8.333)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (8.183, 8.483)
    assert sum(8.313 <= value < 8.363 for value in found) == 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "either energies_keV"),
        ({"energies_keV": [8.0], "edge_keV": 8.0}, "either energies_keV"),
        ({"energies_keV": []}, "has 0 values"),
        ({"energies_keV": [8.0, -1.0]}, "-1.0 is no positive number"),
        ({"energies_keV": [8.0, 200.0]}, "cannot go to 200 keV"),
        ({"edge_keV": "Fe"}, "'Fe' is no positive number"),
        ({"energies_keV": [8.0], "mode": "movie"}, "mode is 'movie'"),
        ({"energies_keV": [8.0], "num_flats": 0}, "num_flats is 0"),
        ({"energies_keV": [8.0], "num_images": 0}, "num_images is 0"),
    ],
)
def test_energies_that_cannot_be_are_refused_before_anything_moves(
    beamline, energy, arguments, words
):
    with pytest.raises(InputError, match=words):
        next(energies(beamline, energy, **arguments))
    assert beamline.calls == []


# -- predictions


class Resources:
    """Little room."""

    free_disk_bytes = 100
    free_memory_bytes = 1 << 40
    first_slice_projections = 2

    def memory_bytes(self, scan: Any) -> int:
        return 1000

    def result_bytes(self, scan: Any) -> int:
        return 64


def test_every_plan_here_refuses_what_the_disk_cannot_hold(beamline, stage, energy):
    beamline.camera.resources = Resources()
    plans = [
        collect_darks(beamline.camera, beamline.shutter),
        collect_flats(beamline.camera, beamline.shutter, beamline.sample_x),
        align(beamline, stage),
        mosaic(beamline, stage),
        energies(beamline, energy, energies_keV=[8.0]),
        energies(beamline, energy, energies_keV=[8.0], mode="tomography", num_projections=3),
    ]
    for plan in plans:
        with pytest.raises(InputError, match=r"cannot fit: .* of disk"):
            next(plan)
    assert beamline.calls == []


def test_a_mosaic_predicts_the_sum_of_its_tiles(beamline, stage):
    beamline.camera.resources = Resources()
    with asking_for_predictions() as one:
        next(mosaic(beamline, stage, tiles_x=1))
    with asking_for_predictions() as four:
        next(mosaic(beamline, stage, tiles_x=4))
    assert four[0].frames == 4 * one[0].frames == 20
    # 5 frames of 3 x 4 pixels of 2 bytes, and the volume.
    assert four[0].disk_bytes == 4 * (5 * 24 + 64)
    assert four[0].memory_bytes == one[0].memory_bytes == 1000
    assert four[0].duration_s == pytest.approx(4 * one[0].duration_s)
