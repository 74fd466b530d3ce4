"""Followers take the slabs of a volume in a thread of their own; one that fails harms no other."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from apsber_bluesky.core import InputError, RunCancelled, RunLedger
from apsber_bluesky.pipeline import FinishFollower, RunContext
from apsber_bluesky.pipeline._followers import VOLUME, WAITING_SLABS, Following

SHAPE = (12, 2, 2)


class Doubles:
    """Gives each slab on with its values doubled, one slab late."""

    def __init__(self, name, source=VOLUME, *, fails_at=None, gate=None):
        self.name, self.source = name, source
        self.fails_at, self.gate = fails_at, gate
        self.taken, self.abandoned, self.finished, self._last = [], 0, False, []

    def prepare(self):
        pass

    def begin(self, context, shape):
        assert threading.current_thread().name == "followers"
        if self.fails_at == "begin":
            raise InputError(f"{self.name} has no model")

    def take(self, start, slab):
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.fails_at == start:
            raise ValueError("boom")
        self.taken.append((start, float(slab.max())))
        ready, self._last = self._last, [(start, 2 * slab)]
        return ready

    def finish(self, context):
        if self.fails_at == "finish":
            raise InputError("the disk is full")
        self.finished = True
        return self._last

    def abandon(self):
        self.abandoned += 1


@pytest.fixture
def context(make_run, log):
    run = make_run()
    with RunLedger(run.folder.ledger, create=True) as ledger:
        yield RunContext(run.description, run.folder, ledger, threading.Event(), log)


def slabs():
    return [(start, np.full((4, 2, 2), start + 1, np.float32)) for start in (0, 4, 8)]


def follow(context, *followers):
    """Send a volume to followers, and let each finish; what they failed with."""
    context.following = Following(context, SHAPE, followers)
    for start, slab in slabs():
        context.following.take(start, slab)
    failures = {}
    for follower in followers:
        try:
            with context.stage(follower.name):
                FinishFollower(follower.name).run(context)
        except Exception as error:  # noqa: BLE001 - all that a stage may raise
            failures[follower.name] = error
    return failures


def test_a_follower_takes_the_slabs_of_another_up_to_its_last_one(context):
    first, second = Doubles("first"), Doubles("second", "first")
    assert follow(context, first, second) == {}
    assert first.taken == [(0, 1.0), (4, 5.0), (8, 9.0)]
    assert second.taken == [(0, 2.0), (4, 10.0), (8, 18.0)]
    assert first.finished
    assert second.finished
    assert [(s.name, s.state) for s in context.ledger.stages] == [
        ("first", "done"),
        ("second", "done"),
    ]


@pytest.mark.parametrize("when", ["begin", 0, 4, "finish"])
def test_one_that_fails_takes_along_who_lives_on_it_and_nobody_else(context, when):
    bad, on_it, other = Doubles("bad", fails_at=when), Doubles("on it", "bad"), Doubles("other")
    failures = follow(context, bad, on_it, other)
    assert set(failures) == {"bad", "on it"}
    assert "bad failed, whose slices on it takes" in str(failures["on it"])
    assert other.finished
    assert len(other.taken) == 3
    assert bad.abandoned == on_it.abandoned == 1
    assert not on_it.finished
    assert not other.abandoned


def test_whoever_makes_slabs_waits_when_too_many_wait(context):
    gate = threading.Event()
    slow = Doubles("slow", gate=gate)
    following = Following(context, (40, 2, 2), [slow])
    handed_over = []

    def make():
        for start in range(40):
            following.take(start, np.ones((1, 2, 2), np.float32))
            handed_over.append(start)

    maker = threading.Thread(target=make)
    maker.start()
    maker.join(0.5)
    # One is being worked on.
    assert maker.is_alive()
    assert len(handed_over) <= WAITING_SLABS + 1
    gate.set()
    maker.join(20)
    following.wait()
    assert [start for start, _ in slow.taken] == list(range(40))


def test_a_cancelled_run_abandons_all_and_nobody_waits(context):
    gate = threading.Event()
    stuck = Doubles("stuck", gate=gate)
    following = Following(context, SHAPE, [stuck])
    following.take(*slabs()[0])
    context.cancelled.set()
    gate.set()
    for start, slab in [*slabs()] * 3:
        following.take(start, slab)
    with pytest.raises(RunCancelled):
        following.wait()
    assert stuck.abandoned == 1
    assert not stuck.finished


def test_a_volume_that_does_not_become_whole_abandons_all(context):
    own = Doubles("own")
    context.following = Following(context, SHAPE, [own])
    context.following.take(*slabs()[0])
    context.let_go()
    assert own.abandoned >= 1
    with pytest.raises(InputError, match="no volume was made"):
        FinishFollower("own").run(context)
