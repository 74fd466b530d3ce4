"""Whether the slices, projected again, give the projections that they were made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_slices, check_stack
from apsber_bluesky.analysis._limits import NotApplicable, metric
from apsber_bluesky.core import InputError, Limits, QualityMetric

Project = Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[np.float32]]
"""Line integrals ``(n, k, columns)`` of slices ``(k, size, size)`` at some angles [deg]."""

_SOURCE = (
    "root mean square of measured less reprojected line integrals over that of the measured ones, "
    "after D. Gursoy et al., Sci. Rep. 7 (2017) 11818"
)
_MOST_ANGLES = 128


def reprojection_residual(
    slices: ArrayLike,
    sinograms: NDArray[Any],
    angles_deg: NDArray[np.float64],
    centre: float,
    project: Project,
    *,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Part of the projections that the slices do not explain.

    At most 128 projections are compared, spread over the scan. A filter that smooths, noise, too
    few angles, a sample that moved or reaches out of the view, and a wrong rotation centre all
    leave something unexplained.

    Parameters
    ----------
    slices : array_like
        Slices, shape ``(k, size, size)`` [1/pixel].
    sinograms : ndarray
        Line integrals that they were made of, shape ``(n, k, columns)``.
    angles_deg : ndarray
        Angle of each projection, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis [pixel]; columns that have none opposite to them are left out.
    project : callable
        Projects slices about the same centre.
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``reprojection_residual`` [1].

    Raises
    ------
    NotApplicable
        If the projections are empty.
    InputError
        If shapes do not fit or a value is not finite.
    """
    stack, lines = check_slices(slices), check_stack(sinograms, "sinograms")
    if stack.shape[:2] != lines.shape[1:]:
        raise InputError(f"slices have shape {stack.shape}, their sinograms {lines.shape}")
    chosen = np.unique(np.linspace(0, len(lines) - 1, _MOST_ANGLES).round().astype(int))
    radius = min(centre, lines.shape[2] - 1 - centre)
    seen = np.abs(np.arange(lines.shape[2]) - centre) <= radius
    measured = lines[chosen][..., seen].astype(np.float64)
    power = float(np.mean(measured**2))
    if power == 0:
        raise NotApplicable("the projections are empty")
    again = project(stack.astype(np.float32), angles_deg[chosen])[..., seen]
    value = float(np.sqrt(np.mean((measured - again) ** 2) / power))
    note = f"{len(chosen)} projections of {len(stack)} slices"
    return metric(
        "reprojection_residual", value, unit="1", source=_SOURCE, note=note, limits=limits
    )
