"""The simulated beamline as a process: ``python -m apsber_bluesky.simulation``."""

from __future__ import annotations

import os
import sys

from apsber_bluesky.core import forgo_real_time

# Before anything imports EPICS: no real-time threads, and ophyd only for its lists of records.
forgo_real_time()
os.environ["OPHYD_CONTROL_LAYER"] = "dummy"
# caproto holds monitors back for 10 ms to batch them; clients would see everything that late.
os.environ.setdefault("CAPROTO_SERVER_HIGH_LOAD_TIMEOUT_SEC", "0.002")

from apsber_bluesky.simulation._service import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.stdin, sys.stdout))
