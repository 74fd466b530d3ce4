"""How fast and how true slices are reconstructed: this suite's engine, finufft and others.

``python benchmarks/reconstruction.py [--quick] [--json]``

Engines take turns in one run, and the best of their turns counts; ratios are between those. The
peers scikit-image and algotom are timed if they are installed, on one slice. Times are those of a
slice in a volume of many, with memory that the process already has. Where others use the processor
too, the figures of processor time say more.
"""

from __future__ import annotations

import os

# Peers that compile with numba would take all processors else.
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _common import arguments, report
from numpy.typing import NDArray

from apsber_bluesky.processing import create_engine, engine_names

MU = 0.01
Projections = NDArray[np.float32]


def keep_memory() -> None:
    """Have freed memory stay with the process: getting it anew can cost more than the work."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: none of it mapped apart
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: none of it given back


def discs(rows: int, columns: int, projections: int) -> Projections:
    """Projections of a disc, different in each slice."""
    u = np.arange(columns) - (columns - 1) / 2
    radii = columns * (0.45 - 0.1 * np.arange(rows) / rows)
    lines = 2 * MU * np.sqrt(np.maximum(0, radii[:, None] ** 2 - u[None, :] ** 2))
    return np.broadcast_to(lines.astype(np.float32), (projections, rows, columns))


def angles(projections: int) -> NDArray[np.float64]:
    """Half a turn."""
    return np.arange(projections) * 180 / projections


def scan(
    name: str, rows: int, columns: int, projections: int, *, threads: int = 1, held: bool = False
) -> dict[str, float]:
    """Reconstruct a whole volume as its projections come; seconds of each part."""
    engine = create_engine(
        name, rows=rows, columns=columns, angles_deg=angles(projections), threads=threads
    )
    centre = (columns - 1) / 2
    whole = discs(rows, columns, projections)
    if held:
        engine.hold_centre(centre)
    seconds = dict.fromkeys(("accumulate", "slice", "volume", "last_chunk"), 0.0)
    spent = time.process_time()
    for first in range(0, projections, 32):
        chunk = np.ascontiguousarray(whole[first : first + 32])
        began = time.perf_counter()
        engine.accumulate(chunk, first)
        seconds["last_chunk"] = time.perf_counter() - began
        seconds["accumulate"] += seconds["last_chunk"]
    began = time.perf_counter()
    if held:
        engine.finish(slice(rows // 2, rows // 2 + 1), centre)
        seconds["slice"] = time.perf_counter() - began
        began = time.perf_counter()
    # In slabs, as the pipeline asks for them; the memory of a volume is not the engine's.
    for start in range(0, rows, 16 * threads):
        image = engine.finish(slice(start, min(start + 16 * threads, rows)), centre)
    seconds["volume"] = time.perf_counter() - began
    middle = columns // 2
    mu = image[-1, middle - 8 : middle + 8, middle - 8 : middle + 8].mean()
    if abs(mu / MU - 1) > 1e-3:
        raise SystemExit(f"{name} reads {mu} where the disc has {MU}")
    seconds["total"] = seconds["accumulate"] + seconds["volume"]
    seconds["processor"] = time.process_time() - spent
    return seconds


def best(
    turns: int, runs: dict[str, Callable[[], dict[str, float]]]
) -> dict[str, dict[str, float]]:
    """Let all runs take turns; the least of each figure."""
    found: dict[str, dict[str, float]] = {}
    for _ in range(turns):
        for name, run in runs.items():
            seconds = run()
            before = found.get(name, seconds)
            found[name] = {key: min(value, before[key]) for key, value in seconds.items()}
    return found


def peers(columns: int, projections: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One slice by the packages that are installed."""
    sinogram = discs(1, columns, projections)[:, 0].copy()
    with contextlib.suppress(ImportError):
        from skimage.transform import iradon

        yield (
            "skimage",
            lambda: iradon(sinogram.T, theta=angles(projections), filter_name="ramp", circle=True),
        )
    with contextlib.suppress(ImportError):
        from algotom.rec.reconstruction import fbp_reconstruction

        centre = (columns - 1) / 2
        yield (
            "algotom",
            lambda: fbp_reconstruction(sinogram, centre, apply_log=False, gpu=False, ncore=1),
        )


def seconds_of(call: Callable[[], Any], turns: int) -> float:
    """Least processor time of some turns after one that compiles."""
    call()
    times = []
    for _ in range(turns):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def one_core(columns: int, projections: int, rows: int, turns: int) -> dict[str, Any]:
    """The suite's engine against finufft and the peers, on one core, in one run."""
    found = best(
        turns,
        {
            "gridding": lambda: scan("gridding", rows, columns, projections),
            "streaming": lambda: scan("gridding", rows, columns, projections, held=True),
            "finufft": lambda: scan("finufft", 16, columns, projections),
        },
    )
    each = found["gridding"]["total"] / rows
    reference = found["finufft"]["total"] / 16
    spent = found["gridding"]["processor"] / rows
    streaming = found["streaming"]
    figures: dict[str, Any] = {
        "size": f"{rows} slices of {columns}^2 from {projections}",
        "gridding_ms_per_slice": round(each * 1e3, 2),
        "gridding_ms_accumulate": round(found["gridding"]["accumulate"] / rows * 1e3, 2),
        "gridding_ms_finish": round(found["gridding"]["volume"] / rows * 1e3, 2),
        "finufft_ms_per_slice": round(reference * 1e3, 2),
        "times_finufft": round(reference / each, 2),
        "gridding_processor_ms_per_slice": round(spent * 1e3, 2),
        "finufft_processor_ms_per_slice": round(found["finufft"]["processor"] / 16 * 1e3, 2),
        "times_finufft_processor": round(found["finufft"]["processor"] / 16 / spent, 2),
        "streaming_ms_per_slice": round(streaming["total"] / rows * 1e3, 2),
        "streaming_to_one_shot": round(streaming["total"] / found["gridding"]["total"], 2),
        "last_chunk_of_32_ms_per_slice": round(streaming["last_chunk"] / rows * 1e3, 2),
        "last_chunk_to_slice_s": round(streaming["slice"], 3),
    }
    for name, call in peers(columns, projections):
        seconds = seconds_of(call, 1)
        figures[f"{name}_processor_ms_per_slice"] = round(seconds * 1e3)
        figures[f"times_{name}_processor"] = round(seconds / spent)
    return figures


def cores(columns: int, projections: int, rows: int, turns: int) -> dict[str, Any]:
    """What more cores bring."""
    most = len(os.sched_getaffinity(0))
    counts = sorted({1, min(2, most), most})
    found = best(
        turns,
        {
            str(n): lambda n=n: scan("gridding", rows, columns, projections, threads=n)
            for n in counts
        },
    )
    return {
        f"speed_of_{n}_cores": round(found["1"]["total"] / found[str(n)]["total"], 2)
        for n in counts[1:]
    }


def growth(sizes: list[tuple[int, int, int]], turns: int) -> dict[str, float]:
    """How the cost of a slice grows with its size, the slices and the projections."""
    figures = {}
    for columns, projections, rows in sizes:
        found = best(
            turns, {"own": lambda c=columns, p=projections, r=rows: scan("gridding", r, c, p)}
        )
        key = f"processor_ms_per_slice_{columns}_from_{projections}_of_{rows}"
        figures[key] = round(found["own"]["processor"] / rows * 1e3, 2)
    return figures


def main() -> None:
    """Measure everything."""
    options = arguments(__doc__ or "")
    keep_memory()
    # Compiled before anything is timed; how long that or loading takes is a figure of its own.
    began = time.perf_counter()
    create_engine("gridding", rows=1, columns=8, angles_deg=[0.0])
    figures: dict[str, Any] = {"seconds_until_ready": round(time.perf_counter() - began, 2)}
    figures["engines"] = ", ".join(engine_names())
    if options.quick:
        figures |= one_core(256, 300, 32, 2) | cores(256, 300, 64, 2)
        figures |= growth([(128, 200, 32), (256, 200, 32)], 2)
    else:
        figures |= one_core(1024, 1500, 32, 4) | cores(1024, 1500, 64, 3)
        figures |= growth(
            [
                (512, 720, 32),
                (512, 720, 128),
                (512, 1440, 32),
                (1024, 750, 32),
                (1024, 1500, 32),
                (1024, 3000, 32),
                (2048, 1500, 16),
                (2048, 3000, 16),
            ],
            2,
        )
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
