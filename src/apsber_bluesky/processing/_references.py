"""Reference images: the mean dark, the mean flat, and the pixels that cannot be trusted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from apsber_bluesky.core import InputError

# A pixel that answers with less than this part of its neighbours' median is dead. Stripes and
# flat-field structure are per cent, so the distance to healthy pixels is wide.
_LEAST_RELATIVE_GAIN = 0.3
_LEAST_GLOBAL_GAIN = 0.01
_NEIGHBOURHOOD = (3, 9)


def average_reference(frames: ArrayLike, *, what: Literal["darks", "flats"]) -> NDArray[np.float32]:
    """Average darks or flats.

    Parameters
    ----------
    frames : array_like
        Frames, shape ``(n, rows, columns)`` [counts].
    what : {"darks", "flats"}
        What the frames are, for messages; flats must hold light.

    Returns
    -------
    ndarray of float32
        The mean, shape ``(rows, columns)``; summed in float64.

    Raises
    ------
    InputError
        If there is no frame, a value is NaN or infinite, or all flats are zero.
    """
    stack = np.asarray(frames)
    if stack.ndim != 3 or 0 in stack.shape:
        raise InputError(
            f"{what} have shape {stack.shape}; give at least one frame, as (n, rows, columns)"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.mean(stack, axis=0, dtype=np.float64)
    wrong = int(np.count_nonzero(~np.isfinite(mean)))
    if wrong:
        raise InputError(
            f"{what} hold NaN or infinite counts in {wrong} of {mean.size} pixels; "
            "mask or retake them"
        )
    if what == "flats" and not mean.any():
        raise InputError(
            f"all {len(stack)} flats are zero; was the shutter open and the detector exposing?"
        )
    return np.asarray(mean, dtype=np.float32)


def bad_pixels(dark: ArrayLike, flat: ArrayLike) -> NDArray[np.bool_]:
    """Find the pixels that answer to light not at all, or far less than their neighbours.

    A pixel is bad where ``flat - dark`` is not positive, is below 1 % of the frame's median, or
    is below 30 % of the median of its 3 x 9 neighbourhood.

    Parameters
    ----------
    dark, flat : array_like
        Mean dark and mean flat, shape ``(rows, columns)`` [counts].

    Returns
    -------
    ndarray of bool
        True where the pixel is bad, shape ``(rows, columns)``.

    Raises
    ------
    InputError
        If the shapes differ or hold NaN, or no pixel is good.
    """
    gain = open_beam(dark, flat)
    typical = float(np.median(gain[gain > 0])) if (gain > 0).any() else 0.0
    neighbours = ndimage.median_filter(gain, size=_NEIGHBOURHOOD, mode="nearest")
    bad: NDArray[np.bool_] = (
        (gain <= 0)
        | (gain < _LEAST_GLOBAL_GAIN * typical)
        | (gain < _LEAST_RELATIVE_GAIN * neighbours)
    )
    if bad.all():
        raise InputError(
            "flats are nowhere brighter than darks: was the shutter open for the flats and closed "
            "for the darks?"
        )
    return bad


def open_beam(dark: ArrayLike, flat: ArrayLike) -> NDArray[np.float32]:
    """``flat - dark`` in float32, after checking both."""
    images: dict[str, NDArray[Any]] = {"dark": np.asarray(dark), "flat": np.asarray(flat)}
    for name, image in images.items():
        if image.ndim != 2 or image.size == 0:
            raise InputError(f"the mean {name} has shape {image.shape}; give (rows, columns)")
        if not np.isfinite(image).all():
            raise InputError(f"the mean {name} holds NaN or infinite counts; average it anew")
    if images["dark"].shape != images["flat"].shape:
        raise InputError(
            f"the mean dark has shape {images['dark'].shape}, the mean flat "
            f"{images['flat'].shape}; they must be of one camera"
        )
    difference = images["flat"].astype(np.float64) - images["dark"].astype(np.float64)
    return difference.astype(np.float32)
