"""How fast projections become line integrals, and what the other corrections cost.

``python benchmarks/preprocessing.py [--quick] [--json]``

One core, processor time, so that a busy machine matters less. NumPy in place is the peer of the
normalisation: the same five operations, each over the whole chunk with its result in the output
array. Stripes are removed from a striped Shepp-Logan sinogram; rings are measured in the slice,
relative to those of the slice as it came.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import arguments, report
from numpy.typing import NDArray

from apsber_bluesky.processing import (
    Normaliser,
    PaganinFilter,
    reconstruct,
    refine_centre,
    remove_stripes_by_sorting,
    remove_stripes_by_wavelet,
    remove_zingers,
)
from apsber_bluesky.simulation import make_phantom

CHUNK = 32
STRIPES = 0.01
FIELD = 0.4
MINIMUM = np.float32(1e-4)
OPTICS = {"energy_keV": 20.0, "distance_m": 0.01, "pixel_size_um": 1.0, "delta_over_beta": 2000.0}


def best_ms(work: Callable[[], object], repeats: int) -> float:
    """Least processor time of some repeats, after one that does not count [ms]."""
    work()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times) * 1e3


def normalisation(size: int, repeats: int) -> dict[str, Any]:
    """Suite against NumPy in place, alternately; uint16 in, float32 out."""
    rng = np.random.default_rng(0)
    frames = rng.integers(100, 40000, (CHUNK, size, size), dtype=np.uint16)
    dark = np.full((size, size), 90, np.float32)
    flat = rng.uniform(30000, 42000, (size, size)).astype(np.float32)
    scale = 1 / (flat - dark)
    out = np.empty(frames.shape, np.float32)
    plain = Normaliser(dark, flat)
    between = Normaliser(dark, np.stack([flat, flat]), flat_positions=[0, CHUNK])

    def numpy_in_place() -> None:
        np.subtract(frames, dark, out=out, casting="unsafe", dtype=np.float32)
        np.multiply(out, scale, out=out)
        np.maximum(out, MINIMUM, out=out)
        np.log(out, out=out)
        np.negative(out, out=out)

    def numpy_frame_by_frame() -> None:
        for frame, lines in zip(frames, out, strict=True):
            np.subtract(frame, dark, out=lines, casting="unsafe", dtype=np.float32)
            np.multiply(lines, scale, out=lines)
            np.maximum(lines, MINIMUM, out=lines)
            np.log(lines, out=lines)
            np.negative(lines, out=lines)

    ratios, own, whole, frame_wise = [], [], [], []
    for _ in range(3):
        own.append(best_ms(lambda: plain(frames, out), repeats))
        whole.append(best_ms(numpy_in_place, repeats))
        frame_wise.append(best_ms(numpy_frame_by_frame, repeats))
        ratios.append(whole[-1] / own[-1])
    numpy_in_place()
    difference = np.abs(plain(frames) - out) / np.maximum(np.abs(out), 1)
    positions = np.arange(CHUNK)
    figures = {
        "normalise_ms_per_frame": round(min(own) / CHUNK, 3),
        "normalise_mpixel_per_s": round(frames.size / min(own) / 1e3),
        "normalise_over_numpy_in_place": round(statistics.median(ratios), 2),
        "normalise_over_numpy_frame_by_frame": round(min(frame_wise) / min(own), 2),
        "normalise_interpolated_ms_per_frame": round(
            best_ms(lambda: between(frames, out, positions=positions), repeats) / CHUNK, 3
        ),
        "normalise_largest_relative_difference": float(f"{difference.max():.2g}"),
    }
    plain(frames, out)
    figures["zingers_ms_per_frame"] = round(
        best_ms(lambda: remove_zingers(out), repeats) / CHUNK, 3
    )
    phase, few = PaganinFilter(size, size, **OPTICS), out[:2]
    figures["paganin_ms_per_frame"] = round(best_ms(lambda: phase(few), repeats) / len(few), 1)
    return figures


def sinogram(size: int, angles: NDArray[np.float64], centre: float) -> NDArray[np.float32]:
    """The middle row of the Shepp-Logan phantom."""
    phantom = make_phantom("shepp_logan")
    rows = [phantom.project(angle, rows=1, columns=size, centre_px=centre)[0] for angle in angles]
    return np.array(rows, np.float32)[:, None] * (256 / size)


def stripes(size: int, projections: int, repeats: int) -> dict[str, Any]:
    """Time per sinogram, and rings left."""
    angles, centre = np.arange(projections) * 180 / projections, (size - 1) / 2
    clean = sinogram(size, angles, centre)
    gains = 1 + STRIPES * np.random.default_rng(1).standard_normal(size)
    striped = clean - np.log(gains).astype(np.float32)
    y, x = np.mgrid[:size, :size] - size // 2
    field = x * x + y * y < (FIELD * size) ** 2
    truth = reconstruct(clean, angles, centre)[0][field]

    def off(lines: NDArray[np.float32]) -> float:
        found = reconstruct(lines, angles, centre)[0][field] - truth
        return float(np.sqrt(np.mean(found**2)) / truth.max())

    rings = off(striped)
    figures: dict[str, Any] = {"rings_of_peak": round(rings, 4)}
    methods: dict[str, Callable[[NDArray[np.float32]], None]] = {
        "sorting": remove_stripes_by_sorting,
        "wavelet": remove_stripes_by_wavelet,
    }
    if importlib.util.find_spec("algotom") is not None:
        from algotom.prep.removal import remove_stripe_based_sorting

        def algotom(lines: NDArray[np.float32]) -> None:
            lines[:, 0] = remove_stripe_based_sorting(lines[:, 0], 15)

        methods["algotom_sorting"] = algotom
    slab = np.repeat(striped, 16, axis=1)
    for name, method in methods.items():
        lines, untouched = striped.copy(), clean.copy()
        method(lines)
        method(untouched)
        work = slab if name != "algotom_sorting" else slab[:, :1].copy()
        cost = best_ms(lambda method=method, work=work: method(work), max(repeats // 2, 1))  # type: ignore[misc]
        figures |= {
            f"{name}_ms_per_sinogram": round(cost / work.shape[1], 1),
            f"{name}_rings_divided_by": round(rings / off(lines), 2),
            f"{name}_changes_clean_slice": round(off(untouched), 4),
        }
    engine_ms = best_ms(lambda: reconstruct(slab, angles, centre, threads=1), 1)
    figures["reconstruction_ms_per_sinogram"] = round(engine_ms / slab.shape[1], 1)
    return figures


def centre(size: int, projections: int) -> dict[str, Any]:
    """Error and time of the refinement, of a half and of a full turn."""
    figures: dict[str, Any] = {}
    for turn in (180, 360):
        angles, place = np.arange(projections) * turn / projections, (size - 1) / 2 + 7.37
        lines = np.repeat(sinogram(size, angles, place), 4, axis=1)
        lines += np.random.default_rng(2).normal(0, 0.01, lines.shape).astype(np.float32)
        began = time.perf_counter()
        found = refine_centre(lines, angles, place + 1.3, threads=1)
        figures |= {
            f"refined_centre_error_px_{turn}": round(found.centre_px - place, 4),
            f"refined_centre_s_{turn}": round(time.perf_counter() - began, 2),
        }
    return figures


def main() -> None:
    """Measure, report."""
    options = arguments(__doc__ or "")
    size, projections, repeats = (512, 720, 3) if options.quick else (1024, 1500, 7)
    report(
        {
            "frame": f"{size} x {size}",
            "sinogram": f"{size} x {projections}",
            **normalisation(size, repeats),
            **stripes(size, projections, repeats),
            **centre(size, projections),
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
