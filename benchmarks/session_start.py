"""How long a session takes to start, in IPython and in a queueserver, and what a scan costs beside.

``python benchmarks/session_start.py [--quick] [--json]``

Each start is in a process of its own; starts in IPython and in a queueserver are taken in turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import arguments, report

SESSION = """
import time
began = time.perf_counter()
from apsber_bluesky.session.startup import *
started = time.perf_counter() - began
import json

times = []
for number in range({scans}):
    began = time.perf_counter()
    RE(bp.count([shutter], num={events}))
    times.append(time.perf_counter() - began)
few = dict(num_projections=100, exposure_s=0.02, num_darks=1, num_flats=1, rotation_stop_deg=90.0)
frames = {{}}
RE.subscribe(lambda name, doc: frames.setdefault(name, []).append(doc["time"]), "start")
RE.subscribe(lambda name, doc: frames.setdefault(name, []).append(doc["time"]), "stop")
flights = []
for number in range({flights}):
    frames.clear()
    RE(fly_tomography(camera, rotation, shutter, sample_x, return_rotation=False, **few))
    flights.append(frames["stop"][0] - frames["start"][0])
print("RESULT", json.dumps([started, times, flights]))
"""

QUEUE = """
import json, time
from apsber_bluesky.core import load_profile
from apsber_bluesky.session import QueueClient, QueueServer

began = time.perf_counter()
server = QueueServer("simulated", load_profile("simulated"))
server.start()
started = time.perf_counter() - began
try:
    with QueueClient.at(server.address) as client:
        client.request("queue_clear")
        client.close_environment()
        began = time.perf_counter()
        client.open_environment(120)
        opened = time.perf_counter() - began
finally:
    server.stop()
print("RESULT", json.dumps([started, opened]))
"""


def result_of(code: str, root: Path) -> Any:
    """Run a piece of Python in a process of its own; what it found."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "APSBER_DATA_ROOT": str(root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def main() -> None:
    """Start sessions in turns, and run scans in those of IPython."""
    options = arguments(__doc__ or "")
    starts, events, flights = (1, 100, 1) if options.quick else (5, 500, 2)
    sessions, queues = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(starts):
            code = SESSION.format(scans=2, events=events, flights=flights)
            sessions.append(result_of(code, Path(folder) / "ipython"))
            queues.append(result_of(QUEUE, Path(folder) / "queue"))
            time.sleep(1.0)
    started = [session[0] for session in sessions]
    counts = [times[-1] for _, times, _ in sessions]
    flown = [seconds for *_, times in sessions for seconds in times]
    report(
        {
            "starts": starts,
            "load_average": round(os.getloadavg()[0], 2),
            "session_start_s_min": round(min(started), 2),
            "session_start_s_median": round(statistics.median(started), 2),
            "session_start_s_max": round(max(started), 2),
            "queue_start_s_median": round(statistics.median(q[0] for q in queues), 2),
            "environment_open_s_min": round(min(q[1] for q in queues), 2),
            "environment_open_s_median": round(statistics.median(q[1] for q in queues), 2),
            "events_per_s_median": round(events / statistics.median(counts), 1),
            # 100 frames, each 22 ms after the one before, one dark and one flat.
            "fly_100_frames_s_median": round(statistics.median(flown), 2),
            "fly_exposing_s": round(100 * 0.022 + 2 * 0.022, 3),
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
