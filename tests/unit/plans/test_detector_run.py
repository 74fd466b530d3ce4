"""The scaffold of runs with one detector: series, points, pauses and ends, devices in memory."""

from __future__ import annotations

import asyncio

import pytest
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import NullStatus

from apsber_bluesky.core import InputError
from apsber_bluesky.devices import FlyRotation
from apsber_bluesky.plans._checks import check_count, check_number, check_reach, is_number
from apsber_bluesky.plans._detector_run import (
    Flight,
    detector_run,
    one_pulse,
    run_metadata,
)
from apsber_bluesky.plans._scan import Timing
from apsber_bluesky.plans._whole_series import whole_groups

TIMING = Timing(0.01, 0.02)


def run_of(beamline, body, **more):
    metadata = run_metadata("plan", "detector", beamline.camera, 1, {"purpose": "test"})
    return detector_run(beamline.camera, beamline.shutter, TIMING, metadata, body, **more)


def prepared(beamline, name="camera"):
    return [value for who, what, value in beamline.calls if (who, what) == (name, "prepare")]


def pause_at(engine, device, what):
    """Pause the first time that something is asked of a device."""
    original, paused = getattr(device, what), []

    def once(*arguments):
        if not paused:
            paused.append(True)
            engine.loop.call_soon_threadsafe(
                lambda: asyncio.ensure_future(engine._request_pause_coro(False), loop=engine.loop)
            )
        return original(*arguments)

    setattr(device, what, once)


def paused_and_resumed(engine, plan):
    with pytest.raises(RunEngineInterrupted):
        engine(plan)
    assert engine.state == "paused"
    engine.resume()


# -- checks and metadata


@pytest.mark.parametrize("value", [True, "3", None, float("nan"), float("inf"), 1j])
def test_what_is_no_number_is_none(value):
    assert not is_number(value)
    with pytest.raises(InputError, match="overlap is"):
        check_number("overlap", value, 0, 1)


@pytest.mark.parametrize("value", [0, True, 2.0, "2"])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(InputError, match=r"num_frames is .*1 or more"):
        check_count("num_frames", value)


def test_places_beyond_the_limits_are_named():
    axis = type("Axis", (), {"name": "x", "limits": (-1.0, 1.0)})()
    check_reach(axis, [-1.0, 1.0])
    with pytest.raises(InputError, match=r"x would have to move to .* mm, its limits are -1 to 1"):
        check_reach(axis, [0.0, 1.5])
    axis.limits = (0.0, 0.0)
    check_reach(axis, [1e6])


def test_metadata_of_the_user_wins(beamline):
    start = run_metadata(
        "plan", "scattering", beamline.camera, 3, {"a": 1}, motors=[beamline.rotation],
        sample="s", md={"num_points": 4},
    )  # fmt: skip
    assert (start["num_points"], start["motors"], start["sample"]) == (4, ["rotation"], "s")
    assert start["scattering"] == {"a": 1}
    assert "sample" not in run_metadata("plan", "detector", beamline.camera, 3, {})


@pytest.mark.parametrize(
    ("part", "first", "size", "whole"),
    [
        ((5, 3), 0, 1, (5, 3)),
        ((5, 3), 0, 4, (4, 4)),
        ((5, 4), 0, 4, (4, 8)),
        ((7, 1), 2, 2, (6, 2)),
        ((0, 8), 0, 4, (0, 8)),
    ],
)
def test_parts_are_widened_to_whole_exposures(part, first, size, whole):
    assert whole_groups(*part, first, size) == whole


def test_one_pulse_leads_over_the_whole_way():
    fly = one_pulse(FlyRotation(10.0, 0.5, 6, 0.1))
    assert (fly.start_deg, fly.step_deg, fly.num_pulses) == (10.0, 3.0, 1)
    assert fly.speed_deg_s == pytest.approx(5.0)


# -- series


def test_series_follow_each_other_in_places_and_numbers(engine, documents, beamline):
    def body(run):
        yield from run.take("darks", 2, beam=False)
        yield from run.take("primary", 3, beam=True)
        yield from run.take("primary", 4, beam=True)

    engine(run_of(beamline, body))
    taken = [(s.stream, s.first_index, s.first_number, s.num_frames) for s in prepared(beamline)]
    assert taken == [("darks", 0, 0, 2), ("primary", 0, 2, 3), ("primary", 3, 5, 4)]
    assert [doc["name"] for doc in documents["descriptor"]] == ["darks", "primary"]
    assert documents["stop"][0]["exit_status"] == "success"


def test_frames_of_one_exposure_are_taken_together_again(engine, beamline):
    beamline.camera.loses = [[5]]

    def body(run):
        yield from run.take_series(run.series("primary", 8), beam=True, multiple=4)

    engine(run_of(beamline, body))
    assert [(s.first_index, s.num_frames) for s in prepared(beamline)] == [(0, 8), (4, 4)]


def test_frames_that_came_by_pulses_are_not_taken_again(engine, beamline):
    beamline.camera.loses = [[5]]

    def body(run):
        yield from run.take_series(run.series("primary", 8, "external"), beam=True)

    engine(run_of(beamline, body))
    assert len(prepared(beamline)) == 1
    assert ("camera", "give_up_missing", [5]) in beamline.calls


def test_an_axis_flies_the_part_that_is_missing_after_a_pause(engine, beamline):
    fly = FlyRotation(10.0, 0.5, 6, 0.1)
    pause_at(engine, beamline.rotation, "kickoff")

    def body(run):
        series = run.series("primary", 6, "external", fly)

        def motion(part):
            return fly.part(part.first_index, part.num_frames)

        places = (beamline.sample_x, 2.5)
        yield from run.take_series(
            series, beam=True, flight=Flight(beamline.rotation, motion, places), closes=False
        )

    plan = run_of(beamline, body, stops=(beamline.rotation, None), staged=(beamline.rotation, None))
    # The camera has three frames when it is interrupted.
    original = beamline.camera.pause

    def pause():
        beamline.camera._taken["primary"] = {0, 1, 2}
        original()

    beamline.camera.pause = pause
    paused_and_resumed(engine, plan)
    parts = [(s.first_index, s.num_frames, s.angle_deg) for s in prepared(beamline)]
    assert parts == [(0, 6, 10.0), (3, 3, 11.5)]
    turns = [(turn.start_deg, turn.num_pulses) for turn in prepared(beamline, "rotation")]
    assert turns == [(10.0, 6), (11.5, 3)]
    assert beamline.calls.count(("sample_x", "set", 2.5)) == 2


# -- points


def test_a_point_that_a_pause_repeats_takes_the_same_frame(engine, documents, beamline):
    pause_at(engine, beamline.sample_x, "set")

    def body(run):
        yield from run.take_points(
            run.series("primary", 3, "step"), [beamline.sample_x], lambda n: [beamline.sample_x, n]
        )

    paused_and_resumed(engine, run_of(beamline, body))
    calls = beamline.calls
    assert [v for n, w, v in calls if (n, w) == ("camera_next_frame", "set")] == [0, 0, 1, 2]
    assert [v for n, w, v in calls if (n, w) == ("sample_x", "set")] == [0, 0, 1, 2]
    assert len(prepared(beamline)) == 1
    assert documents["stop"][0]["num_events"] == {"primary": 3}


# -- ends


@pytest.mark.parametrize("culprit", ["shutter", "rotation", "sample_x"])
def test_one_device_that_cannot_be_stopped_keeps_no_other_from_it(engine, beamline, culprit):
    stops = (beamline.rotation, beamline.sample_x)

    def body(run):
        yield from run.take("primary", 1, beam=True)

    what = "set" if culprit == "shutter" else "stop"
    device = getattr(beamline, culprit)
    original = getattr(device, what)

    def fails(*arguments, **more):
        original(*arguments, **more)
        if arguments in ((), ("close",)):
            raise RuntimeError(f"{culprit} is stuck")
        return NullStatus()

    setattr(device, what, fails)
    with pytest.raises(RuntimeError, match="stuck"):
        engine(run_of(beamline, body, stops=stops))
    for name in ("rotation", "sample_x", "camera"):
        assert (name, "stop", None) in beamline.calls
    assert ("shutter", "set", "close") in beamline.calls
    assert ("camera", "unstage", None) in beamline.calls


def test_a_failed_run_is_safe_before_anything_is_unstaged_and_says_why(engine, documents, beamline):
    def body(run):
        yield from run.take("primary", 1, beam=True)
        raise InputError("no more")

    with pytest.raises(InputError):
        engine(run_of(beamline, body, stops=(beamline.rotation,)))
    (stop,) = documents["stop"]
    assert (stop["exit_status"], stop["reason"]) == ("fail", "no more")
    order = [f"{name} {what}" for name, what, _ in beamline.calls]
    assert order.index("rotation stop") < order.index("camera unstage")
