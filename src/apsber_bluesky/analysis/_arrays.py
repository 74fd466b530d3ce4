"""Checks of the arrays that quality numbers are measured on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError


def check_stack(values: ArrayLike, what: str) -> NDArray[Any]:
    """Take a finite array of three dimensions, or refuse it."""
    stack = np.asarray(values)
    if stack.ndim != 3 or 0 in stack.shape:
        raise InputError(f"{what} have shape {stack.shape}; three dimensions are needed")
    if not np.isfinite(stack).all():
        raise InputError(f"{what} hold NaN or infinite values")
    return stack


def check_slices(values: ArrayLike, what: str = "slices") -> NDArray[Any]:
    """Take square slices, shape ``(k, size, size)``, or refuse them."""
    stack = check_stack(values, what)
    if stack.shape[1] != stack.shape[2]:
        raise InputError(f"{what} have shape {stack.shape}; slices are square, (k, size, size)")
    return stack


def distance_from_axis(size: int) -> NDArray[np.float64]:
    """Distance of each pixel of a slice from the rotation axis, shape ``(size, size)``."""
    axis = np.arange(size) - size // 2
    return np.asarray(np.hypot(axis[:, None], axis[None, :]))


def field_of_view(slices: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of a slice that were reconstructed: within the circle, and not 0 throughout."""
    size = slices.shape[1]
    measured = (slices != 0).any(axis=0)
    return np.asarray(measured & (distance_from_axis(size) < size / 2))
