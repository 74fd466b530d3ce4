"""What devices are asked for, and what they tell the document stream, without any IOC."""

from __future__ import annotations

import math
import threading

import pytest
from event_model import DocumentNames, schema_validators

from apsber_bluesky.core import InputError, SeriesTicket
from apsber_bluesky.devices import FlyRotation, FrameSeries
from apsber_bluesky.devices._status import run_in_thread
from apsber_bluesky.devices._stream_assets import StreamAssets


@pytest.mark.parametrize(
    ("step_deg", "period_s", "speed", "direction"),
    [(1.0, 0.1, 10.0, 1), (-0.5, 0.05, 10.0, -1), (180.0, 2.0, 90.0, 1)],
)
def test_a_fly_rotation_knows_its_speed_and_direction(step_deg, period_s, speed, direction):
    fly = FlyRotation(start_deg=10.0, step_deg=step_deg, num_pulses=5, period_s=period_s)
    assert fly.speed_deg_s == pytest.approx(speed)
    assert fly.direction == direction


def test_the_run_up_is_the_way_of_the_acceleration_and_half_a_step():
    fly = FlyRotation(start_deg=0.0, step_deg=-2.0, num_pulses=5, period_s=0.1)
    # 20 deg/s reached evenly in 0.5 s takes 5 deg.
    assert fly.lead_deg(0.5) == pytest.approx(5.0 + 1.0)
    assert fly.lead_deg(0.0) == pytest.approx(1.0)


GOOD = {"start_deg": 0.0, "step_deg": 1.0, "num_pulses": 10, "period_s": 0.1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_pulses": 0},
        {"num_pulses": -3},
        {"step_deg": 0.0},
        {"period_s": 0.0},
        {"period_s": -0.1},
        {"step_deg": math.nan},
        {"start_deg": math.inf},
        {"period_s": math.nan},
        {"period_s": math.inf},
    ],
)
def test_a_rotation_that_makes_no_sense_is_refused_with_its_value(wrong):
    (value,) = wrong.values()
    with pytest.raises(InputError, match=f"cannot rotate .*{value}"):
        FlyRotation(**{**GOOD, **wrong})


def test_requests_are_values():
    series = FrameSeries("run", "flats", 3, 0.1, 0.2)
    assert series == FrameSeries("run", "flats", 3, 0.1, 0.2, trigger="internal")
    with pytest.raises(AttributeError):
        series.num_frames = 4


TICKET = SeriesTicket("file://localhost/raw.h5", "/entry/flats/data", 0, 1)


def test_frames_are_announced_once_as_they_come():
    assets = StreamAssets("camera_image", (1, 3, 4))
    told = [list(assets.advance(TICKET, available)) for available in (0, 2, 2, 1, 5)]
    assert [[name for name, _ in part] for part in told] == [
        [],
        ["stream_resource", "stream_datum"],
        [],
        [],
        ["stream_datum"],
    ]
    resource = told[1][0][1]
    assert (resource["uri"], resource["data_key"]) == (TICKET.uri, "camera_image")
    assert resource["parameters"]["dataset"] == "/entry/flats/data"
    assert tuple(resource["parameters"]["chunk_shape"]) == (1, 3, 4)
    data = [document for part in told for name, document in part if name == "stream_datum"]
    assert [(d["indices"]["start"], d["indices"]["stop"]) for d in data] == [(0, 2), (2, 5)]
    assert {d["stream_resource"] for d in data} == {resource["uid"]}
    assert len({d["uid"] for d in data}) == 2


def test_stream_documents_keep_to_the_event_model_once_the_engine_has_signed_them():
    assets = StreamAssets("camera_image", (1, 3, 4))
    for name, document in assets.advance(TICKET, 3):
        signed = (
            {**document, "run_start": "r"}
            if name == "stream_resource"
            else {**document, "descriptor": "d"}
        )
        schema_validators[DocumentNames[name]].validate(signed)


class Owner:
    name = "camera"


def test_work_in_a_thread_finishes_its_status():
    may_end, threads = threading.Event(), []

    def work():
        threads.append(threading.current_thread())
        may_end.wait()

    status = run_in_thread(work, Owner())
    assert not status.done
    may_end.set()
    status.wait(timeout=10)
    assert status.success
    assert threads[0] is not threading.current_thread()


def test_an_error_of_the_work_becomes_that_of_the_status():
    def work():
        raise InputError("too fast")

    status = run_in_thread(work, Owner())
    with pytest.raises(InputError, match="too fast"):
        status.wait(timeout=10)
    assert not status.success
