"""Series that lose frames or are interrupted, with devices in memory."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from bluesky import plan_stubs as bps
from bluesky.utils import RunEngineInterrupted

from apsber_bluesky.plans import fly_tomography
from apsber_bluesky.plans._whole_series import MOST_ATTEMPTS, next_part, until_interrupted

BARE = {"num_darks": 0, "num_flats": 0, "exposure_s": 0.01, "return_rotation": False}


def parts(beamline):
    """What was asked of camera and stage: places of the frames, and angles of the pulses."""
    asked = [value for _, what, value in beamline.calls if what == "prepare"]
    series = [value for value in asked if hasattr(value, "stream")]
    turns = [value for value in asked if hasattr(value, "num_pulses")]
    return (
        [(value.first_index, value.num_frames) for value in series],
        [(turn.start_deg, turn.num_pulses) for turn in turns],
        series,
    )


def announced(documents):
    return [
        (doc["indices"]["start"], doc["indices"]["stop"], *doc["seq_nums"].values())
        for doc in documents["stream_datum"]
    ]


@pytest.mark.parametrize(
    ("missing", "gap", "part"),
    [
        ([3], 0, (3, 1)),
        ([3, 4, 5, 9], 0, (3, 3)),
        ([3, 5, 9], 1, (3, 3)),
        ([3, 5, 9], 3, (3, 7)),
        ([0, 100], 98, (0, 1)),
        ([0, 100], 99, (0, 101)),
    ],
)
def test_missing_frames_that_lie_close_together_are_taken_in_one_sweep(missing, gap, part):
    assert next_part(np.array(missing), gap) == part


def test_lost_frames_are_flown_again_where_they_belong(engine, documents, beamline):
    # 10 deg apart at 0.6 s each: 1 s of run-up is worth one frame between two sweeps.
    beamline.camera.loses = [[2, 4, 9]]
    arguments = {"num_projections": 18, "frame_period_s": 0.6}
    engine(fly_tomography(*beamline.devices, **BARE, **arguments))
    places, turns, series = parts(beamline)
    assert places == [(0, 18), (2, 3), (9, 1)]
    assert turns == [(0.0, 18), (20.0, 3), (90.0, 1)]
    # As the camera of an undisturbed scan would number and angle them.
    assert [one.first_number for one in series] == [0, 2, 9]
    assert [one.angle_deg for one in series] == [0.0, 20.0, 90.0]
    assert announced(documents) == [(0, 2, 1, 3), (2, 9, 3, 10), (9, 18, 10, 19)]


def test_frames_that_do_not_come_at_all_are_given_up_in_the_end(engine, documents, beamline):
    beamline.camera.loses = [[2]] * 9
    engine(fly_tomography(*beamline.devices, **BARE, num_projections=6))
    assert parts(beamline)[0] == [(0, 6), *[(2, 1)] * (MOST_ATTEMPTS - 1)]
    assert ("camera", "give_up_missing", [2]) in beamline.calls
    assert announced(documents)[-1][1] == 6
    assert documents["stop"][0]["exit_status"] == "success"


def test_lost_frames_are_left_alone_if_that_is_wanted(engine, documents, beamline):
    beamline.camera.loses = [[2], [], []]
    plan = fly_tomography(*beamline.devices, **BARE, num_projections=6, retake_missing=False)
    engine(plan)
    assert parts(beamline)[0] == [(0, 6)]
    assert ("camera", "give_up_missing", [2]) in beamline.calls


def request_pause(engine):
    engine.loop.call_soon_threadsafe(
        lambda: asyncio.ensure_future(engine._request_pause_coro(False), loop=engine.loop)
    )


@pytest.mark.parametrize("where", [("rotation", "prepare"), ("camera", "kickoff")])
def test_a_paused_sweep_begins_anew_and_nothing_else_does(engine, documents, beamline, where):
    device, what = getattr(beamline, where[0]), where[1]
    original, paused = getattr(device, what), []

    def pause_once(*arguments):
        if not paused:
            paused.append(True)
            request_pause(engine)
        return original(*arguments)

    setattr(device, what, pause_once)
    with pytest.raises(RunEngineInterrupted):
        engine(fly_tomography(*beamline.devices, **{**BARE, "num_darks": 2}, num_projections=6))
    at = len(beamline.calls)
    assert engine.state == "paused"
    engine.resume()
    after = [call for call in beamline.calls[at:] if call[1] not in ("resume", "pause")]
    # Neither the darks again nor a shutter that opens before all is prepared.
    if where == ("rotation", "prepare"):
        assert [(name, what) for name, what, _ in after[:3]] == [
            ("rotation", "prepare"),
            ("camera", "prepare"),
            ("shutter", "set"),
        ]
        assert all(value.stream == "primary" for name, what, value in after[1:2])
    assert announced(documents) == [(0, 2, 1, 3), (0, 6, 1, 7)]
    assert documents["stop"][0]["exit_status"] == "success"


def test_a_motion_between_series_is_repeated_when_it_was_interrupted(engine, documents, beamline):
    original, paused = beamline.sample_x.set, []

    def pause_once(value):
        if value == 8.0 and not paused:
            paused.append(True)
            request_pause(engine)
        return original(value)

    beamline.sample_x.set = pause_once
    scan = {**BARE, "num_darks": 2, "num_flats": 2, "num_projections": 3}
    with pytest.raises(RunEngineInterrupted):
        engine(fly_tomography(*beamline.devices, **scan))
    engine.resume()
    moves = [value for name, what, value in beamline.calls if (name, what) == ("sample_x", "set")]
    assert moves == [0.0, 8.0, 8.0, 0.0]
    assert documents["stop"][0]["exit_status"] == "success"


def test_what_is_left_of_a_part_is_closed_and_never_sees_what_comes(beamline):
    seen = []

    def part():
        try:
            yield from bps.null()
            yield from bps.null()
        finally:
            seen.append("closed")

    messages = until_interrupted(beamline.camera, part())
    next(messages)
    assert beamline.camera.plan_retakes
    beamline.camera.interruptions += 1
    with pytest.raises(StopIteration) as stop:
        messages.send(None)
    assert stop.value.value is False
    assert seen == ["closed"]
    assert not beamline.camera.plan_retakes
