from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError, ReconstructionEngine, RunCancelled
from apsber_bluesky.processing import (
    IterativeEngine,
    IterativeSettings,
    iterative_bytes,
    reconstruct_iteratively,
)

SETTINGS = IterativeSettings(method="cgls", iterations=6)


@pytest.fixture
def scan(shepp_logan):
    angles = np.arange(41) * 180 / 41
    lines = shepp_logan(14.0).sinogram(angles, 32, 15.0)
    scale = np.linspace(0.5, 2, 19, dtype=np.float32)
    return lines[:, None] * scale[:, None], angles


def engine_for(angles, **options):
    return IterativeEngine(19, 32, angles, SETTINGS, 2, **options)


def test_it_is_an_engine_and_gives_what_the_function_gives(scan):
    projections, angles = scan
    engine = engine_for(angles)
    assert isinstance(engine, ReconstructionEngine)
    assert (engine.name, engine.shape) == ("cgls", (19, 32, 32))
    for start, stop in ((30, 41), (0, 11), (11, 30)):
        engine.accumulate(projections[start:stop], start)
    assert engine.accumulated == 41
    expected = reconstruct_iteratively(projections, angles, 15.0, settings=SETTINGS).volume
    np.testing.assert_array_equal(engine.finish(slice(None), 15.0), expected)
    for slices in (slice(3, 5), slice(17, 19), slice(18, 2, -5)):
        np.testing.assert_array_equal(engine.finish(slices, 15.0), expected[slices])


def test_projections_that_are_missing_are_left_out(scan):
    projections, angles = scan
    engine = engine_for(angles)
    assert not engine.finish(slice(0, 2), 15.0).any()
    engine.accumulate(projections[:20], 0)
    engine.accumulate(projections[23:], 23)
    assert engine.give_up_missing() == [20, 21, 22]
    there = np.r_[0:20, 23:41]
    expected = reconstruct_iteratively(
        projections[there], angles[there], 15.0, settings=SETTINGS
    ).volume
    np.testing.assert_array_equal(engine.finish(slice(None), 15.0), expected)


def test_bad_chunks_are_refused(scan):
    projections, angles = scan
    engine = engine_for(angles)
    engine.accumulate(projections[:5], 0)
    with pytest.raises(InputError, match="projection 4 was accumulated before"):
        engine.accumulate(projections[4:6], 4)
    with pytest.raises(InputError, match="projection 7 holds NaN"):
        engine.accumulate(np.full((1, 19, 32), np.nan, np.float32), 7)
    with pytest.raises(InputError, match="centre 40 lies outside"):
        engine.finish(slice(None), 40)
    assert engine.accumulated == 5


def test_it_tells_and_can_be_cancelled(scan):
    projections, angles = scan
    told = []

    class Cancelled:
        def is_set(self):
            return len(told) > 2

    engine = engine_for(angles, progress=told.append, cancelled=Cancelled())
    engine.accumulate(projections, 0)
    with pytest.raises(RunCancelled):
        engine.finish(slice(0, 16), 15.0)
    assert len(told) == 3


def test_its_memory_is_that_of_the_projections_and_of_the_iterations():
    needed = IterativeEngine.required_bytes(SETTINGS, 64, 32, 41, 2)
    assert needed == 41 * 64 * 32 * 4 + iterative_bytes(SETTINGS, 64, 32, 41, threads=2)
