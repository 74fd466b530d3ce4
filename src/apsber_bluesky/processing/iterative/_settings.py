"""What a user can ask of an iterative reconstruction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from apsber_bluesky.core import InputError

ITERATIVE_METHODS = ("cgls", "sirt", "tv")
"""Names of the iterative methods."""

_LEAST_WEIGHT = 1e-12
_ITERATIONS = {"cgls": 20, "sirt": 100, "tv": 100}


@dataclass(frozen=True, slots=True)
class IterativeSettings:
    """How to reconstruct iteratively.

    Attributes
    ----------
    method : {"cgls", "sirt", "tv"}
        Conjugate gradients on the normal equations, which need the fewest iterations; the
        simultaneous iterative reconstruction technique, which is slow and forgiving; or least
        squares with a penalty on the total variation, for objects of a few even materials.
    iterations : int or None
        How many at most; None means 20 for CGLS and 100 for the others. Of noisy data, fewer
        iterations of CGLS and SIRT make a smoother volume.
    non_negative : bool or None
        Whether attenuation below 0 is forbidden; None means it is but for CGLS.
    regularisation : float
        Weight of the total variation. What is made smallest is half the mean square of the
        residual (of line integrals, so without a unit) plus this times the sum of the lengths of
        the gradient in a slice [1/pixel per pixel]. Both keep their values when the same object
        is seen by a finer detector, so the weight does not depend on the size of an image. A good
        first try is 1/2000 of the noise of the line integrals.
    relaxation : float
        Step of SIRT, between 0 and 2.
    noise : float or None
        Slices stop when the root mean square of their residual has come down to this: the noise
        of the line integrals (discrepancy principle).
    tolerance : float or None
        Slices stop when an iteration changes them by less than this part of their norm.

    Raises
    ------
    InputError
        If a value makes no sense.
    """

    method: str = "sirt"
    iterations: int | None = None
    non_negative: bool | None = None
    regularisation: float = 1e-5
    relaxation: float = 1.0
    noise: float | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.method not in ITERATIVE_METHODS:
            raise InputError(
                f"no iterative method {self.method!r}; choose one of {', '.join(ITERATIVE_METHODS)}"
            )
        if self.iterations is not None and self.iterations < 1:
            raise InputError(f"{self.iterations} iterations do nothing; give at least 1")
        if not 0 < self.relaxation < 2:
            raise InputError(f"relaxation is {self.relaxation}; give a number between 0 and 2")
        # Less could not be told from 0 in single precision.
        if not (self.regularisation >= _LEAST_WEIGHT and math.isfinite(self.regularisation)):
            raise InputError(
                f"regularisation is {self.regularisation}; give at least {_LEAST_WEIGHT}"
            )
        for name in ("noise", "tolerance"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}; give a positive number")

    @property
    def parameters(self) -> dict[str, float | bool | None]:
        """What was asked of the method, with what it takes by itself; None for no limit."""
        own: dict[str, float | bool | None] = {
            "iterations": self.most_iterations,
            "non_negative": self.forbids_negative,
            "noise": self.noise,
            "tolerance": self.tolerance,
        }
        if self.method == "tv":
            own["regularisation"] = self.regularisation
        if self.method == "sirt":
            own["relaxation"] = self.relaxation
        return own

    @property
    def most_iterations(self) -> int:
        """How many iterations at most."""
        return self.iterations or _ITERATIONS[self.method]

    @property
    def forbids_negative(self) -> bool:
        """Whether attenuation below 0 is forbidden."""
        return self.method != "cgls" if self.non_negative is None else self.non_negative
