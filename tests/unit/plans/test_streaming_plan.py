"""The logic of streaming_tomography: what is captured, when it ends, what it refuses."""

from __future__ import annotations

import math

import pytest

from apsber_bluesky.core import InputError, RunDescription, TomographyScan
from apsber_bluesky.plans import streaming_tomography
from apsber_bluesky.plans._streaming_captures import Captures

SMALL = {
    "projections_per_half_turn": 6,
    "num_darks": 1,
    "num_flats": 2,
    "exposure_s": 0.01,
    "frame_period_s": 0.1,
}


class Requests:
    """Asks for what it was told to ask for, one list at a time."""

    def __init__(self, *asked):
        self.asked = list(asked)
        self.told = []

    def begin(self):
        self.told.append("begun")

    def take(self):
        return self.asked.pop(0) if self.asked else []

    def tell(self, state, count):
        if self.told[-1] != (state, count):
            self.told.append((state, count))


def captures_of(requests, *, before=3, most=None, longest=100):
    scan = TomographyScan(
        num_projections=110, capture_projections=10, rows=1, columns=2, dtype="<u2", exposure_s=1
    )
    requests.begin()
    return Captures(scan, requests, before, most, longest)


def noted(captures, taken, **how):
    """What is written down, as (number, first, end, asked)."""
    found = []
    for message in captures.note(taken, **how):
        if message.command == "set":
            message.obj.put(message.args[0])
        if message.command == "save":
            one = captures.readings
            found.append((one.number.get(), one.first.get(), one.end.get(), one.asked.get()))
    return found


def test_a_capture_begins_before_it_was_asked_for_and_is_noted_when_it_is_whole():
    captures = captures_of(Requests(["capture"]))
    captures.look(20, 0)
    assert noted(captures, 26) == []
    assert noted(captures, 27) == [(1, 17, 27, 20)]
    assert noted(captures, 50) == []


def test_a_capture_has_its_size_however_little_there_is_before_it():
    captures = captures_of(Requests(["capture"], ["capture"]))
    captures.look(1, 0)
    # The stage stood still before projection 30.
    captures.look(31, 30)
    assert noted(captures, 60) == [(1, 0, 10, 1), (2, 30, 40, 31)]


def test_two_captures_asked_for_at_once_are_two():
    captures = captures_of(Requests(["capture", "capture"]))
    captures.look(20, 0)
    assert [one[0] for one in noted(captures, 30)] == [1, 2]


def test_a_scan_ends_by_itself_or_when_asked_but_not_within_a_capture():
    captures = captures_of(Requests([], ["capture", "end"]), longest=50)
    captures.look(10, 0)
    assert [captures.is_over(taken) for taken in (10, 49, 50)] == [False, False, True]
    captures.look(20, 0)
    assert not captures.is_over(25)
    assert noted(captures, 27)
    assert captures.is_over(27)


def test_what_cannot_be_completed_any_more_is_noted_at_the_end():
    captures = captures_of(Requests(["capture"]))
    captures.look(105, 0)
    assert captures.is_over(110)
    assert noted(captures, 110, last=True) == [(1, 102, 110, 105)]


def test_no_more_captures_are_taken_than_were_allowed():
    captures = captures_of(Requests(["capture"] * 5), most=2)
    captures.look(20, 0)
    assert len(noted(captures, 90)) == 2
    assert captures.is_over(90)


def test_references_wait_for_a_capture_that_is_under_way():
    captures = captures_of(Requests(["capture", "flats"]))
    captures.look(20, 0)
    assert not captures.wants_references()
    noted(captures, 27)
    assert captures.wants_references()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"projections_per_half_turn": 0}, "projections_per_half_turn is 0"),
        ({"capture_projections": -1}, "capture_projections is -1"),
        ({"projections_before": -1}, "projections_before is -1"),
        ({"projections_before": 7}, "a capture has 6 projections"),
        ({"longest_s": math.nan}, "longest_s is nan"),
        ({"longest_s": -1}, "longest_s is -1"),
        ({"most_captures": 0}, "most_captures is 0"),
        ({"num_flats": 0}, "num_flats is 0"),
        ({"frame_period_s": 0.001}, r"frame_period_s is 0\.001"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_moves(beamline, arguments, words):
    requests = Requests()
    with pytest.raises(InputError, match=words):
        next(streaming_tomography(*beamline.devices, requests, **{**SMALL, **arguments}))
    assert (beamline.calls, requests.told) == ([], [])


def test_a_rotation_that_the_stage_refuses_stops_the_plan_before_it_begins(beamline):
    beamline.rotation.refuses = True
    with pytest.raises(InputError, match="too fast"):
        next(streaming_tomography(*beamline.devices, Requests(), **SMALL))
    assert beamline.calls == []


def test_the_start_document_says_how_long_it_may_last_and_how_large_a_capture_is(
    engine, documents, beamline
):
    beamline.camera.curtail = lambda series: len(beamline.camera._taken["primary"])
    requests = Requests()
    engine(streaming_tomography(*beamline.devices, requests, **SMALL, longest_s=2.0))
    run = RunDescription.from_start(documents["start"][0])
    assert (run.plan_name, run.technique) == ("streaming_tomography", "tomography")
    scan = run.scan
    assert (scan.num_projections, scan.capture_projections, scan.step_deg) == (26, 6, 30.0)
    assert requests.told == ["begun", ("references", 0), ("turning", 0), ("over", 0)]
    assert documents["stop"][0]["exit_status"] == "success"
