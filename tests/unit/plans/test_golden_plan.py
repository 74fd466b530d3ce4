"""The logic of golden_tomography: its turns, when it stops, and what it refuses."""

from __future__ import annotations

import math

import pytest

from apsber_bluesky.core import InputError, LiveMetric, RunDescription
from apsber_bluesky.plans import golden_tomography

SMALL = {
    "projections_per_turn": 4,
    "most_turns": 5,
    "num_darks": 1,
    "num_flats": 2,
    "exposure_s": 0.01,
}


class Feedback:
    """Says the same whenever it is asked."""

    def __init__(self, newest=None):
        self.newest = newest
        self.asked = []

    def latest(self, run_uid, name):
        self.asked.append((run_uid, name))
        return self.newest


class Processing(Feedback):
    """Says how good a turn is as soon as the frames of the turn are there."""

    def __init__(self, camera, errors):
        super().__init__()
        self.camera, self.errors = camera, errors

    def latest(self, run_uid, name):
        super().latest(run_uid, name)
        done = len(self.camera._taken.get("primary", ()))
        turns = done // SMALL["projections_per_turn"]
        return LiveMetric(name, self.errors[turns - 2], done) if turns > 1 else None


def turns_of(beamline):
    return [
        value for name, what, value in beamline.calls if (name, what) == ("rotation", "prepare")
    ]


def readings(documents):
    return [
        {name.removeprefix("live_quality_"): value for name, value in event["data"].items()}
        for event in documents["event"]
        if "live_quality_turns" in event["data"]
    ]


def test_it_stops_after_the_turn_that_is_good_enough(engine, documents, beamline):
    beamline.camera.feedback = Processing(beamline.camera, [0.4, 0.2, 0.1, 0.05])
    (uid,) = engine(golden_tomography(*beamline.devices, **SMALL, tolerance=0.2))
    turns = turns_of(beamline)
    golden = 0.6180339887498949
    assert [turn.start_deg for turn in turns] == pytest.approx(
        [0, 45 * golden, 45 * (2 * golden % 1)]
    )
    assert {(turn.step_deg, turn.num_pulses) for turn in turns} == {(45.0, 4)}
    assert [
        (one["turns"], one["projections"], one["converged"], one["frames_saved"])
        for one in readings(documents)
    ] == [(1, 4, 0, 16), (2, 8, 0, 12), (3, 12, 1, 8)]
    assert [one["relative_error"] for one in readings(documents)] == [-1.0, 0.4, 0.2]
    assert {asked[0] for asked in beamline.camera.feedback.asked} == {uid}
    assert documents["stop"][0]["exit_status"] == "success"


def test_without_a_good_enough_turn_it_takes_them_all(engine, documents, beamline):
    beamline.camera.feedback = Processing(beamline.camera, [0.4, 0.3, 0.25, 0.21])
    engine(golden_tomography(*beamline.devices, **SMALL, tolerance=0.2))
    assert len(turns_of(beamline)) == 5
    assert readings(documents)[-1]["frames_saved"] == 0


def test_without_feedback_or_tolerance_it_takes_them_all(engine, documents, beamline):
    engine(golden_tomography(*beamline.devices, **SMALL))
    beamline.camera.feedback = Processing(beamline.camera, [0.0] * 4)
    engine(golden_tomography(*beamline.devices, **SMALL, tolerance=None))
    assert len(turns_of(beamline)) == 10
    assert beamline.camera.feedback.asked == []


def test_processing_that_says_nothing_does_not_hold_up_the_scan(engine, documents, beamline):
    beamline.camera.feedback = Feedback()
    plan = golden_tomography(
        *beamline.devices, **{**SMALL, "most_turns": 2}, feedback_patience_s=0.1
    )
    engine(plan)
    assert len(turns_of(beamline)) == 2
    assert beamline.camera.feedback.asked


def test_a_stale_number_is_not_taken_for_that_of_the_last_turn(engine, documents, beamline):
    beamline.camera.feedback = Feedback(LiveMetric("relative_error", 0.001, 4))
    engine(
        golden_tomography(*beamline.devices, **{**SMALL, "most_turns": 3}, feedback_patience_s=0.1)
    )
    assert len(turns_of(beamline)) == 3


def test_step_mode_goes_to_each_angle_of_the_rule(engine, documents, beamline):
    arguments = {**SMALL, "most_turns": 2, "tolerance": None, "return_rotation": False}
    engine(golden_tomography(*beamline.devices, **arguments, mode="step"))
    angles = [value for name, what, value in beamline.calls if (name, what) == ("rotation", "set")]
    scan = RunDescription.from_start(documents["start"][0]).scan
    assert angles == pytest.approx(scan.angles_deg.tolist())
    assert (scan.interlaced_turns, scan.num_projections) == (2, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"projections_per_turn": 0}, "projections_per_turn is 0"),
        ({"most_turns": 1.5}, r"most_turns is 1\.5"),
        ({"most_turns": True}, "most_turns is True"),
        ({"tolerance": 0}, "tolerance is 0"),
        ({"tolerance": 2.0}, r"tolerance is 2\.0"),
        ({"tolerance": math.nan}, "tolerance is nan"),
        ({"feedback_patience_s": -1}, "feedback_patience_s is -1"),
        ({"mode": "jump"}, "mode is 'jump'"),
        ({"num_flats": 0}, "num_flats is 0"),
        ({"exposure_s": 0}, "exposure_s is 0"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_moves(beamline, arguments, words):
    with pytest.raises(InputError, match=words):
        next(golden_tomography(*beamline.devices, **{**SMALL, **arguments}))
    assert beamline.calls == []


def test_a_turn_that_the_stage_refuses_stops_the_plan_before_it_begins(beamline):
    beamline.rotation.refuses = True
    with pytest.raises(InputError, match="too fast"):
        next(golden_tomography(*beamline.devices, **SMALL))
    assert beamline.calls == []
