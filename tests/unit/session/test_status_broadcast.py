"""What a session does, seen from another process."""

from __future__ import annotations

import time

import pytest

from apsber_bluesky.session._status_board import StatusBoard
from apsber_bluesky.session._status_broadcast import StatusBroadcast
from apsber_bluesky.streaming import StatusSubscriber


@pytest.fixture
def board():
    board = StatusBoard()
    yield board
    board.close()


def until(subscriber, condition):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        state = subscriber.latest(0.1)
        if state is not None and condition(state):
            return state
    raise AssertionError("the state was not seen")


def test_who_comes_late_sees_the_whole_state(board):
    broadcast = StatusBroadcast(board)
    board.post({"type": "stage", "run_uid": "one", "stage": "reconstruct", "done": 3, "total": 9})
    board.post({"type": "warning", "run_uid": "one", "stage": "denoise", "message": "no torch"})
    board.post({"type": "live_slices", "run_uid": "one", "used": 8})
    board.post({"type": "health", "run_uid": "", "kind": "ring", "message": "x", "active": True})
    subscriber = StatusSubscriber(broadcast.address)
    state = until(subscriber, lambda state: state["health"])
    assert state == {
        "runs": {
            "one": {
                "stages": {"reconstruct": [3, 9]},
                "warnings": ["denoise: no torch"],
                "live_slices": {"used": 8},
                "finished": False,
            }
        },
        "health": ["x"],
    }
    board.post({"type": "finished", "run_uid": "one"})
    until(subscriber, lambda state: state["runs"]["one"]["finished"])
    subscriber.close()
    broadcast.close()


def test_a_session_of_weeks_shows_its_newest_runs_alone(board):
    broadcast = StatusBroadcast(board)
    for number in range(1000):
        board.post({"type": "warning", "run_uid": str(number), "stage": "s", "message": "m" * 9999})
    for number in range(1000):
        board.post({"type": "warning", "run_uid": "999", "stage": "s", "message": str(number)})
    runs = broadcast.state()["runs"]
    assert list(runs) == ["996", "997", "998", "999"]
    assert len(runs["999"]["warnings"]) == 30
    assert max(len(text) for text in runs["999"]["warnings"]) == 400
    broadcast.close()
