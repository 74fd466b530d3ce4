"""What the suite's callbacks cost a scan: 1,000 events with and without them.

``python benchmarks/documents.py [--quick] [--json]``
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

from _common import arguments, report


def scan_seconds(engine: Any, detectors: list[Any], events: int) -> float:
    """Wall time of a scan [s]."""
    import bluesky.plans as bp

    began = time.perf_counter()
    engine(bp.count(detectors, num=events))
    return time.perf_counter() - began


def main() -> None:
    """Interleave scans with and without callbacks, and compare pair by pair."""
    options = arguments(__doc__ or "")
    events, pairs = (200, 3) if options.quick else (1000, 7)
    from apsber_bluesky.session import start

    with tempfile.TemporaryDirectory() as folder:
        changes = {"session": {"data_root": folder}, "simulation": {"rows": 32, "columns": 32}}
        with start("simulated", changes) as session:
            from bluesky import RunEngine
            from ophyd.sim import hw

            simulated = hw()
            detectors = [simulated.det, simulated.det1, simulated.det2]
            bare, listened = RunEngine({}), RunEngine({})
            for callback in session.callbacks:
                listened.subscribe(callback)
            for engine in (bare, listened):
                scan_seconds(engine, detectors, events)
            times = [
                (scan_seconds(bare, detectors, events), scan_seconds(listened, detectors, events))
                for _ in range(pairs)
            ]
    ratios = [with_callbacks / without for without, with_callbacks in times]
    report(
        {
            "events": events,
            "pairs": pairs,
            "seconds_without_median": round(statistics.median(t[0] for t in times), 4),
            "seconds_with_median": round(statistics.median(t[1] for t in times), 4),
            "ratio_min": round(min(ratios), 4),
            "ratio_median": round(statistics.median(ratios), 4),
            "ratio_max": round(max(ratios), 4),
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
