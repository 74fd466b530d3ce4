"""One line of figures for each run."""

from __future__ import annotations

import json
import resource
import time

from fuzz_measure import Meter

_BEGAN_S = time.monotonic()


def report(kind: str, name: str, meter: Meter) -> None:
    """Print what came of a run, as one JSON object."""
    figures = {
        "fuzz": kind,
        "target": name,
        "cases": meter.cases,
        "messages": meter.messages,
        "seconds": round(time.monotonic() - _BEGAN_S, 1),
        "slowest_ms": round(1e3 * meter.slowest_s, 1),
        "peak_case_MiB": round(meter.peak_bytes / 2**20, 2),
        "peak_process_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "outcomes": dict(meter.outcomes.most_common()),
    }
    print(json.dumps(figures), flush=True)
