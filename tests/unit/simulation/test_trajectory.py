from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.simulation._pulses import Pulse, PulseTrain
from apsber_bluesky.simulation._trajectory import Trajectory

VELOCITY, ACCELERATION = 60.0, 600.0


def move(path: Trajectory, at_s: float, target: float, velocity: float = VELOCITY) -> Trajectory:
    return path.move(at_s, target, velocity=velocity, acceleration=ACCELERATION)


def rest(position: float = 0.0) -> Trajectory:
    return Trajectory.at_rest(position, 0.0)


def assert_physical(path: Trajectory, since: float, limit: float = VELOCITY) -> None:
    """Position continuous, velocity its derivative, and neither it nor its slope too large."""
    times = np.linspace(since, path.end_s + 0.05, 4001)
    position = np.array([path.position(t) for t in times])
    velocity = np.array([path.velocity(t) for t in times])
    step = times[1] - times[0]
    assert np.abs(velocity).max() <= limit * (1 + 1e-9)
    assert np.abs(np.diff(velocity)).max() <= ACCELERATION * step * 1.001
    middle = (velocity[1:] + velocity[:-1]) / 2
    np.testing.assert_allclose(np.diff(position), middle * step, atol=ACCELERATION * step**2)


@pytest.mark.parametrize("target", [90.0, -90.0, 3.0, -0.001, 0.0])
def test_a_move_is_a_trapezoid_that_ends_exactly_at_its_target(target: float) -> None:
    path = move(rest(), 0.0, target)
    assert_physical(path, 0.0)
    assert path.position(path.end_s) == target
    assert path.velocity(path.end_s) == 0.0
    long_enough = abs(target) >= VELOCITY**2 / ACCELERATION
    ramp = VELOCITY / ACCELERATION
    expected = (
        abs(target) / VELOCITY + ramp if long_enough else 2 * np.sqrt(abs(target) / ACCELERATION)
    )
    assert path.end_s == pytest.approx(expected)


@pytest.mark.parametrize("target", [100.0, 41.0, 32.0, 20.0, -50.0])
def test_a_new_target_on_the_way_keeps_position_and_speed(target: float) -> None:
    first = move(rest(), 0.0, 90.0)
    second = move(first, 0.6, target)
    assert second.position(0.6) == pytest.approx(first.position(0.6))
    assert second.velocity(0.6) == pytest.approx(first.velocity(0.6))
    assert_physical(second, 0.6)
    assert second.position(second.end_s) == target


def test_a_lower_velocity_on_the_way_slows_the_axis_down() -> None:
    path = move(move(rest(), 0.0, 90.0), 0.6, 90.0, velocity=20.0)
    assert_physical(path, 0.6)
    assert path.velocity(0.6 + 40.0 / ACCELERATION + 0.01) == pytest.approx(20.0)


@pytest.mark.parametrize("at_s", [0.05, 0.6, 1.55, 5.0])
def test_stop_brakes_without_a_jump(at_s: float) -> None:
    first = move(rest(), 0.0, 90.0)
    path = first.stop(at_s, acceleration=ACCELERATION)
    assert path.position(at_s) == pytest.approx(first.position(at_s))
    assert_physical(path, at_s)
    assert path.end_s - at_s == pytest.approx(first.velocity(at_s) / ACCELERATION)


def test_an_axis_that_stands_was_there_before_too() -> None:
    path = move(rest(7.0), 3.0, 7.0)
    assert (path.position(2.0), path.position(4.0), path.velocity(2.0)) == (7.0, 7.0, 0.0)
    moving = move(rest(7.0), 3.0, 9.0)
    assert (moving.position(2.0), moving.velocity(2.0)) == (7.0, 0.0)


def fire(path: Trajectory, train: PulseTrain, times: np.ndarray) -> list[Pulse]:
    pulses: list[Pulse] = []
    since = 0.0
    for until in times:
        pulses += train.advance(path, since, until)
        since = until
    return pulses


@pytest.mark.parametrize("polls", [1, 7, 5000])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_pulse_comes_once_however_often_the_loop_looks(polls: int, sign: float) -> None:
    path = move(rest(-sign * 3.0), 0.0, sign * 183.0)
    looks = np.sort(np.random.default_rng(polls).uniform(0, path.end_s + 0.1, polls))
    looks[-1] = path.end_s + 1.0
    train = PulseTrain(0.0, sign * 0.7, 250)
    pulses = fire(path, train, looks)
    assert [pulse.position for pulse in pulses] == [0.0 + i * (sign * 0.7) for i in range(250)]
    assert [pulse.index for pulse in pulses] == list(range(250))
    assert train.finished
    for pulse in pulses:
        assert path.position(pulse.time_s) == pytest.approx(pulse.position, abs=1e-9)


def test_first_and_last_pulse_may_lie_at_the_ends_of_the_move() -> None:
    path = move(rest(), 0.0, 10.0)
    pulses = fire(path, PulseTrain(0.0, 1.0, 11), np.linspace(0.01, path.end_s + 1, 50))
    assert len(pulses) == 11
    assert (pulses[0].time_s, pulses[-1].time_s) == (0.0, pytest.approx(path.end_s))


def test_moving_backwards_gives_no_pulse_and_going_on_gives_the_rest() -> None:
    out = move(rest(-1.0), 0.0, 5.5)
    back = move(out, out.end_s, -1.0)
    again = move(back, back.end_s, 20.0)
    train = PulseTrain(0.0, 1.0, 10)
    counts = [
        len(train.advance(path, since, path.end_s))
        for path, since in ((out, 0.0), (back, out.end_s), (again, back.end_s))
    ]
    assert counts == [6, 0, 4]


def test_an_axis_beyond_the_start_gives_no_pulse() -> None:
    path = move(rest(5.0), 0.0, 50.0)
    assert PulseTrain(0.0, 1.0, 10).advance(path, 0.0, 10.0) == []


def test_a_pulse_at_the_seam_between_two_motions_is_not_lost() -> None:
    first = move(rest(), 0.0, 90.0)
    # The order to speed up arrives exactly when the axis passes 30.
    at_s = next(t for t in [first.arrival(30.0, direction=1, since_s=0, until_s=9)] if t)
    second = move(first, at_s, 90.0, velocity=30.0)
    train = PulseTrain(10.0, 10.0, 8)
    pulses = train.advance(first, 0.0, at_s) + train.advance(second, at_s, 20.0)
    assert [pulse.position for pulse in pulses] == [10.0 * i for i in range(1, 9)]
