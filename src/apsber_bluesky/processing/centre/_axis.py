"""The rotation axis, column and lean, from two opposite projections."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from apsber_bluesky.core import AxisEstimate, InputError

# Columns that the search and the fit work on at most; wider projections are binned.
_COARSE, _WIDEST = 96, 384
# Leans that the search begins with; each reaches a degree or two to either side [deg].
_LEANS_DEG = (-4.0, -2.0, 0.0, 2.0, 4.0)
_STEPS = 30
_DIFFERENCE_PX = 0.1
_LEAST_OVERLAP = 0.2
_LEAST_MATCH = 0.7
_COARSE_BLUR_PX, _BLUR_PX = 2.0, 1.0


def find_axis(first: NDArray[np.float32], opposite: NDArray[np.float32]) -> AxisEstimate:
    """Find the line about which two opposite projections are mirror images.

    With parallel rays a projection from the other side is the mirror image about the rotation
    axis, which has a place and a lean in the picture. Both are fitted by least squares within what
    the two have in common, from coarse to fine.

    Parameters
    ----------
    first, opposite : ndarray of float32
        Line integrals half a turn apart, shape ``(rows, columns)``.

    Returns
    -------
    AxisEstimate
        The axis.

    Raises
    ------
    InputError
        If shapes do not fit, or the two do not match about any axis.
    """
    if first.shape != opposite.shape or first.ndim != 2 or min(first.shape) < 4:
        raise InputError(
            f"opposite projections have shapes {first.shape} and {opposite.shape}; give two of the"
            " same, 4 x 4 pixels or more"
        )
    spread = float(np.std(first))
    if not math.isfinite(spread) or spread == 0 or np.std(opposite) == 0:
        raise InputError("a projection shows nothing; is the sample in the beam?")
    coarse = _Mirror(first / spread, opposite / spread, _COARSE, _COARSE_BLUR_PX)
    guess = coarse.upright()
    tried = [coarse.fit(guess, math.radians(lean)) for lean in _LEANS_DEG]
    best = min(tried, key=lambda found: float(found.fun @ found.fun))
    fine = _Mirror(first / spread, opposite / spread, _WIDEST, _BLUR_PX)
    column, roll = coarse.place(best.x)
    found = fine.fit(column, roll)
    match = fine.match(found.x)
    if match < _LEAST_MATCH:
        raise InputError(
            f"the two projections match about no axis (correlation {match:.2f}); are they half a"
            " turn apart, with the sample in the beam and the axis in the picture?"
        )
    column, roll = fine.place(found.x)
    errors = _errors(found.jac, found.fun)
    return AxisEstimate(
        column_px=column,
        roll_deg=math.degrees(roll),
        column_error_px=float(errors[0]) * fine.factor,
        roll_error_deg=math.degrees(float(errors[1]) / fine.arm),
        match=match,
    )


def _binned(image: NDArray[np.float32], factor: int) -> NDArray[np.float64]:
    rows, columns = (max(length // factor * factor, factor) for length in image.shape)
    if image.shape[0] < factor:
        raise InputError(
            f"projections of {image.shape[0]} rows and {image.shape[1]} columns are too flat to"
            " see an axis lean; read out more rows"
        )
    parts = image[:rows, :columns].reshape(rows // factor, factor, columns // factor, factor)
    binned: NDArray[np.float64] = parts.mean(axis=(1, 3), dtype=np.float64)
    return binned


class _Mirror:
    """One projection against the mirror image of the other, binned and blurred.

    The fitted numbers are both in pixels: the column, and how far the lean moves the axis at the
    end of an arm of half the picture.
    """

    def __init__(
        self, one: NDArray[np.float32], other: NDArray[np.float32], widest: int, blur: float
    ) -> None:
        self.factor: int = max(1, math.ceil(one.shape[1] / widest))
        self._one = ndimage.gaussian_filter(_binned(one, self.factor), blur)
        self._other = ndimage.gaussian_filter(_binned(other, self.factor), blur)
        self._inside = np.ones_like(self._one)
        self.arm = max(self._one.shape) / 2

    def place(self, numbers: NDArray[np.float64]) -> tuple[float, float]:
        """Column [pixel of the detector] and lean [rad] from the fitted numbers."""
        return (float(numbers[0]) + 0.5) * self.factor - 0.5, float(numbers[1]) / self.arm

    def fit(self, column: float, roll: float) -> Any:
        """Least squares from a column [pixel of the detector] and a lean [rad] on."""
        start = [(column + 0.5) / self.factor - 0.5, roll * self.arm]
        return optimize.least_squares(
            self._residuals, start, jac=self._jacobian, method="lm", max_nfev=_STEPS
        )

    def upright(self) -> float:
        """Column of the upright axis about which the two correlate best [pixel of the detector]."""
        columns = self._one.shape[1]
        # Slopes of the profiles: their level says nothing about where the axis is.
        a = np.gradient(self._one.mean(axis=0))
        b = -np.gradient(self._other.mean(axis=0))
        sums = np.arange(math.ceil(_LEAST_OVERLAP * columns), 2 * columns - 1)
        sums = sums[: len(sums) - math.ceil(_LEAST_OVERLAP * columns)]
        scores = []
        for total in sums:
            low, high = max(0, total - columns + 1), min(columns - 1, total)
            x, y = a[low : high + 1], b[total - high : total - low + 1][::-1]
            size = math.sqrt(float(x @ x) * float(y @ y))
            overlap = (high - low + 1) / columns
            scores.append(float(x @ y) / size * math.sqrt(overlap) if size > 0 else 0.0)
        best = int(sums[int(np.argmax(scores))])
        return (best / 2 + 0.5) * self.factor - 0.5

    def _image(
        self, numbers: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mirror image, and where there is one."""
        roll = float(numbers[1]) / self.arm
        pivot = np.array([(self._one.shape[0] - 1) / 2, float(numbers[0])])
        cosine, sine = math.cos(2 * roll), math.sin(2 * roll)
        mirror = np.array([[cosine, sine], [sine, -cosine]])
        offset = pivot - mirror @ pivot
        image = ndimage.affine_transform(self._other, mirror, offset, order=3, mode="nearest")
        inside = ndimage.affine_transform(self._inside, mirror, offset, order=1, cval=0.0)
        return image, inside

    def _residuals(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is left, each pixel weighed so that a smaller overlap is no better fit."""
        image, inside = self._image(numbers)
        total = max(float(inside.sum()), 1.0)
        left: NDArray[np.float64] = ((self._one - image) * inside).ravel()
        return left * math.sqrt(inside.size / total)

    def _jacobian(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Differences over a tenth of a pixel: smoother than the splines are over less."""
        sides = []
        for axis in np.eye(2) * _DIFFERENCE_PX:
            change = self._residuals(numbers + axis) - self._residuals(numbers - axis)
            sides.append(change / (2 * _DIFFERENCE_PX))
        return np.stack(sides, axis=1)

    def match(self, numbers: NDArray[np.float64]) -> float:
        """Correlation within the overlap; 0 if that is too small."""
        image, inside = self._image(numbers)
        both = inside > 0.5
        if both.mean() < _LEAST_OVERLAP:
            return 0.0
        return float(np.corrcoef(self._one[both], image[both])[0, 1])


def _errors(jacobian: NDArray[np.float64], left: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard errors of the fitted numbers."""
    freedom = max(len(left) - jacobian.shape[1], 1)
    covariance = np.linalg.pinv(jacobian.T @ jacobian) * float(left @ left) / freedom
    errors: NDArray[np.float64] = np.sqrt(np.diag(covariance))
    return errors
