"""What an iteration costs, and what it buys.

``python benchmarks/iterative.py [--quick] [--json]``

One thread reconstructs 16 slices. Times are those of the processor, the best of several, so that
they can be compared while others use it too. An iteration lasts from one report of its progress
to the next; ``fbp_ms`` is one filtered back-projection of the same 16 slices, projections to
slices, by the gridding engine, with memory that the process already has. Where scikit-image is
installed, an iteration of its SART is timed on one slice and counted 16 times. The second part is
the quality from few and from noisy projections of the Shepp-Logan phantom.
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import numpy as np
from _common import arguments, report
from numpy.typing import NDArray
from reconstruction import keep_memory

from apsber_bluesky.processing import (
    IterativeSettings,
    create_engine,
    reconstruct,
    reconstruct_iteratively,
)
from apsber_bluesky.simulation import make_phantom

SLICES = 16
CASES = ((512, 180), (1024, 360))
QUICK_CASES = ((256, 90),)
METHODS = {
    "cgls": IterativeSettings(method="cgls", iterations=9),
    "cgls_non_negative": IterativeSettings(method="cgls", non_negative=True, iterations=9),
    "sirt": IterativeSettings(method="sirt", iterations=9),
    "tv": IterativeSettings(method="tv", iterations=9),
}


def projections_of(
    angles: NDArray[np.float64], columns: int, rows: int, noise: float = 0.0
) -> NDArray[np.float32]:
    """Exact projections of the phantom with noise added."""
    phantom, centre = make_phantom("shepp_logan"), (columns - 1) / 2
    taken = np.stack(
        [phantom.project(angle, rows=rows, columns=columns, centre_px=centre) for angle in angles]
    )
    random = np.random.default_rng(0)
    return taken + noise * random.standard_normal(taken.shape, dtype=np.float32)


def iteration_ms(
    projections: NDArray[np.float32], angles: NDArray[np.float64], settings: IterativeSettings
) -> float:
    """Best time of an iteration of all slices [ms]."""
    told: list[float] = []
    reconstruct_iteratively(
        projections,
        angles,
        (projections.shape[2] - 1) / 2,
        settings=settings,
        threads=1,
        progress=lambda _: told.append(time.process_time()),
    )
    return 1e3 * float(np.diff(told).min())


def back_projection_ms(projections: NDArray[np.float32], angles: NDArray[np.float64]) -> float:
    """Best time of a filtered back-projection of all slices [ms]."""
    _, rows, columns = projections.shape
    found = []
    for _ in range(5):
        engine = create_engine("gridding", rows=rows, columns=columns, angles_deg=angles, threads=1)
        began = time.process_time()
        engine.accumulate(projections, 0)
        engine.finish(slice(None), (columns - 1) / 2)
        found.append(time.process_time() - began)
    return 1e3 * min(found)


def sart_ms(projections: NDArray[np.float32], angles: NDArray[np.float64]) -> float:
    """One iteration of SART in scikit-image, for as many slices [ms]."""
    from skimage.transform import iradon_sart

    sinogram = np.ascontiguousarray(projections[:, 0].T, dtype=np.float32)
    began = time.process_time()
    iradon_sart(sinogram, theta=angles)
    return 1e3 * projections.shape[1] * (time.process_time() - began)


def speed(columns: int, count: int) -> dict[str, Any]:
    """Times of one size."""
    angles = np.arange(count) * 180 / count
    projections = projections_of(angles, columns, SLICES)
    fbp = back_projection_ms(projections, angles)
    figures: dict[str, Any] = {"fbp_ms": round(fbp, 1)}
    for name, settings in METHODS.items():
        each = iteration_ms(projections, angles, settings)
        figures[f"{name}_iteration_ms"] = round(each, 1)
        figures[f"{name}_iteration_to_fbp"] = round(each / fbp, 2)
    if importlib.util.find_spec("skimage") is not None:
        sart = sart_ms(projections, angles)
        figures["sart_iteration_ms"] = round(sart, 1)
        figures["sart_to_sirt"] = round(sart / figures["sirt_iteration_ms"], 1)
    return figures


def psnr_db(volume: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Quality of the middle slice in the field of view [dB]."""
    size = truth.shape[-1]
    y, x = np.mgrid[:size, :size] - size // 2
    field = x**2 + y**2 < (0.45 * size) ** 2
    error = (volume[0] - truth)[field]
    return round(float(20 * np.log10(truth.max() / np.sqrt(np.mean(error**2)))), 2)


def quality(size: int, count: int, noise: float) -> dict[str, Any]:
    """Quality of one slice by every method [dB]."""
    angles, centre = np.arange(count) * 180 / count, (size - 1) / 2
    projections = projections_of(angles, size, 1, noise)
    truth = make_phantom("shepp_logan").volume(1, size)[0]
    stop = noise or None
    weight = max(noise / 2000, 1e-6)
    figures: dict[str, Any] = {
        f"fbp_{name}": psnr_db(reconstruct(projections, angles, centre, filter_name=name), truth)
        for name in ("ramp", "hann")
    }
    for name, settings in {
        "cgls": IterativeSettings(method="cgls", noise=stop),
        "cgls_non_negative": IterativeSettings(
            method="cgls", non_negative=True, iterations=40, noise=stop
        ),
        "sirt": IterativeSettings(method="sirt", iterations=200, noise=stop),
        "tv": IterativeSettings(method="tv", regularisation=weight),
    }.items():
        done = reconstruct_iteratively(projections, angles, centre, settings=settings, threads=1)
        figures[name] = psnr_db(done.volume, truth)
        figures[f"{name}_iterations"] = int(done.iterations[0])
    return figures


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "")
    keep_memory()
    # Compiled, or loaded, before anything is timed.
    for settings in METHODS.values():
        iteration_ms(np.ones((4, 1, 16), np.float32), np.arange(4) * 45.0, settings)
    figures: dict[str, Any] = {
        f"speed_{columns}x{count}": speed(columns, count)
        for columns, count in (QUICK_CASES if options.quick else CASES)
    }
    size = 128 if options.quick else 256
    figures["psnr_db_few"] = quality(size, 24, 0.0)
    figures["psnr_db_noisy"] = quality(size, 180, 0.05)
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
