"""What the benchmarks share: the machine they ran on, and how they report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import apsber_bluesky


def arguments(description: str) -> argparse.Namespace:
    """Read the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, for a first look")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def processor() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def report(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures with the machine, date and version they belong to."""
    about = {
        "version": apsber_bluesky.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    if as_json:
        print(json.dumps({**about, **figures}))
        return
    for key, value in {**about, **figures}.items():
        print(f"{key:32} {value}")
