"""Simulated examples: the same ones however they are made."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from apsber_bluesky.core import InputError, RunCancelled
from apsber_bluesky.session import (
    HELD_OUT_SEED,
    SIMULATED_CLASSES,
    SimulatedExamples,
    check_apart,
    simulate_examples,
)

WANTED = SimulatedExamples(3, 40, slices=3, size=64)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_examples_that_were_interrupted_are_those_made_in_one_go(tmp_path: Path) -> None:
    whole = simulate_examples(tmp_path / "whole", WANTED, processes=2)
    assert whole.description.volumes == 3
    assert whole.description.classes == SIMULATED_CLASSES
    assert whole.inputs(2).shape == (5, 3, 64, 64)
    # The last variant is clean, in units of its level.
    np.testing.assert_array_equal(whole.inputs(2)[-1], whole.targets(2)[0])
    assert np.median(whole.targets(0)[0][whole.labels(0) == 2]) == pytest.approx(1, abs=0.15)

    stop, told = threading.Event(), []

    def note(done: int, total: int) -> None:
        told.append((done, total))
        if done == 1:
            stop.set()

    with pytest.raises(RunCancelled, match="1 of 3 examples; the same command goes on"):
        simulate_examples(tmp_path / "parts", WANTED, processes=1, progress=note, cancelled=stop)
    simulate_examples(tmp_path / "parts", WANTED, processes=1, progress=note)
    assert told == [(0, 3), (1, 3), (1, 3), (2, 3), (3, 3)]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")

    # Nothing is left to do, and nothing else fits into the folder.
    simulate_examples(tmp_path / "whole", WANTED, processes=1)
    for other, message in (
        (SimulatedExamples(3, 41, slices=3, size=64), "holds other examples"),
        (SimulatedExamples(2, 40, slices=3, size=64), "holds 3 volumes, more than the 2"),
    ):
        with pytest.raises(InputError, match=message):
            simulate_examples(tmp_path / "whole", other, processes=1)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (SimulatedExamples(2, HELD_OUT_SEED - 1), "seeds 899999 to 900000 reach those"),
        (SimulatedExamples(0, 5), "cannot train on 0 volumes from seed 5"),
        (SimulatedExamples(1, -5), "cannot train on 1 volumes from seed -5"),
    ],
)
def test_nothing_is_trained_on_what_it_is_judged_on(
    training: SimulatedExamples, message: str
) -> None:
    held_out = SimulatedExamples(2, HELD_OUT_SEED)
    check_apart(SimulatedExamples(2, HELD_OUT_SEED - 2), held_out)
    with pytest.raises(InputError, match=message):
        check_apart(training, held_out)
