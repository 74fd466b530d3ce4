"""Whether the worker shows slices, and where."""

from __future__ import annotations

import threading

import numpy as np

from apsber_bluesky.core import ProcessingSettings, RunDescription, TomographyScan
from apsber_bluesky.session._live_display import show_live_slices
from apsber_bluesky.streaming import SliceSubscriber


class Told:
    def __init__(self):
        self.messages = []

    def stage(self, *_):
        raise AssertionError("slices are no stage")

    def message(self, run_uid, event, details):
        self.messages.append((run_uid, event, details["used"]))


def names():
    return [thread.name for thread in threading.enumerate()]


def test_slices_reach_a_subscriber_and_nothing_is_left_running():
    told = Told()
    settings = ProcessingSettings(live_slices={"hz": 20})
    scan = TomographyScan(num_projections=500, rows=3, columns=8, dtype="<u2", exposure_s=1.0)
    with show_live_slices(settings, told) as (live, address):
        subscriber = SliceSubscriber(address)
        live.begin_run(RunDescription(uid="run-1", scan=scan))
        view = None
        for number in range(500):
            live.add("run-1", np.ones((1, 3, 8), np.float32), number)
            view = subscriber.latest(0.1)
            if view is not None:
                break
        subscriber.close()
    assert (view.run_uid, view.planes["xy"].shape) == ("run-1", (8, 8))
    assert ("run-1", "live_slices", view.used) in told.messages
    assert "live-slices" not in names()


def test_none_are_made_when_none_are_wanted():
    with show_live_slices(ProcessingSettings(live_slices={"hz": 0}), Told()) as made:
        assert made == (None, None)
        assert "live-slices" not in names()
