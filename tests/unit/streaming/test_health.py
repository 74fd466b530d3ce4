"""Rates, warnings, and health as plain values."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from apsber_bluesky.core import ServiceError, StreamingLimits
from apsber_bluesky.streaming import (
    HealthCounter,
    ReceiverHealth,
    find_warnings,
    time_until_full_s,
)

LIMITS = StreamingLimits()
WELL = ReceiverHealth(
    run_uid="run-1",
    stream="primary",
    armed=True,
    expected=1000,
    received=400,
    written=400,
    newest=399,
    frame_rate_hz=10.0,
    data_rate_mb_s=80.0,
    silent_s=0.1,
    ring_slots=16,
    ring_fill=0.25,
    spool_free_gb=500.0,
    spool_size_gb=1000.0,
    spool_free_s=6250.0,
)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counter(clock):
    return HealthCounter(clock)


def feed(counter, clock, seconds, hertz, size_bytes=1_000_000):
    for _ in range(round(seconds * hertz)):
        clock.now += 1 / hertz
        counter.frame(size_bytes)


@pytest.mark.parametrize("hertz", [2, 10, 100, 2000])
def test_a_steady_rate_is_told_as_it_is(counter, clock, hertz):
    feed(counter, clock, 20, hertz)
    frames_hz, mb_s = counter.rates()
    # A frame more or less at either end of the last seconds.
    assert frames_hz == pytest.approx(hertz, abs=0.4)
    assert mb_s == pytest.approx(hertz, abs=0.4)


def test_only_the_last_seconds_count(counter, clock):
    feed(counter, clock, 10, 1000)
    feed(counter, clock, 5, 10, size_bytes=500_000)
    frames_hz, mb_s = counter.rates()
    assert frames_hz == pytest.approx(10, abs=0.4)
    assert mb_s == pytest.approx(5, abs=0.2)


def test_the_rate_falls_to_zero_when_frames_stop(counter, clock):
    feed(counter, clock, 5, 100)
    clock.now += 1.5
    assert 20 < counter.rates()[0] < 80
    clock.now += 2
    assert counter.rates() == (0.0, 0.0)
    assert counter.silent_s() == pytest.approx(3.5)


def test_the_first_second_is_not_divided_by_three(counter, clock):
    feed(counter, clock, 1, 100)
    assert counter.rates()[0] == pytest.approx(100, rel=0.02)


def test_a_single_frame_is_no_infinite_rate(counter):
    counter.frame(1_000_000)
    assert counter.rates() == (4.0, 4.0)


def test_a_new_series_forgets_the_last(counter, clock):
    feed(counter, clock, 5, 100)
    clock.now += 7
    counter.begin()
    assert counter.rates() == (0.0, 0.0)
    assert counter.silent_s() == 0


def test_rates_can_be_asked_for_another_moment(counter, clock):
    feed(counter, clock, 5, 100)
    assert counter.rates(clock.now + 60) == (0.0, 0.0)
    assert counter.silent_s(clock.now + 60) == pytest.approx(60)


def test_health_travels_as_json():
    travelled = json.loads(json.dumps(WELL.to_dict()))
    assert ReceiverHealth.from_dict(travelled) == WELL
    assert ReceiverHealth.from_dict({}) == ReceiverHealth()


def test_whole_numbers_may_stand_for_fractions_but_not_the_other_way():
    health = ReceiverHealth.from_dict({"frame_rate_hz": 10, "spool_free_s": None})
    assert type(health.frame_rate_hz) is float
    with pytest.raises(ServiceError, match=r"received is 1\.5"):
        ReceiverHealth.from_dict({"received": 1.5})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames", 1),
        ("received", "7"),
        ("received", True),
        ("armed", 1),
        ("frame_rate_hz", float("nan")),
        ("ring_fill", float("inf")),
        ("spool_free_s", float("inf")),
        ("spool_free_s", "soon"),
        ("failure", None),
        ("run_uid", b"x"),
    ],
)
def test_health_that_is_none_is_refused_by_name(name, value):
    with pytest.raises(ServiceError, match=f"health of the receiver: {name} is"):
        ReceiverHealth.from_dict({name: value})


def test_the_disk_lasts_for_ever_while_nothing_comes():
    assert time_until_full_s(5e9, 0.0) is None
    assert time_until_full_s(5e9, 100.0) == 50.0


def kinds(health, earlier=None, **limits):
    return [w.kind for w in find_warnings(health, StreamingLimits(**limits), earlier)]


def test_a_receiver_that_is_well_deserves_no_warning():
    assert find_warnings(WELL, LIMITS, WELL) == []
    assert find_warnings(ReceiverHealth(), LIMITS) == []


@pytest.mark.parametrize(
    ("changes", "kind", "serious", "words"),
    [
        ({"failure": "the disk is full"}, "failure", True, "the disk is full"),
        ({"ring_fill": 0.81}, "ring", False, "81 % of the ring; they will be served from the sp"),
        # 600 frames at 10 Hz take 60 s.
        ({"spool_free_s": 59.0}, "disk", True, "full in 59 s, the series needs 60 s"),
        ({"spool_free_s": 599.0}, "disk", False, "full in 10 min at this rate"),
        ({"spool_free_gb": 49.0}, "disk", False, "only 49.0 GB, 4.9 % of the disk"),
        ({"refused": 3}, "refused", False, "3 frames of primary were refused"),
        ({"silent_s": 10.1}, "silent", False, "no frame for 10 s, 600 of 1000 may yet come"),
    ],
    ids=str,
)
def test_each_trouble_has_its_warning(changes, kind, serious, words):
    (warning,) = find_warnings(replace(WELL, **changes), LIMITS)
    assert (warning.kind, warning.serious) == (kind, serious)
    assert words in warning.message
    assert "\n" not in warning.message


@pytest.mark.parametrize(
    "changes",
    [
        {"ring_fill": 0.8},
        {"spool_free_s": 600.0},
        {"spool_free_gb": 50.0},
        {"silent_s": 10.0},
        {"silent_s": 500.0, "armed": False},
        {"silent_s": 500.0, "received": 1000},
        {"silent_s": 500.0, "received": 990, "missing": 10},
        {"spool_free_s": None, "frame_rate_hz": 0.0},
        # Without a size nobody knows what part is free.
        {"spool_free_gb": 0.0, "spool_size_gb": 0.0},
    ],
    ids=str,
)
def test_up_to_the_limit_there_is_no_warning(changes):
    assert find_warnings(replace(WELL, **changes), LIMITS) == []


def test_frames_that_came_again_or_did_not_fit_are_not_taken_for_those_expected():
    assert replace(WELL, received=1000, duplicated=300, refused=100).to_come == 400
    assert replace(WELL, received=990, missing=10).to_come == 0
    assert replace(WELL, received=1000, missing=10).to_come == 0
    assert kinds(replace(WELL, received=1000, duplicated=400, silent_s=11.0)) == ["silent"]


def test_limits_are_those_of_the_profile():
    uneasy = replace(WELL, ring_fill=0.6, silent_s=4.0, spool_free_s=1500.0)
    assert kinds(uneasy) == []
    assert kinds(uneasy, ring_fill=0.5, silent_s=3, spool_minutes=30) == ["disk", "ring", "silent"]


def test_a_backlog_is_told_only_while_it_grows_beyond_the_limit():
    def waiting(frames):
        return replace(WELL, backlog_frames=frames)

    assert kinds(waiting(17), waiting(16)) == ["backlog"]
    assert kinds(waiting(17), waiting(17)) == []
    assert kinds(waiting(17), waiting(40)) == []
    assert kinds(waiting(16), waiting(0)) == []
    assert kinds(waiting(900)) == []


def test_the_serious_comes_first_and_each_kind_once():
    bad = replace(WELL, ring_fill=1.0, refused=1, failure="x", spool_free_s=1.0, spool_free_gb=0.1)
    assert kinds(bad) == ["failure", "disk", "refused", "ring"]
