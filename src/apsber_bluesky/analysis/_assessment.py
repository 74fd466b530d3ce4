"""All quality numbers of a scan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_stack
from apsber_bluesky.analysis._centre_residual import centre_residual
from apsber_bluesky.analysis._frame_counts import missing_frames
from apsber_bluesky.analysis._limits import check_limits
from apsber_bluesky.analysis._resolution import resolution
from apsber_bluesky.analysis._signal_to_noise import signal_to_noise
from apsber_bluesky.core import FrameBooks, InputError, Limits, QualityMetric

ReconstructHalf = Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[np.float32]]
"""Turns line integrals ``(n, k, columns)`` at some angles [deg] into slices ``(k, size, size)``."""


def assess_scan(
    *,
    slices: ArrayLike,
    sinograms: NDArray[Any],
    angles_deg: ArrayLike,
    centre: float,
    books: FrameBooks,
    reconstruct_half: ReconstructHalf,
    pixel_size_um: float | None = None,
    limits: Mapping[str, Limits] | None = None,
) -> list[QualityMetric]:
    """Measure everything there is to say about a scan.

    Parameters
    ----------
    slices : array_like
        Some central slices of the volume, shape ``(k, size, size)``.
    sinograms : ndarray
        Line integrals of the central rows, shape ``(n, k, columns)``.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis that was used [pixel].
    books : FrameBooks
        The books of the run.
    reconstruct_half : callable
        Reconstructs ``(projections, angles_deg)`` about the same centre with the same engine.
    pixel_size_um : float, optional
        Pixel size at the sample [um].
    limits : mapping of str to Limits, optional
        Limits by name of the quality number (``AnalysisSettings.limits``); those not named keep
        their `DEFAULT_LIMITS`.

    Returns
    -------
    list of QualityMetric
        ``signal_to_noise``, ``centre_residual``, ``resolution`` and ``missing_frames``.

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
    # Neighbours in angle go to different halves, whatever the order they were taken in.
    order = np.argsort(angles, kind="stable")
    halves = [
        reconstruct_half(np.asarray(sinograms[chosen], dtype=np.float32), angles[chosen])
        for chosen in (order[0::2], order[1::2])
    ]
    return [
        signal_to_noise(slices, limits=limits),
        centre_residual(sinograms, angles, centre, limits=limits),
        resolution(halves[0], halves[1], pixel_size_um=pixel_size_um, limits=limits),
        missing_frames(books, limits=limits),
    ]
