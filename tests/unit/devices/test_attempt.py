"""Work of devices that is given up at any instant."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from ophyd.status import Status

from apsber_bluesky.devices._attempt import Attempt, GivenUp

DEVICE = SimpleNamespace(name="device")


def test_work_finishes_its_status_and_its_failure_is_the_status():
    attempt = Attempt()
    done = threading.Event()
    attempt.run(done.set, DEVICE).wait(5)
    assert done.is_set()

    def fail():
        raise ValueError("too far")

    with pytest.raises(ValueError, match="too far"):
        attempt.run(fail, DEVICE).wait(5)


def test_work_that_was_given_up_does_not_fail_whatever_it_raises_then():
    attempt, begun, given_up = Attempt(), threading.Event(), threading.Event()

    def fail():
        begun.set()
        given_up.wait(5)
        raise TimeoutError("the motor did not answer")

    status = attempt.run(fail, DEVICE)
    assert begun.wait(5)
    attempt.give_up()
    given_up.set()
    status.wait(5)
    assert attempt.join(5)


def test_a_step_is_done_wholly_or_not_at_all():
    attempt, begun, go_on = Attempt(), threading.Event(), threading.Event()
    done = []

    def work():
        def step():
            begun.set()
            go_on.wait(5)
            done.append("first")

        attempt.step(step)
        attempt.step(lambda: done.append("second"))

    status = attempt.run(work, DEVICE)
    assert begun.wait(5)
    giving_up = threading.Thread(target=attempt.give_up)
    giving_up.start()
    # It does not return while the step is being done.
    giving_up.join(0.05)
    assert giving_up.is_alive()
    while not attempt.is_given_up:
        pass
    go_on.set()
    giving_up.join(5)
    status.wait(5)
    assert done == ["first"]


def test_waiting_for_a_status_ends_when_the_attempt_is_given_up():
    attempt, never = Attempt(), Status(timeout=None)
    timer = threading.Timer(0.05, attempt.give_up)
    timer.start()
    with pytest.raises(GivenUp):
        attempt.wait(never)
    timer.join()
    never.set_finished()


def test_work_that_goes_on_is_told_of():
    attempt, stop = Attempt(), threading.Event()
    attempt.run(stop.wait, DEVICE)
    assert not attempt.join(0.01)
    stop.set()
    assert attempt.join(5)
