"""The property-based fuzz of one target: Hypothesis draws the tapes, and shrinks what fails."""

from __future__ import annotations

import argparse
import logging
import tracemalloc

from fuzz_measure import Meter
from fuzz_report import report
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# Hypothesis takes milliseconds for each example, so one is several cases.
CASES = 10
TAPES = st.lists(st.binary(min_size=4, max_size=80), min_size=CASES, max_size=CASES)


def run_property(name: str, count: int) -> Meter:
    """Whatever arrives is refused, or is what it says; at least `count` cases."""
    target = TARGETS[name]
    meter = Meter(target)

    @settings(
        max_examples=-(-count // CASES),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(TAPES)
    def holds(tapes: list[bytes]) -> None:
        for tape in tapes:
            meter.run(target.make(tape))

    # Each line that a reader logs would be one of many thousands.
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    tracemalloc.start()
    try:
        for seed in target.seeds():
            target.run(seed)
        holds()
    finally:
        tracemalloc.stop()
        logging.disable(before)
    return meter


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--count", type=int, default=100_000)
    arguments = parser.parse_args()
    meter = run_property(arguments.target, arguments.count)
    report("property", arguments.target, meter)
    assert not meter.unreached, f"never reached: {meter.unreached}"
