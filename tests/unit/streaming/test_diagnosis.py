"""Faults of a stream are said once, and missing frames are explained by their pattern."""

import logging
import math

import pytest

from apsber_bluesky.streaming._diagnosis import ClockCheck, Complaints, explain_missing


@pytest.mark.parametrize(
    ("missing", "num_frames", "word"),
    [
        ([], 10, ""),
        (range(10), 10, "none came"),
        (range(7, 10), 10, "the last ones: the source stopped early"),
        (range(3), 10, "the first ones: they were sent before the receiver was connected"),
        (range(0, 40, 2), 40, "only every 2. came: another program"),
        (range(1, 40, 2), 40, "only every 2. came: another program"),
        ([n for n in range(60) if n % 3], 60, "only every 3. came"),
        ([4], 10, ""),
        ([3, 4, 11, 25], 40, ""),
        ([1, 3], 5, ""),
    ],
)
def test_the_pattern_of_missing_frames_tells_why(missing, num_frames, word):
    said = explain_missing(list(missing), num_frames)
    assert said.startswith(word)
    assert bool(said) is bool(word)


def test_a_kind_of_fault_is_said_once_and_counted(caplog):
    told = []
    complaints = Complaints(told.append)
    with caplog.at_level(logging.WARNING):
        for number in range(100):
            complaints.say(f"frame {number} is late by {number / 7} s")
        complaints.say("something else")
        complaints.end()
    assert told == ["frame 0 is late by 0.0 s", "something else"]
    assert caplog.messages == [*told, "100 times: frame # is late by # s"]
    complaints.say("frame 5 is late by 1 s")
    assert len(told) == 3


def test_kinds_of_faults_without_end_do_not_fill_the_memory():
    complaints = Complaints()
    for number in range(1000):
        complaints.say("fault " + "x" * number)
    assert len(complaints._counts) <= 51


@pytest.mark.parametrize(
    ("times", "jumps"),
    [
        ([1e9, 1e9 + 1, 1e9 + 2], 0),
        ([1e9, 1e9 - 0.5, 1e9 + 1], 0),
        ([1e9, 1e9 - 60, 1e9 - 59], 1),
        ([1e9, 2e9, 2e9 + 1], 1),
        ([0.0, 1e9, 0.0, 1e9 + 1], 0),
        ([math.nan, 1e9, math.nan, math.inf, 1e9 + 1], 0),
    ],
)
def test_a_clock_that_jumps_is_noticed_and_one_that_is_not_set_is_not(times, jumps):
    clock = ClockCheck()
    told = [clock.check(number, moment) for number, moment in enumerate(times)]
    assert sum(text is not None for text in told) == jumps


def test_frames_out_of_order_are_no_jump():
    clock = ClockCheck()
    assert all(clock.check(n, 1e9 + 100 * n) is None for n in (0, 3, 1, 2, 4))
