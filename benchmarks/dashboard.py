"""The live page: what looking costs, and how soon a change is on its way to a browser."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from _common import arguments, report

from apsber_bluesky.core import RunFolder, RunLedger, RunState
from apsber_bluesky.dashboard._board import Board
from apsber_bluesky.dashboard._png import grey_png, to_grey
from apsber_bluesky.dashboard._run_index import RunIndex
from apsber_bluesky.dashboard._volume_slices import VolumeSlices
from apsber_bluesky.storage import VolumeWriter


def make_runs(root: Path, count: int) -> RunFolder:
    """Runs with nothing but a ledger, but for the last, which has a volume."""
    for number in range(count):
        folder = RunFolder.of(root, "benchmark", f"run-{number:05d}").create()
        with RunLedger(folder.ledger, create=True) as ledger:
            ledger.describe({"start_time_s": float(number), "sample": f"sample {number}"})
            ledger.set_state(RunState.COMPLETE)
    return folder


def listing(root: Path) -> dict[str, float]:
    """Seconds to read all runs, to find that none has changed, and to search them."""
    index = RunIndex(root)
    seconds = []
    for look in (index.refresh, index.refresh, lambda: index.search("sample 7 complete")):
        began = time.perf_counter()
        look()
        seconds.append(time.perf_counter() - began)
    names = ("first_look_s", "next_look_s", "search_s")
    return dict(zip(names, (round(s, 4) for s in seconds), strict=True))


def pictures(folder: RunFolder, side: int, repeats: int) -> dict[str, float]:
    """Milliseconds for a slice of a volume, and for a live slice."""
    values = np.random.default_rng(1).normal(size=(16, side, side)).astype(np.float32)
    with VolumeWriter(folder.volume, values.shape) as writer:
        writer.write(0, values)
    slices = VolumeSlices()
    slices.png(folder, "volume", "z", 0)
    began = time.perf_counter()
    for number in range(repeats):
        slices.png(folder, "volume", "z", number % 16)
    volume_ms = (time.perf_counter() - began) / repeats * 1000
    began = time.perf_counter()
    for _ in range(repeats):
        grey_png(to_grey(values[0], -1.0, 3.0))
    live_ms = (time.perf_counter() - began) / repeats * 1000
    return {"volume_slice_ms": round(volume_ms, 2), "live_slice_ms": round(live_ms, 2)}


async def latency(listeners: int, changes: int) -> dict[str, float]:
    """Milliseconds from a change to the event of the last of some browsers."""
    board = Board()
    board.show("time", 0.0)
    delays: list[float] = []

    async def follow() -> None:
        async for event in board.listen():
            then = float(event[14:-3]) if event.startswith("data: ") else 0.0
            if then:
                delays.append(time.perf_counter() - then)

    def change() -> None:
        for _ in range(changes):
            board.show("time", time.perf_counter())
            time.sleep(0.25)
        board.close()

    thread = threading.Thread(target=change)
    thread.start()
    await asyncio.gather(*(follow() for _ in range(listeners)))
    thread.join()
    ordered = sorted(delays)
    return {
        "event_median_ms": round(statistics.median(ordered) * 1000, 2),
        "event_p99_ms": round(ordered[int(0.99 * (len(ordered) - 1))] * 1000, 2),
    }


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "")
    runs, side, repeats, changes = (200, 256, 8, 8) if options.quick else (5000, 2048, 50, 60)
    with tempfile.TemporaryDirectory() as folder:
        last = make_runs(Path(folder), runs)
        figures = {"runs": runs, **listing(Path(folder)), "side": side}
        figures |= pictures(last, side, repeats)
    report({**figures, **asyncio.run(latency(20, changes))}, as_json=options.json)


if __name__ == "__main__":
    main()
