"""All quality numbers of a scan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_slices, check_stack
from apsber_bluesky.analysis._centre_residual import centre_residual
from apsber_bluesky.analysis._flat_stability import flat_stability
from apsber_bluesky.analysis._frame_counts import missing_frames
from apsber_bluesky.analysis._limits import NotApplicable, check_limits
from apsber_bluesky.analysis._motion import drift, motion, sample_motion
from apsber_bluesky.analysis._pixels import PixelSums, dead_pixels
from apsber_bluesky.analysis._populations import find_populations
from apsber_bluesky.analysis._reprojection import Project, reprojection_residual
from apsber_bluesky.analysis._resolution import resolution
from apsber_bluesky.analysis._ring_score import ring_score
from apsber_bluesky.analysis._segmentation import (
    SegmentedSlices,
    class_contrast,
    segmentation_confidence,
)
from apsber_bluesky.analysis._shell_correlation import resolution_3d
from apsber_bluesky.analysis._signal_to_noise import contrast_to_noise, signal_to_noise
from apsber_bluesky.core import FrameBooks, InputError, Limits, QualityMetric

ReconstructHalf = Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[np.float32]]
"""Turns line integrals ``(n, k, columns)`` at some angles [deg] into slices ``(k, size, size)``."""

_FEW_SLICES = 4


@dataclass(slots=True)
class Assessment:
    """Quality numbers, and those that there are none of.

    Attributes
    ----------
    metrics : list of QualityMetric
        The numbers.
    left_out : dict of str to str
        Names of numbers that do not apply, and why.
    seconds : dict of str to float
        How long each took [s].
    """

    metrics: list[QualityMetric] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, measure: Callable[[], QualityMetric]) -> None:
        """Measure a number, or note why it does not apply."""
        started = time.perf_counter()
        try:
            self.metrics.append(measure())
        except NotApplicable as reason:
            self.left_out[name] = str(reason)
        self.seconds[name] = time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class DetectorFrames:
    """What was gathered from the frames of a scan while they came.

    Attributes
    ----------
    sums : PixelSums
        Of flats and projections.
    flats : sequence of ndarray
        `block_means` of the flats of each time they were taken at [counts].
    dark : ndarray or None
        Block means of the mean dark [counts].
    dead : ndarray of bool, shape (rows, columns), or None
        Pixels that do not answer to light; None if nobody knows.
    """

    sums: PixelSums
    flats: Sequence[NDArray[Any]]
    dark: NDArray[Any] | None
    dead: NDArray[np.bool_] | None


def assess_scan(
    *,
    slices: ArrayLike,
    sinograms: NDArray[Any],
    angles_deg: ArrayLike,
    centre: float,
    books: FrameBooks,
    reconstruct_half: ReconstructHalf,
    project: Project | None = None,
    frames: DetectorFrames | None = None,
    segmented: SegmentedSlices | None = None,
    pixel_size_um: float | None = None,
    limits: Mapping[str, Limits] | None = None,
) -> Assessment:
    """Measure everything there is to say about a scan.

    Parameters
    ----------
    slices : array_like
        Some central slices of the volume, shape ``(k, size, size)`` [1/pixel].
    sinograms : ndarray
        Line integrals of the central rows in the order they were taken, shape ``(n, k, columns)``.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis that was used [pixel].
    books : FrameBooks
        The books of the run.
    reconstruct_half : callable
        Reconstructs ``(projections, angles_deg)`` about the same centre with the same engine.
    project : callable, optional
        Projects ``(slices, angles_deg)`` about the same centre.
    frames : DetectorFrames, optional
        What was gathered from the detector's frames.
    segmented : SegmentedSlices, optional
        What a segmentation made of `slices`.
    pixel_size_um : float, optional
        Pixel size at the sample [um].
    limits : mapping of str to Limits, optional
        Limits by name of the quality number (``AnalysisSettings.limits``); those not named keep
        their `DEFAULT_LIMITS`.

    Returns
    -------
    Assessment
        The numbers that apply, and why the others do not.

    Raises
    ------
    InputError
        If shapes do not fit, a value is NaN, or limits name an unknown quality number.
    """
    check_limits(limits)
    check_stack(sinograms, "sinograms")
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.shape != (len(sinograms),):
        raise InputError(f"{len(sinograms)} projections, but angles of shape {angles.shape}")
    if len(angles) < 2:
        raise InputError("1 projection cannot be divided into half scans; give at least 2")
    done, stack = Assessment(), check_slices(slices)
    _measure_slices(
        done, stack, _halves(sinograms, angles, reconstruct_half), pixel_size_um, limits
    )
    _measure_sinograms(done, sinograms, angles, centre, limits)
    if project is not None:
        again = project
        done.add(
            "reprojection_residual",
            measure=lambda: reprojection_residual(
                stack, sinograms, angles, centre, again, limits=limits
            ),
        )
    done.add("missing_frames", measure=lambda: missing_frames(books, limits=limits))
    if frames is not None:
        _measure_frames(done, frames, limits)
    if segmented is not None:
        _measure_segmentation(done, stack, segmented, limits)
    return done


def _halves(
    sinograms: NDArray[Any], angles: NDArray[np.float64], reconstruct_half: ReconstructHalf
) -> list[NDArray[np.float32]]:
    # Neighbours in angle go to different halves, whatever the order they were taken in.
    order = np.argsort(angles, kind="stable")
    return [
        reconstruct_half(np.asarray(sinograms[chosen], dtype=np.float32), angles[chosen])
        for chosen in (order[0::2], order[1::2])
    ]


def _measure_slices(
    done: Assessment,
    stack: NDArray[Any],
    halves: list[NDArray[np.float32]],
    pixel_size_um: float | None,
    limits: Mapping[str, Limits] | None,
) -> None:
    # A few slices tell the noise as well as all of them.
    few = np.unique(np.linspace(0, len(stack) - 1, _FEW_SLICES).round().astype(int))
    some, first, second = stack[few], halves[0][few], halves[1][few]
    found = find_populations(some.astype(np.float64))
    done.add(
        "signal_to_noise",
        measure=lambda: signal_to_noise(some, first, second, populations=found, limits=limits),
    )
    done.add(
        "contrast_to_noise",
        measure=lambda: contrast_to_noise(some, populations=found, limits=limits),
    )
    done.add(
        "resolution",
        measure=lambda: resolution(*halves, pixel_size_um=pixel_size_um, limits=limits),
    )
    done.add(
        "resolution_3d",
        measure=lambda: resolution_3d(*halves, pixel_size_um=pixel_size_um, limits=limits),
    )


def _measure_sinograms(
    done: Assessment,
    sinograms: NDArray[Any],
    angles: NDArray[np.float64],
    centre: float,
    limits: Mapping[str, Limits] | None,
) -> None:
    done.add("ring_score", measure=lambda: ring_score(sinograms, angles, centre, limits=limits))
    done.add(
        "centre_residual",
        measure=lambda: centre_residual(sinograms, angles, centre, limits=limits),
    )
    _measure_motion(done, sinograms, angles, centre, limits)


def _measure_motion(
    done: Assessment,
    sinograms: NDArray[Any],
    angles: NDArray[np.float64],
    centre: float,
    limits: Mapping[str, Limits] | None,
) -> None:
    def both() -> QualityMetric:
        moved = sample_motion(sinograms, angles, centre)
        done.add("drift", measure=lambda: drift(moved, limits=limits))
        return motion(moved, limits=limits)

    done.add("motion", measure=both)
    if "motion" in done.left_out:
        done.left_out["drift"] = done.left_out["motion"]


def _measure_frames(
    done: Assessment, frames: DetectorFrames, limits: Mapping[str, Limits] | None
) -> None:
    done.add("saturated_pixels", measure=lambda: frames.sums.saturation(limits=limits))
    if frames.dead is not None:
        dead = frames.dead
        done.add("dead_pixels", measure=lambda: dead_pixels(dead, limits=limits))
    done.add(
        "flat_stability",
        measure=lambda: flat_stability(frames.flats, frames.dark, limits=limits),
    )


def _measure_segmentation(
    done: Assessment,
    stack: NDArray[Any],
    segmented: SegmentedSlices,
    limits: Mapping[str, Limits] | None,
) -> None:
    done.add("class_contrast", measure=lambda: class_contrast(stack, segmented, limits=limits))
    done.add(
        "segmentation_confidence",
        measure=lambda: segmentation_confidence(segmented, limits=limits),
    )
