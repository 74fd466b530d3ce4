"""The logic of the tomography plans: checks, order, and a safe end whatever happens."""

from __future__ import annotations

import math

import pytest
from bluesky import plan_stubs as bps
from bluesky.utils import RunEngineInterrupted

from apsber_bluesky.core import InputError, RunDescription
from apsber_bluesky.plans import fly_tomography, step_tomography

PLANS = [fly_tomography, step_tomography]
SMALL = {"num_projections": 3, "num_darks": 2, "num_flats": 2, "exposure_s": 0.01}

WRONG = [
    ({"exposure_s": -0.1}, r"exposure_s is -0\.1"),
    ({"exposure_s": 0}, "exposure_s is 0"),
    ({"exposure_s": math.nan}, "exposure_s is nan"),
    ({"exposure_s": math.inf}, "exposure_s is inf"),
    ({"exposure_s": "0.1"}, "exposure_s is '0.1'"),
    ({"exposure_s": True}, "exposure_s is True"),
    ({"num_projections": 0}, "num_projections is 0"),
    ({"num_projections": -5}, "num_projections is -5"),
    ({"num_projections": 2.5}, r"num_projections is 2\.5"),
    ({"num_flats": -1}, "num_flats is -1"),
    ({"num_darks": -1}, "num_darks is -1"),
    ({"num_darks": 1.5}, r"num_darks is 1\.5"),
    ({"num_flats": True}, "num_flats is True"),
    ({"flat_mode": "sometimes"}, "flat_mode is 'sometimes'"),
    ({"dark_mode": None}, "dark_mode is None"),
    ({"sample_in_mm": 2.0, "sample_out_mm": 2.0}, r"sample_in_mm and sample_out_mm are both 2\.0"),
    ({"sample_out_mm": math.nan}, "sample_out_mm is nan"),
    ({"sample_in_mm": math.inf}, "sample_in_mm is inf"),
    ({"rotation_start_deg": 30.0, "rotation_stop_deg": 30.0}, r"both 30\.0"),
    ({"rotation_stop_deg": math.nan}, "rotation_stop_deg"),
]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("arguments", "words"), WRONG)
def test_a_wrong_argument_is_named_before_anything_is_asked_of_a_device(
    beamline, plan, arguments, words
):
    messages = plan(*beamline.devices, **arguments)
    with pytest.raises(InputError, match=words):
        next(messages)
    assert beamline.calls == []


@pytest.mark.parametrize("period_s", [0.01, 0.0, -1.0, math.nan, "long"])
def test_a_period_shorter_than_the_exposure_is_named(beamline, period_s):
    messages = fly_tomography(*beamline.devices, exposure_s=0.02, frame_period_s=period_s)
    with pytest.raises(InputError, match=f"frame_period_s is {period_s!r}"):
        next(messages)


def test_a_rotation_that_the_stage_refuses_stops_the_plan_before_it_begins(beamline):
    beamline.rotation.refuses = True
    with pytest.raises(InputError, match="too fast"):
        next(fly_tomography(*beamline.devices))
    assert beamline.calls == []


@pytest.mark.parametrize(
    ("arguments", "period_s"),
    [
        # 60 deg at 60 deg/s; the readout of the camera after 2 s; and as the user wants it.
        ({"num_projections": 3}, 1.0),
        ({"num_projections": 3, "exposure_s": 2.0}, 2.002),
        ({"num_projections": 3, "frame_period_s": 0.5}, 0.5),
    ],
)
def test_the_period_is_as_short_as_camera_and_stage_allow_or_as_it_is_given(
    engine, beamline, arguments, period_s
):
    engine(fly_tomography(*beamline.devices, num_darks=0, num_flats=0, **arguments))
    asked = [value for _, what, value in beamline.calls if what == "prepare"]
    assert [value.period_s for value in asked] == pytest.approx([period_s, period_s])


def test_flats_need_no_way_out_when_none_are_taken(beamline):
    plan = fly_tomography(*beamline.devices, num_flats=0, sample_in_mm=1.0, sample_out_mm=1.0)
    assert next(plan).command == "open_run"
    plan.close()


@pytest.mark.parametrize("plan", PLANS)
def test_the_start_document_describes_the_scan(engine, documents, beamline, plan):
    engine(
        plan(
            *beamline.devices,
            **{**SMALL, "flat_mode": "both", "dark_mode": "none"},
            sample="root",
            md={"note": "x"},
        )
    )
    start = documents["start"][0]
    run = RunDescription.from_start(start)
    assert (run.plan_name, run.sample) == (plan.__name__, "root")
    scan = run.scan
    assert (scan.num_projections, scan.num_flats, scan.num_darks) == (3, 4, 0)
    assert (scan.rows, scan.columns, scan.dtype, scan.pixel_size_um) == (3, 4, "<u2", 5.0)
    assert start["reference_frames"]["flat_mode"] == "both"
    assert (start["note"], start["detectors"], start["motors"]) == ("x", ["camera"], ["rotation"])


def essence(calls):
    """The order of what matters: who moves where, and which series is taken."""
    told = []
    for name, what, value in calls:
        if what == "set":
            told.append(f"{name} {value}")
        elif (name, what) == ("camera", "prepare"):
            told.append(f"prepare {value.stream} {value.num_frames} {value.trigger}")
        elif what in ("kickoff", "trigger", "complete"):
            told.append(f"{name} {what}")
        elif (name, what) == ("rotation", "prepare"):
            told.append("rotation prepare")
    return told


DARKS = ["shutter close", "prepare darks 2 internal", "camera kickoff", "camera complete"]
FLATS = [
    "sample_x 8.0",
    "prepare flats 2 internal",
    "shutter open",
    "camera kickoff",
    "camera complete",
    "shutter close",
    "sample_x 0.0",
]


def test_a_fly_scan_takes_its_series_in_order(engine, documents, beamline):
    engine(fly_tomography(*beamline.devices, **SMALL, dark_mode="start", flat_mode="both"))
    projections = [
        "rotation prepare",
        "prepare primary 3 external",
        "shutter open",
        "camera kickoff",
        "rotation kickoff",
        "camera complete",
        "rotation complete",
        "shutter close",
    ]
    expected = ["sample_x 0.0", *DARKS, *FLATS, *projections, *FLATS, "rotation 0.0"]
    assert essence(beamline.calls) == [*expected, "shutter close"]
    assert documents["stop"][0]["exit_status"] == "success"
    streams = {d["uid"]: d["name"] for d in documents["descriptor"]}
    announced = {}
    for datum in documents["stream_datum"]:
        indices = datum["indices"]
        announced.setdefault(streams[datum["descriptor"]], []).append(
            (indices["start"], indices["stop"])
        )
    assert announced == {"darks": [(0, 2)], "flats": [(0, 2), (2, 4)], "primary": [(0, 3)]}


def test_a_step_scan_stops_for_every_projection(engine, documents, beamline):
    engine(
        step_tomography(
            *beamline.devices, **SMALL, dark_mode="none", flat_mode="end", return_rotation=False
        )
    )
    steps = [
        step
        for number, angle in enumerate((0.0, 60.0, 120.0))
        for step in (
            "shutter open",
            f"rotation {angle}",
            f"camera_next_frame {number}",
            "camera trigger",
        )
    ]
    assert essence(beamline.calls) == [
        "sample_x 0.0",
        "prepare primary 3 step",
        *steps,
        "shutter close",
        *FLATS,
        "shutter close",
    ]
    assert len(documents["event"]) == 3


@pytest.mark.parametrize("plan", PLANS)
def test_a_scan_without_references_takes_none(engine, documents, beamline, plan):
    engine(plan(*beamline.devices, **{**SMALL, "num_darks": 0, "flat_mode": "none"}))
    series = [
        value.stream
        for _, what, value in beamline.calls
        if what == "prepare" and hasattr(value, "stream")
    ]
    assert series == ["primary"]
    assert not any(name == "sample_x" and value == 8.0 for name, _, value in beamline.calls)


def left_safe(calls, since):
    after = [(name, what, value) for name, what, value in calls[since:]]
    return (
        ("shutter", "set", "close") in after
        and ("camera", "stop", None) in after
        and ("rotation", "stop", None) in after
        and ("camera", "unstage", None) in after
    )


FAILURES = [
    ("camera", "prepare"),
    ("camera", "kickoff"),
    ("camera", "complete"),
    ("rotation", "prepare"),
    ("rotation", "kickoff"),
    ("rotation", "complete"),
    ("sample_x", "set"),
    ("camera", "stage"),
]


@pytest.mark.parametrize(("name", "what"), FAILURES)
def test_a_device_that_fails_leaves_the_beamline_safe_and_the_run_closed_with_the_reason(
    engine, documents, beamline, name, what
):
    getattr(beamline, name).fails_at[what] = RuntimeError(f"{name} broke at {what}")
    with pytest.raises(RuntimeError, match="broke at"):
        engine(fly_tomography(*beamline.devices, **SMALL))
    failed = next(i for i, call in enumerate(beamline.calls) if call[:2] == (name, what))
    after = beamline.calls[failed:]
    assert ("shutter", "set", "close") in after
    assert ("rotation", "stop", None) in after
    assert ("camera", "stop", None) in after
    stop = documents["stop"][0]
    assert (stop["exit_status"], stop["reason"]) == ("fail", f"{name} broke at {what}")
    assert engine.state == "idle"


@pytest.mark.parametrize("plan", PLANS)
def test_a_shutter_that_does_not_close_keeps_nothing_else_from_being_stopped(
    engine, documents, beamline, plan
):
    beamline.shutter.fails_at["set"] = RuntimeError("no compressed air")
    with pytest.raises(RuntimeError, match="no compressed air"):
        engine(plan(*beamline.devices, **SMALL))
    names = [(name, what) for name, what, _ in beamline.calls]
    closing = len(names) - names[::-1].index(("shutter", "set"))
    assert ("rotation", "stop") in names[closing:]
    assert ("camera", "stop") in names[closing:]
    assert documents["stop"][0]["exit_status"] == "fail"


def test_a_rotation_that_fails_to_stop_does_not_keep_the_camera_from_it(
    engine, documents, beamline
):
    beamline.rotation.fails_at = {
        "kickoff": RuntimeError("stalled"),
        "stop": RuntimeError("no answer"),
    }
    with pytest.raises(RuntimeError):
        engine(fly_tomography(*beamline.devices, **SMALL))
    assert ("camera", "stop", None) in beamline.calls
    assert documents["stop"][0]["exit_status"] == "fail"


def test_an_aborted_scan_is_left_safe_and_says_so(engine, documents, beamline):
    beamline.sample_x.fails_at = {}
    original = beamline.rotation.kickoff

    def pause_at_kickoff():
        engine.loop.call_soon_threadsafe(
            lambda: engine.loop.create_task(engine._request_pause_coro(False))
        )
        return original()

    beamline.rotation.kickoff = pause_at_kickoff
    with pytest.raises(RunEngineInterrupted):
        engine(fly_tomography(*beamline.devices, **SMALL))
    since = len(beamline.calls)
    engine.abort(reason="beam dump")
    assert left_safe(beamline.calls, since)
    stop = documents["stop"][0]
    assert stop["exit_status"] == "abort"


def test_plans_can_be_nested_in_other_plans_and_give_the_uid(engine, documents, beamline):
    uids = []

    def twice():
        for _ in range(2):
            uids.append((yield from fly_tomography(*beamline.devices, **SMALL)))
            yield from bps.null()

    engine(twice())
    assert uids == [document["uid"] for document in documents["start"]]
    assert len(set(uids)) == 2
