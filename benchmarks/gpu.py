"""How fast a volume is reconstructed on a GPU, from page-locked memory to page-locked memory.

``python benchmarks/gpu.py [--quick] [--json]``

2048 x 2048 x 2048 voxels from 1500 projections (``--quick``: 256 and 180), in parts of rows that
fit the memory of the host. It reports the time of the whole work, and beside it the time that the
same bytes take to cross to the device and back, the engine with a held centre, and TomocuPy on the
same data where it is installed. Without a device it says so and measures nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import arguments, report

from apsber_bluesky.processing.accelerators import CupyEngine, TomocupyEngine

ROWS_AT_ONCE = 512


def best_of(work: Callable[[], object], repeats: int = 3) -> float:
    """Shortest time of some runs [s], after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def locked(shape: tuple[int, ...]) -> Any:
    """Page-locked memory, filled with line integrals of noise."""
    import cupyx

    array = cupyx.empty_pinned(shape, np.float32)
    array[:] = np.random.default_rng(0).random(shape[-1], dtype=np.float32)
    return array


def copies(projections: Any, volume: Any) -> float:
    """Time of the two copies, both ways at once [s]."""
    import cupy

    up, down = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    there, back = cupy.empty(projections.shape, "f4"), cupy.zeros(volume.shape, "f4")

    def work() -> None:
        there.set(projections, stream=up)
        back.get(stream=down, out=volume, blocking=False)
        up.synchronize()
        down.synchronize()

    return best_of(work)


def measure(size: int, count: int) -> dict[str, Any]:
    """All figures, scaled from the rows measured to all of them."""
    import cupy

    rows, centre = min(size, ROWS_AT_ONCE), size / 2
    angles = np.arange(count) * 180 / count
    projections, volume = locked((count, rows, size)), locked((rows, size, size))
    whole = size / rows

    def engine(*, held: bool) -> None:
        made = CupyEngine(rows, size, angles, "ramp", 1)
        if held:
            made.hold_centre(centre)
        made.accumulate(projections, 0)
        made.finish(slice(None), centre, out=volume)

    figures = {
        "device": cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(),
        "copies_s": round(copies(projections, volume) * whole, 4),
        "cupy_s": round(best_of(lambda: engine(held=False)) * whole, 4),
        "cupy_held_s": round(best_of(lambda: engine(held=True)) * whole, 4),
    }
    figures["cupy_over_copies"] = round(figures["cupy_s"] / figures["copies_s"], 2)
    if TomocupyEngine.usable():

        def peer() -> None:
            made = TomocupyEngine(rows, size, angles, "ramp", 1)
            made.accumulate(projections, 0)
            made.finish(slice(None), centre)

        figures["tomocupy_s"] = round(best_of(peer, 1) * whole, 4)
        figures["tomocupy_over_cupy"] = round(figures["tomocupy_s"] / figures["cupy_s"], 2)
    return {"rows_measured": rows, "scaled_by": whole, **figures}


def main() -> None:
    """Measure, report."""
    options = arguments(__doc__ or "")
    size, count = (256, 180) if options.quick else (2048, 1500)
    shape = {"volume": f"{size} x {size} x {size}", "projections": count}
    if CupyEngine.usable():
        report({**shape, **measure(size, count)}, as_json=options.json)
    else:
        report({**shape, "device": "none: nothing was measured"}, as_json=options.json)


if __name__ == "__main__":
    main()
