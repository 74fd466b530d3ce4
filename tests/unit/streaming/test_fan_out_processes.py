"""The fan-out through kills and slow consumers, in real processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from apsber_bluesky.core import (
    FrameRange,
    RunDescription,
    TomographyScan,
)
from apsber_bluesky.streaming._fan_out import FanOut
from apsber_bluesky.streaming._fan_out_client import FanOutClient

ROWS, COLUMNS = 6, 8


def frame(index, rows=ROWS, columns=COLUMNS):
    return np.full((rows, columns), index, "<u2") + np.arange(columns, dtype="<u2")


def read(frames):
    return np.stack([frame(index) for index in range(frames.start, frames.stop)])


def description(uid="run", num_projections=40, num_flats=3):
    scan = TomographyScan(
        num_projections=num_projections,
        num_flats=num_flats,
        rows=ROWS,
        columns=COLUMNS,
        dtype="<u2",
        exposure_s=0.1,
    )
    return RunDescription(uid=uid, scan=scan)


def announced(start, stop, uid="run", stream="primary"):
    return FrameRange(uid, stream, start, stop, "file:///nowhere/raw.h5", f"/entry/{stream}/data")


@pytest.fixture
def make():
    """Start fan-outs and clients; all are closed at the end."""
    with contextlib.ExitStack() as stack:

        def fan_out(source=read, address="tcp://127.0.0.1:*", **options):
            options.setdefault("missing", lambda _: [])
            made = FanOut(source, address, **options)
            stack.callback(made.close)
            return made

        def client(fan_out, *words, **options):
            address = fan_out if isinstance(fan_out, str) else fan_out.address
            return stack.enter_context(FanOutClient(address, *words, **options))

        yield fan_out, client


def wait_for(condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


CONSUMER = """
    import json, os, sys, time
    import numpy as np
    from apsber_bluesky.streaming._fan_out_client import FanOutClient
    address, path, period_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
    with open(path, "ab+", buffering=0) as file:
        file.seek(0)
        done = [int(line) for line in file.read().split()]
        first = done[-1] + 1 if done else 0
        with FanOutClient(address, "run", next_index=first, name="recon", silence_s=2) as client:
            for index, pixels in client:
                assert (pixels == index + np.arange(pixels.shape[1])).all()
                # One write: a kill leaves the line whole or does not leave it.
                file.write(b"%d\\n" % index)
                time.sleep(period_s)
            print(json.dumps({"missing": client.missing, "reconnects": client.reconnects}))
"""


@contextlib.contextmanager
def start_process(code, *words):
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("times", [int(os.environ.get("APSBER_TEST_KILLS", "4"))])
def test_a_consumer_killed_at_any_moment_goes_on_without_gap_or_double(make, tmp_path, times):
    """``APSBER_TEST_KILLS=50`` kills it more often than the usual few times."""
    fan_out, _ = make
    server = fan_out()
    num = 100 * times
    server.begin_run(description(num_projections=num))
    log = tmp_path / "frames"
    chance = random.Random(5)
    for part in range(times):
        server.frames(announced(part * 100, part * 100 + 100))
        with start_process(CONSUMER, server.address, log, 0.002):
            wait_for(lambda part=part: log.exists() and log.read_bytes().count(b"\n") > part * 20)
            time.sleep(chance.uniform(0, 0.1))
    server.end_run("run", "success", "")
    killed_at = log.read_bytes().count(b"\n")
    with start_process(CONSUMER, server.address, log, 0) as process:
        out, _ = process.communicate(timeout=60)
    assert json.loads(out)["missing"] == []
    assert 20 * (times - 1) < killed_at < num
    assert [int(line) for line in log.read_text().split()] == list(range(num))


SERVER = """
    import sys
    import numpy as np
    from apsber_bluesky.core import FrameRange, RunDescription
    from apsber_bluesky.streaming._fan_out import FanOut
    def read(f):
        return (f.start + np.arange(8, dtype="<u2"))[None, None].repeat(6, axis=1)
    scan = dict(num_projections=200, rows=6, columns=8, dtype="<u2", exposure_s=0.1)
    server = FanOut(read, sys.argv[1], missing=lambda _: [])
    print(server.address, flush=True)
    server.begin_run(RunDescription.model_validate({"uid": "run", "scan": scan}))
    server.frames(FrameRange("run", "primary", 0, int(sys.argv[2]), "file:///x", "d"))
    if sys.argv[3] == "end":
        server.end_run("run", "success", "")
    sys.stdin.read()
"""


def test_a_server_that_is_killed_and_comes_back_is_gone_on_with(make):
    _, client = make
    with contextlib.ExitStack() as stack:

        def serve(*words):
            return stack.enter_context(start_process(SERVER, *words))

        first = serve("tcp://127.0.0.1:*", 80, "open")
        address = first.stdout.readline().strip()
        consumer = client(address, "run", silence_s=1)
        came = []
        for index, pixels in consumer:
            np.testing.assert_array_equal(pixels, frame(index))
            came.append(index)
            if index == 50:
                first.kill()
                first.wait()
                serve(address, 200, "end")
    assert came == list(range(200))
    assert consumer.reconnects >= 1


SLOW = """
    import json, resource, sys, time
    from apsber_bluesky.streaming._fan_out_client import FanOutClient
    indices = []
    with FanOutClient(sys.argv[1], "run", credit=4) as client:
        for index, pixels in client:
            if index == 0:
                base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            indices.append(index)
            time.sleep(0.03)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"indices": indices, "grown": (peak - base) * 1024}))
"""


def test_a_consumer_at_a_third_of_the_rate_loses_nothing_and_memory_stays_bounded(make):
    fan_out, _ = make
    side, num = 1024, 60
    frame_bytes = side * side * 2

    def big(frames):
        return np.full((1, side, side), frames.start, "<u2")

    server = fan_out(big)
    scan = TomographyScan(
        num_projections=num, rows=side, columns=side, dtype="<u2", exposure_s=0.01
    )
    with start_process(SLOW, server.address) as process:
        server.begin_run(RunDescription(uid="run", scan=scan))
        wait_for(lambda: server.clients())
        ahead = []
        for index in range(num):
            server.frames(announced(index, index + 1))
            ahead.append([c["next"] - c["acknowledged"] for c in server.clients()])
            time.sleep(0.01)
        server.end_run("run", "success", "")
        out, _ = process.communicate(timeout=60)
    result = json.loads(out)
    assert result["indices"] == list(range(num))
    assert max(max(ahead)) == 4
    # Four frames under way and what the kernel and allocator hold of them; the run has 60.
    assert result["grown"] < 20 * frame_bytes
