"""How the sample moved across the beam while it was scanned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_stack
from apsber_bluesky.analysis._limits import NotApplicable, metric
from apsber_bluesky.analysis._shifts import mirrored, shift, slope_spectra
from apsber_bluesky.core import InputError, Limits, QualityMetric

OPPOSITES = "opposite projections"
CENTRE_OF_MASS = "centre of mass"

_SOURCES = {
    OPPOSITES: (
        "shift between projections and their mirrored opposites by cross-correlation, followed "
        "through the scan"
    ),
    CENTRE_OF_MASS: (
        "centre of mass of the projections, which a still sample moves along a sine of the angle: "
        "D. Ludwig, Commun. Pure Appl. Math. 19 (1966) 49, and S. Helgason, Acta Math. 113 (1965) "
        "153"
    ),
}
_LEAST_PROJECTIONS = 16
_MOST_PAIRS = 48
_LEAST_PAIRS = 8
_LEAST_COLUMNS = 16
_MARGIN = 0.04
# Light that a still sample takes away is the same from all sides.
_MASS_SPREAD = 0.05
_MOST_UNCERTAINTY_PX = 1.0


@dataclass(frozen=True, slots=True)
class SampleMotion:
    """How the sample moved along the rows of the detector.

    Attributes
    ----------
    drift_px : float
        How far it went steadily, from the first projection to the last, towards higher columns
        [pixel].
    uncertainty_px : float
        Standard uncertainty of that [pixel].
    jitter_px : float
        Root mean square of how it moved besides, without noise [pixel].
    method : str
        `OPPOSITES` or `CENTRE_OF_MASS`.
    """

    drift_px: float
    uncertainty_px: float
    jitter_px: float
    method: str


def sample_motion(sinograms: ArrayLike, angles_deg: ArrayLike, centre: float) -> SampleMotion:
    """Follow the sample through a scan.

    Where there are enough exact opposites, as in a full turn, each projection is compared with its
    mirrored opposite; the sum of their displacements changes while the sample drifts. Elsewhere
    the centre of mass of the projections is fitted by a sine of the angle and a straight line in
    time. Half of the rows are measured on their own: what both halves show is motion, what they
    differ by is noise.

    Parameters
    ----------
    sinograms : array_like
        Line integrals of some rows in the order they were taken, shape ``(n, k, columns)``.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)`` [deg].
    centre : float
        Column of the rotation axis that was used [pixel].

    Returns
    -------
    SampleMotion
        The motion, and how it was measured.

    Raises
    ------
    NotApplicable
        If there are fewer than 16 projections, or the sample reaches out of the view.
    InputError
        If shapes do not fit or a value is not finite.
    """
    stack = check_stack(sinograms, "sinograms")
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.shape != (len(stack),):
        raise InputError(f"{len(stack)} projections, but angles of shape {angles.shape}")
    if len(stack) < _LEAST_PROJECTIONS or stack.shape[2] < _LEAST_COLUMNS:
        raise NotApplicable(f"projections of shape {stack.shape} are too few or too small")
    # One row is both of its halves: its noise then counts as motion.
    halves = [stack[:, 0::2], stack[:, 1::2] if stack.shape[1] > 1 else stack]
    pairs = _opposites(angles)
    if len(pairs) >= _LEAST_PAIRS:
        return _from_opposites(halves, pairs, centre)
    return _from_masses(halves, angles)


def drift(moved: SampleMotion, *, limits: Mapping[str, Limits] | None = None) -> QualityMetric:
    """How far the sample went steadily during the scan: ``drift`` [px].

    Raises
    ------
    NotApplicable
        If it is uncertain by more than a pixel: the range of angles is too short to tell it from
        the turning, or the sample jumped about.
    """
    said = f"{moved.drift_px:+.2f} +- {moved.uncertainty_px:.2f} px by the {moved.method}"
    if moved.uncertainty_px > _MOST_UNCERTAINTY_PX:
        raise NotApplicable(f"the drift is {said}, which is too uncertain")
    return metric(
        "drift",
        abs(moved.drift_px),
        unit="px",
        source=_SOURCES[moved.method],
        note=said,
        limits=limits,
    )


def motion(moved: SampleMotion, *, limits: Mapping[str, Limits] | None = None) -> QualityMetric:
    """How far the sample moved besides, root mean square: ``motion`` [px]."""
    return metric(
        "motion",
        moved.jitter_px,
        unit="px",
        source=_SOURCES[moved.method],
        note=f"by the {moved.method}",
        limits=limits,
    )


def _opposites(angles: NDArray[np.float64]) -> NDArray[np.int_]:
    """Pairs of projections half a turn apart, shape ``(m, 2)``, spread over the scan."""
    order = np.argsort(angles, kind="stable")
    near = np.searchsorted(angles[order], angles + 180 - 1e-6)
    near = np.minimum(near, len(angles) - 1)
    found = np.flatnonzero(np.abs(angles[order][near] - angles - 180) < 1e-3)
    pairs = np.stack([found, order[near[found]]], axis=1)
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(_MOST_PAIRS, len(pairs))).astype(int))
    return np.asarray(pairs[chosen])


def _from_opposites(
    halves: list[NDArray[np.float64]], pairs: NDArray[np.int_], centre: float
) -> SampleMotion:
    columns, last = halves[0].shape[2], len(halves[0]) - 1
    expected = 2 * centre - (columns - 1)
    sums = np.array([[_mirror_shift(half, pair, expected) for pair in pairs] for half in halves])
    if not np.isfinite(sums).all():
        raise NotApplicable("the projections are empty")
    # Displacements at the two times add up, so the sum changes with twice their mean.
    times = 2 * pairs.mean(axis=1) / last
    model = np.stack([np.ones(len(times)), times - times.mean()], axis=1)
    slope, uncertainty, rest = _fit(model, sums)
    return SampleMotion(slope, uncertainty, _common(rest) / np.sqrt(2), OPPOSITES)


def _mirror_shift(stack: NDArray[np.float64], pair: NDArray[np.int_], expected: float) -> float:
    spectra = slope_spectra(stack[pair].astype(np.float64))
    return shift(spectra[1], mirrored(spectra[0]), expected)


def _from_masses(halves: list[NDArray[np.float64]], angles: NDArray[np.float64]) -> SampleMotion:
    places = np.array([_centres_of_mass(half) for half in halves])
    theta = np.deg2rad(angles)
    times = np.linspace(-0.5, 0.5, len(angles))
    model = np.stack([np.ones(len(angles)), np.cos(theta), np.sin(theta), times], axis=1)
    slope, uncertainty, rest = _fit(model, places)
    return SampleMotion(slope, uncertainty, _common(rest), CENTRE_OF_MASS)


def _centres_of_mass(stack: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre of mass of each projection [pixel], against the air at its edges."""
    lines = stack.astype(np.float64).sum(axis=1)
    margin = max(2, round(_MARGIN * lines.shape[1]))
    edges = np.concatenate([lines[:, :margin], lines[:, -margin:]], axis=1)
    lines -= edges.mean(axis=1, keepdims=True)
    masses = lines.sum(axis=1)
    usual = float(np.median(masses))
    if usual <= 0 or float(np.std(masses)) > _MASS_SPREAD * usual:
        raise NotApplicable(
            "the projections do not all hold the same mass: the sample reaches out of the view,"
            " or the light changed"
        )
    return np.asarray(lines @ np.arange(lines.shape[1]) / masses)


def _fit(
    model: NDArray[np.float64], halves: NDArray[np.float64]
) -> tuple[float, float, NDArray[np.float64]]:
    """The last coefficient of a fit to both halves, its uncertainty, and what is left of each."""
    inverse = np.linalg.pinv(model)
    found = inverse @ halves.mean(axis=0)
    rest = halves - halves.mean(axis=1, keepdims=True)
    rest = rest - rest @ (model @ inverse).T
    free = max(len(model) - model.shape[1], 1)
    scatter = float(np.sum(rest.mean(axis=0) ** 2)) / free
    return float(found[-1]), float(np.sqrt(scatter) * np.linalg.norm(inverse[-1])), rest


def _common(rest: NDArray[np.float64]) -> float:
    """Root mean square of what both halves have in common."""
    return float(np.sqrt(max(float(np.mean(rest[0] * rest[1])), 0.0)))
