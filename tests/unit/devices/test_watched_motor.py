"""A motor that stalls, stops short, or is told to stop, with records in memory."""

from __future__ import annotations

import threading
import time

import pytest
from ophyd.sim import make_fake_device
from ophyd.utils import LimitError

from apsber_bluesky.core import PlanError
from apsber_bluesky.devices._watched_motor import WatchedMotor


@pytest.fixture
def motor():
    motor = make_fake_device(WatchedMotor)("", name="rotation")
    motor.user_readback.sim_put(0.0)
    motor.user_setpoint.sim_set_limits((-90.0, 90.0))
    motor.user_setpoint.sim_put(0.0)
    motor.velocity.sim_put(60.0)
    motor.acceleration.sim_put(0.05)
    motor.motor_done_move.sim_put(1)
    motor.direction_of_travel.sim_put(1)
    motor.high_limit_switch.sim_put(0)
    motor.low_limit_switch.sim_put(0)
    motor.stall_s = 0.3
    motor.user_readback.alarm_severity = 0
    motor.__class__.precision = property(lambda _: 4)
    return motor


def begun(motor):
    """Wait until the record has its order, and let it move."""
    deadline = time.monotonic() + 5
    while motor.user_setpoint.get() == 0.0:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    motor.motor_done_move.sim_put(0)


def test_a_motor_that_arrives_is_done(motor):
    status = motor.set(10.0)
    begun(motor)
    motor.user_readback.sim_put(10.0)
    motor.motor_done_move.sim_put(1)
    status.wait(5)


def test_a_motor_that_does_not_begin_to_move_is_named(motor):
    status = motor.set(10.0)
    with pytest.raises(PlanError, match="rotation stalled at 0 on its way to 10"):
        status.wait(5)
    assert motor.motor_stop.get() == 1


def test_a_motor_that_sticks_on_its_way_is_named(motor):
    status = motor.set(80.0)
    begun(motor)
    moving = time.monotonic() + 0.6
    while time.monotonic() < moving:
        motor.user_readback.sim_put(motor.user_readback.get() + 1.0)
        time.sleep(0.02)
        assert not status.done
    with pytest.raises(PlanError, match=r"rotation stalled at .* on its way to 80"):
        status.wait(5)


def test_a_motor_that_somebody_else_stops_is_named(motor):
    status = motor.set(80.0)
    begun(motor)
    motor.user_readback.sim_put(30.0)
    motor.motor_done_move.sim_put(1)
    with pytest.raises(PlanError, match="rotation stopped at 30 on its way from 0 to 80"):
        status.wait(5)


def test_a_motor_that_is_told_to_stop_has_not_failed_and_moves_no_more(motor):
    status = motor.set(80.0)
    begun(motor)
    motor.stop(success=False)
    status.wait(5)
    # It still brakes; the next motion has to wait for that.
    following = motor.set(20.0)
    time.sleep(0.15)
    assert motor.user_setpoint.get() == 80.0
    motor.motor_done_move.sim_put(1)
    deadline = time.monotonic() + 5
    while motor.user_setpoint.get() != 20.0:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    motor.motor_done_move.sim_put(0)
    motor.user_readback.sim_put(20.0)
    motor.motor_done_move.sim_put(1)
    following.wait(5)


def test_a_motor_that_is_stopped_before_it_began_does_not_begin(motor):
    hold = threading.Event()
    original = motor._await_standstill

    def wait():
        hold.wait(5)
        original()

    motor._await_standstill = wait
    status = motor.set(10.0)
    motor.stop()
    hold.set()
    status.wait(5)
    assert motor.user_setpoint.get() == 0.0


def test_a_place_beyond_the_limits_is_refused_at_once(motor):
    with pytest.raises(LimitError):
        motor.set(91.0)
