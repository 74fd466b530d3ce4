"""The column of the rotation axis, from the agreement of projections with each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._weights import check_angles
from apsber_bluesky.processing.centre._opposites import opposite_matches

_LEAST_RANGE_DEG = 170.0
_LEAST_ANGLES, _MOST_ANGLES = 12, 720
_LEAST_COLUMNS = 16
# Columns averaged at each edge: outside the frame the object is continued by their mean.
_EDGE = 8
# The slowest waves of a row carry drifts of the beam, not the object's position.
_SLOWEST, _FASTEST = 3.0, 0.4
# Harmonics beyond the wedge's edge, where an object still has some, and the part of the
# directions that the fit may use up.
_HARMONICS_BEYOND, _MOST_EXPLAINED = 6, 0.8
_BISECTIONS = 40
# Pure noise reaches 0.2 to 0.6; from 5 on the best centre is the true one.
_LEAST_STRENGTH = 5.0
# Centres that leave up to this many times the least inconsistency are looked at twice.
_RIVAL = 4.0
_CLEAR_MATCH = 0.2
_NEAR_PX = 3.0
# Opposites one angular step apart are displaced by about this.
_OPPOSITE_PX = 1.0


@dataclass(frozen=True, slots=True)
class CentreEstimate:
    """Where the rotation axis lies.

    Attributes
    ----------
    centre_px : float
        Column of the rotation axis [pixel].
    method : str
        How it was found.
    uncertainty_px : float
        One standard deviation as the residual inconsistency of the projections suggests [pixel].
    """

    centre_px: float
    method: str
    uncertainty_px: float


def find_centre(sinogram_rows: ArrayLike, angles_deg: ArrayLike) -> CentreEstimate:
    """Find the rotation axis.

    The projections at an angle and half a turn later are mirror images about the axis. Mirroring
    a scan of half a turn therefore continues it to a full turn, and this continuation is smooth
    only about the true axis: at the spatial frequency ``f`` an object of radius ``R`` has no
    angular harmonics beyond ``2 pi f R`` (the double wedge of Vo et al., Optics Express 22
    (2014) 19078). Here the energy outside the wedge is not computed for trial centres from
    interpolated sinograms: for each frequency the projections are fitted by the permitted
    harmonics at the very angles they were taken, in the least-squares sense, and the residual is
    a cosine of the centre in closed form. No opposite projection has to exist, angles may be
    uneven, and a scan of a full turn uses all of its opposite pairs. Where several centres compete
    because the object leaves the field of view, nearly opposite projections are compared
    directly, which is good to about a pixel.

    Parameters
    ----------
    sinogram_rows : array_like
        Line integrals of some detector rows, shape ``(n, rows, columns)`` or ``(n, columns)``.
    angles_deg : array_like
        Angle of each projection, shape ``(n,)``, spanning at least 170 degrees [deg].

    Returns
    -------
    CentreEstimate
        The axis and how far to trust it.

    Raises
    ------
    InputError
        If shapes do not fit, a value is NaN or infinite, the projections show nothing but noise,
        or their angles do not determine an axis.
    """
    sinogram, angles = _check(sinogram_rows, angles_deg)
    sinogram, angles = _merge_angles(sinogram, angles)
    frequencies, reach = _wedge(sinogram.shape[2], angles)
    spectra = _spectra(sinogram, frequencies)
    agreement = _Agreement.of(spectra, frequencies, np.deg2rad(angles), reach)
    start, alone = agreement.best(sinogram.shape[2])
    rival = None if alone else _clear_rival(sinogram, angles, start)
    if rival is not None:
        return CentreEstimate(rival, "opposite projections", _OPPOSITE_PX)
    centre = agreement.refined(start)
    strength = agreement.strength(centre)
    if strength < _LEAST_STRENGTH:
        raise InputError(
            f"the projections agree on no rotation centre above their noise (strength "
            f"{strength:.2g}, {_LEAST_STRENGTH:g} is needed); use more rows or give it by hand"
        )
    return CentreEstimate(centre, "angular consistency", agreement.uncertainty(centre))


def _clear_rival(
    sinogram: NDArray[np.float32], angles: NDArray[np.float64], centre: float
) -> float | None:
    """Find a centre far off about which opposite projections match clearly better.

    Where the object leaves the field of view, a wrong centre can be more consistent than the
    true one, but it does not stand this test.
    """
    centres, matches = opposite_matches(sinogram, angles)
    near = np.abs(centres - centre) <= _NEAR_PX
    own = float(matches[near].max()) if near.any() else 0.0
    best = int(np.argmax(matches))
    scatter = 1 / math.sqrt(sinogram.shape[1] * sinogram.shape[2])
    clear = matches[best] - own > max(_CLEAR_MATCH, 10 * scatter)
    return float(centres[best]) if clear else None


def _check(
    sinogram_rows: ArrayLike, angles_deg: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    sinogram = np.asarray(sinogram_rows, dtype=np.float32)
    angles = check_angles(angles_deg)
    if sinogram.ndim == 2:
        sinogram = sinogram[:, None, :]
    if sinogram.ndim != 3 or 0 in sinogram.shape or sinogram.shape[2] < _LEAST_COLUMNS:
        raise InputError(
            f"sinogram rows have shape {sinogram.shape}; give (n, rows, columns) with at least "
            f"{_LEAST_COLUMNS} columns"
        )
    if len(angles) != len(sinogram):
        raise InputError(f"{len(sinogram)} projections, but {len(angles)} angles")
    wrong = np.flatnonzero(~np.isfinite(sinogram).all(axis=(1, 2)))
    if len(wrong):
        raise InputError(f"projection {wrong[0]} holds NaN or infinite line integrals")
    span = float(np.ptp(angles)) if len(angles) > 1 else 0.0
    reached = span * len(angles) / max(len(angles) - 1, 1)
    if len(angles) < _LEAST_ANGLES or reached < _LEAST_RANGE_DEG:
        raise InputError(
            f"{len(angles)} projections over {reached:.4g} degrees do not determine the rotation "
            f"centre ({_LEAST_ANGLES} over {_LEAST_RANGE_DEG:g} are needed); give it by hand"
        )
    if float(np.ptp(sinogram)) == 0:
        raise InputError("the projections are empty, so they show no rotation centre")
    return sinogram, angles


def _merge_angles(
    sinogram: NDArray[np.float32], angles: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Sort by angle, and average neighbours where there are more angles than the fit needs."""
    order = np.argsort(angles, kind="stable")
    sinogram, angles = sinogram[order], angles[order]
    if len(angles) <= _MOST_ANGLES:
        return sinogram, angles
    starts = np.arange(0, len(angles), math.ceil(len(angles) / _MOST_ANGLES))
    counts = np.diff(starts, append=len(angles))
    merged = np.add.reduceat(sinogram, starts, axis=0) / counts[:, None, None]
    return merged.astype(np.float32), np.add.reduceat(angles, starts) / counts


def _wedge(
    columns: int, angles: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies [cycles/pixel] that leave some harmonics free, and the last degree of each."""
    directions = len(np.unique(np.round(np.mod(angles, 180), 3)))
    beyond = min(_HARMONICS_BEYOND, directions // 8)
    few = directions < 4 * _HARMONICS_BEYOND
    waves = np.arange(2 if few else round(2 * _SLOWEST), round(2 * _FASTEST * columns))
    reach = np.pi * waves / 2 + beyond
    free = reach + 1 <= _MOST_EXPLAINED * directions
    # Fewer than three consecutive waves cannot tell a centre from one a period away.
    if np.count_nonzero(free) < 3:
        raise InputError(
            f"{len(angles)} projections show the object from only {directions} directions, too "
            "few to find the rotation centre; give the centre by hand"
        )
    return waves[free] / (2 * columns), reach[free]


def _spectra(
    sinogram: NDArray[np.float32], frequencies: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Fourier transform of the rows, shape ``(n, rows, frequencies)``.

    It is taken of the slope and divided by that of a step: a projection whose brightness drifted
    as a whole then stays as it is, and does not get edges where the frame ends.
    """
    columns = sinogram.shape[2]
    calm = sinogram.astype(np.float64)
    edge = min(_EDGE, columns // 16)
    calm[..., :edge] = calm[..., :edge].mean(axis=-1, keepdims=True)
    calm[..., -edge:] = calm[..., -edge:].mean(axis=-1, keepdims=True)
    slope = np.diff(calm, axis=-1)
    waves = scipy.fft.rfft(slope, n=2 * columns, axis=-1)
    used: NDArray[np.complex128] = waves[..., np.rint(frequencies * 2 * columns).astype(int)]
    # The slope between columns k and k + 1 lies at k + 1/2.
    step = np.exp(-1j * np.pi * frequencies) / (2j * np.sin(np.pi * frequencies))
    return np.ascontiguousarray(used * step)


@dataclass(frozen=True, slots=True)
class _Agreement:
    """Inconsistency of the projections as a function of the centre ``c``.

    It is ``constant - Re sum(coefficients * exp(4 pi i frequencies c)) / 2``.
    """

    frequencies: NDArray[np.float64]
    coefficients: NDArray[np.complex128]
    constant: float
    freedom: float
    terms: float

    @classmethod
    def of(
        cls,
        spectra: NDArray[np.complex128],
        frequencies: NDArray[np.float64],
        theta: NDArray[np.float64],
        reach: NDArray[np.float64],
    ) -> _Agreement:
        """Fit the harmonics up to degree `reach` at each frequency.

        With the phase of the true centre, half a turn changes the sign of the imaginary part
        alone. So the real part holds even harmonics and the imaginary part odd ones.
        """
        power = float(np.sum(np.abs(spectra) ** 2))
        coefficients = np.zeros(len(frequencies), dtype=np.complex128)
        terms = 0.0
        for parity, sign in ((0, 1), (1, -1)):
            basis, degree = _harmonics(theta, parity, float(reach[-1]))
            permitted = np.searchsorted(degree, reach, side="right")
            parts = np.tensordot(basis.T, spectra.view(np.float64), axes=1).view(np.complex128)
            place = (permitted - 1, np.arange(len(frequencies)))
            coefficients += sign * np.cumsum(np.sum(parts**2, axis=1), axis=0)[place]
            explained = np.cumsum(np.sum(np.abs(parts) ** 2, axis=1), axis=0)[place]
            power -= float(explained.sum()) / 2
            terms += float(permitted.sum()) * spectra.shape[1]
        # Rows are padded to twice their length, so every other frequency is redundant.
        freedom = (2.0 * spectra.size - terms) / 2
        return cls(frequencies, coefficients, power, freedom, terms)

    def best(self, columns: int) -> tuple[float, bool]:
        """The most consistent centre to a quarter pixel, and whether no other comes near."""
        trials = np.arange(4 * columns - 3) / 4
        scores = np.array([self._score(trial) for trial in trials])
        edged = np.concatenate([[-np.inf], scores, [-np.inf]])
        peaks = np.flatnonzero((scores >= edged[:-2]) & (scores > edged[2:]))
        peaks = peaks[np.argsort(-scores[peaks], kind="stable")]
        left = self.constant - scores[peaks] / 2
        alone = bool((left[1:] > _RIVAL * max(left[0], 0)).all())
        return float(trials[peaks[0]]), alone

    def refined(self, start: float) -> float:
        """The most consistent centre within a quarter pixel."""
        low, high = start - 0.25, start + 0.25
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._score(middle, 1) > 0 else (low, middle)
        return float(max((low + high) / 2, 0.0))

    def uncertainty(self, centre: float) -> float:
        """Standard deviation of the centre, from what the best fit leaves over [pixel]."""
        curvature = -self._score(centre, 2) / 2
        return math.sqrt(2 * self._noise_power(centre) / curvature) if curvature > 0 else math.inf

    def strength(self, centre: float) -> float:
        """Agreement at the best centre in units of what noise alone scatters."""
        noise = self._noise_power(centre) * math.sqrt(2 * self.terms)
        return self._score(centre) / noise if noise > 0 else math.inf

    def _noise_power(self, centre: float) -> float:
        return max(self.constant - self._score(centre) / 2, 0.0) / self.freedom

    def _score(self, centre: float, derivative: int = 0) -> float:
        phase = 4j * np.pi * self.frequencies
        return float(np.sum(self.coefficients * phase**derivative * np.exp(phase * centre)).real)


def _harmonics(
    theta: NDArray[np.float64], parity: int, reach: float
) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Orthonormal harmonics of one parity at some angles, slowest first, and their degrees."""
    degrees = np.arange(parity, max(reach, parity) + 1, 2)
    waves = np.empty((len(theta), 2 * len(degrees)))
    waves[:, 0::2] = np.cos(theta[:, None] * degrees)
    waves[:, 1::2] = np.sin(theta[:, None] * degrees)
    degree = np.repeat(degrees, 2)
    keep = slice(1, None) if parity == 0 else slice(None)
    if parity == 0:
        waves[:, 1] = 1.0
    waves, degree = waves[:, keep], degree[keep]
    waves, degree = waves[:, : len(theta)], degree[: len(theta)]
    basis = scipy.linalg.qr(waves, mode="economic", check_finite=False)[0]
    return basis, degree
