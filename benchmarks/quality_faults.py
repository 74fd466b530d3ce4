"""Which quality number answers to which fault, and what each costs.

``python benchmarks/quality_faults.py [--quick] [--json]``

The simulated beamline takes a soil core once as it should be, and once with each fault. The frames
go through normalisation and reconstruction as in the suite, and are judged. The table has a row for
each fault; the number that must answer to it is named with the direction.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _common import arguments, report
from numpy.typing import NDArray

from apsber_bluesky.analysis import (
    Assessment,
    DetectorFrames,
    PixelSums,
    SegmentedSlices,
    assess_scan,
)
from apsber_bluesky.core import FrameBooks, ImageKey, SeriesBooks, SimulationSettings
from apsber_bluesky.processing import (
    Projector,
    average_reference,
    bad_pixels,
    normalise,
    reconstruct,
)
from apsber_bluesky.simulation import PhantomSource

ROWS, FLATS = 16, 10


@dataclass(frozen=True)
class Fault:
    """What is wrong, and which number must say so.

    Attributes
    ----------
    name : str
        For the table.
    answers : dict of str to int
        Quality numbers that must change: 1 for up, -1 for down.
    settings : dict
        Of the simulated beamline.
    stop_deg : float
        End of the rotation.
    lost : int
        Projections that get lost.
    centre_error_px : float
        How far the rotation centre is wrong.
    """

    name: str
    answers: dict[str, int]
    settings: dict[str, Any] = field(default_factory=dict)
    stop_deg: float = 180.0
    lost: int = 0
    centre_error_px: float = 0.0


GOOD = Fault("none", {})
FULL_TURN = Fault("none, 360 deg", {}, stop_deg=360.0)
FAULTS = [
    Fault("ring", {"ring_score": 1}, {"gain_change": 0.03}),
    Fault("drift", {"drift": 1}, {"drift_px": 4.0}),
    Fault("drift, 360 deg", {"drift": 1}, {"drift_px": 2.0}, stop_deg=360.0),
    Fault(
        "low dose",
        {"signal_to_noise": -1, "contrast_to_noise": -1, "resolution": 1, "resolution_3d": 1},
        {"flat_counts": 400.0},
    ),
    Fault("dropped frames", {"missing_frames": 1, "reprojection_residual": 1}, lost=20),
    Fault("saturation", {"saturated_pixels": 1}, {"flat_counts": 66000.0}),
    Fault("dead pixels", {"dead_pixels": 1}, {"dead_pixel_fraction": 0.02}),
    Fault("unstable beam", {"flat_stability": 1}, {"beam_swing": 0.2}),
    Fault("wrong centre", {"centre_residual": 1, "reprojection_residual": 1}, centre_error_px=3.0),
]


def frames_of(fault: Fault, size: int, count: int) -> tuple[dict[str, NDArray[Any]], Any]:
    """Flats before, projections and flats after, and darks; and where they are from."""
    wanted = {
        "phantom": "soil",
        "rows": ROWS,
        "columns": size,
        "centre_offset_px": 2.25,
        "dead_pixel_fraction": 0.0,
        **fault.settings,
    }
    source = PhantomSource(SimulationSettings(**wanted))
    angles = np.arange(count) * (fault.stop_deg / count)
    number = 0

    def series(kind: ImageKey, places: NDArray[np.float64]) -> NDArray[Any]:
        nonlocal number
        taken = []
        for place in places:
            number += 1
            taken.append(source.image(kind, number=0, unique_id=number, angle_deg=float(place)))
        return np.stack(taken)

    still = np.zeros(FLATS)
    frames = {"darks": series(ImageKey.DARK, still), "before": series(ImageKey.FLAT, still)}
    frames["primary"] = series(ImageKey.PROJECTION, angles)
    frames["after"] = series(ImageKey.FLAT, still)
    return frames, source


def judge(fault: Fault, size: int, count: int) -> tuple[Assessment, dict[str, float]]:
    """Take a scan with a fault, reconstruct and judge it; what it says, and what it took [s]."""
    frames, source = frames_of(fault, size, count)
    dark = average_reference(frames["darks"], what="darks")
    flats = np.concatenate([frames["before"], frames["after"]])
    flat = average_reference(flats, what="flats")
    centre = source.centre_px + fault.centre_error_px
    angles = np.arange(count) * (fault.stop_deg / count)
    lost = list(range(count // 3, count // 3 + fault.lost))
    kept = np.setdiff1d(np.arange(count), lost)
    lines = normalise(frames["primary"][kept], dark, flat)
    began = time.perf_counter()
    slices = reconstruct(lines, angles[kept], centre)
    seconds = {"reconstruct": time.perf_counter() - began}
    began = time.perf_counter()
    sums = PixelSums(np.iinfo(np.uint16).max)
    for part in (flats, frames["primary"][kept]):
        sums.take(part)
    seconds["gathering"] = time.perf_counter() - began
    here = count - len(lost)
    began = time.perf_counter()
    found = assess_scan(
        slices=slices,
        sinograms=lines,
        angles_deg=angles[kept],
        centre=centre,
        books=FrameBooks({"primary": SeriesBooks(count, here, here, missing=lost)}),
        reconstruct_half=lambda part, places: reconstruct(part, places, centre),
        project=lambda stack, places: Projector(size, places, centre).project(stack),
        frames=DetectorFrames(
            sums, [frames["before"], frames["after"]], dark, bad_pixels(dark, flat)
        ),
        segmented=_three_classes(slices),
    )
    seconds["assess"] = time.perf_counter() - began
    return found, seconds


def _three_classes(slices: NDArray[np.float32]) -> SegmentedSlices:
    """A plain segmentation by thresholds; its doubt grows towards them."""
    middle = float(np.percentile(slices, 90))
    levels = np.array([0.0, 0.5, 1.0]) * middle
    odds = np.exp(-np.abs(slices[..., None] - levels) / (0.1 * middle))
    odds /= odds.sum(axis=-1, keepdims=True)
    doubt = -np.sum(odds * np.log(odds + 1e-12), axis=-1) / np.log(len(levels))
    labels = odds.argmax(axis=-1).astype(np.uint8)
    return SegmentedSlices(("air", "thin", "dense"), labels, doubt.astype(np.float16))


def main() -> None:
    """Take, judge, report."""
    options = arguments(__doc__ or "")
    size, count = (128, 120) if options.quick else (512, 400)
    judge(GOOD, 64, 32)  # compiles
    found = {case.name: judge(case, size, count) for case in (GOOD, FULL_TURN, *FAULTS)}
    values = {
        name: {metric.name: float(f"{metric.value:.4g}") for metric in case.metrics}
        for name, (case, _) in found.items()
    }
    verdicts = {
        name: {metric.name: str(metric.verdict) for metric in case.metrics}
        for name, (case, _) in found.items()
    }
    answers = {}
    for fault in FAULTS:
        still = values[FULL_TURN.name if fault.stop_deg > 180 else GOOD.name]
        for name, direction in fault.answers.items():
            moved = direction * (values[fault.name][name] - still[name]) > 0
            answers[f"{fault.name}: {name}"] = (
                f"{still[name]:.3g} -> {values[fault.name][name]:.3g}"
                f" {verdicts[fault.name][name]}{'' if moved else ' WRONG WAY'}"
            )
    good, seconds = found[GOOD.name]
    report(
        {
            "size": size,
            "projections": count,
            **answers,
            **({"values": values, "left_out": good.left_out} if options.json else {}),
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
            "seconds_each": {name: round(value, 4) for name, value in good.seconds.items()},
            **({} if options.json else {f"good: {k}": v for k, v in values[GOOD.name].items()}),
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
