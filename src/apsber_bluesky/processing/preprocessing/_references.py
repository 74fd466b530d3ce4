"""Reference images: the mean dark, the mean flat, and the pixels that cannot be trusted."""

from __future__ import annotations

from collections.abc import Collection
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

# Frames are judged by the means of so many blocks along each axis.
_BLOCKS = 8
# How far a reference must be off, in robust standard deviations and as a part of the others.
_OUTLYING_SIGMAS = 6.0
_OUTLYING_LEVEL, _OUTLYING_PATTERN, _OUTLYING_DARK = 0.3, 0.1, 0.2
_SIGMA_OF_MAD = 1.4826


def average_reference(
    frames: ArrayLike, *, what: Literal["darks", "flats"], ignore: Collection[int] = ()
) -> NDArray[np.float32]:
    """Average darks or flats.

    Parameters
    ----------
    frames : array_like
        Frames, shape ``(n, rows, columns)`` [counts].
    what : {"darks", "flats"}
        What the frames are, for messages; flats must hold light.
    ignore : collection of int
        Frames to leave out, as `find_bad_references` names them.

    Returns
    -------
    ndarray of float32
        The mean, shape ``(rows, columns)``; summed in float64.

    Raises
    ------
    InputError
        If there is no frame, all are ignored, a value is NaN or infinite, or all flats are zero.
    """
    stack = _stack(frames, what)
    if len(ignore):
        kept = [number for number in range(len(stack)) if number not in ignore]
        if not kept:
            raise InputError(f"all {len(stack)} {what} are ignored; none is left to average")
        stack = stack[kept]
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


def find_bad_references(frames: ArrayLike, *, what: Literal["darks", "flats"]) -> dict[int, str]:
    """Find references that are unlike the others: the beam was lost, a shutter stood half-way.

    Means of 8 x 8 blocks of each frame are compared with the median over frames (for flats the
    median of the brighter half, since light can only be lost). A flat is bad if it differs by 30 %
    as a whole or by 10 % in its pattern, a dark if a block differs by 20 %, and in each case by six
    robust standard deviations. A beam that decays or is topped up between two series of flats
    stays below that.

    Parameters
    ----------
    frames : array_like
        Frames, shape ``(n, rows, columns)`` [counts].
    what : {"darks", "flats"}
        What the frames are.

    Returns
    -------
    dict of int to str
        Place of each bad frame, and what is wrong with it, as a predicate.

    Raises
    ------
    InputError
        If there is no frame.
    """
    blocks = np.stack([_block_means(frame) for frame in _stack(frames, what)])
    bad = {
        int(number): "holds NaN or infinite counts"
        for number in np.flatnonzero(~np.isfinite(blocks).all(axis=1))
    }
    good = np.array([number for number in range(len(blocks)) if number not in bad], dtype=np.intp)
    if len(good) < 2:
        return bad
    judge = _unlike_flats if what == "flats" else _unlike_darks
    return bad | {int(good[number]): said for number, said in judge(blocks[good]).items()}


def _unlike_flats(blocks: NDArray[np.float64]) -> dict[int, str]:
    found = {}
    levels = blocks.mean(axis=1)
    bright = np.argsort(-levels, kind="stable")[: (len(levels) + 1) // 2]
    usual = float(np.median(levels[bright]))
    if usual <= 0:
        return {}
    off = _outlying(levels, usual, _OUTLYING_LEVEL * usual)
    for number in np.flatnonzero(off):
        part = levels[number] / usual
        found[int(number)] = f"has {part:.0%} of the brightness of the others"
    rest = np.flatnonzero(~off)
    pattern = blocks[rest] / levels[rest, None]
    dark = np.median(pattern, axis=0)
    lit = dark > 0.01
    departure = np.abs(pattern[:, lit] / dark[lit] - 1).max(axis=1, initial=0)
    typical = float(np.median(departure))
    for place in np.flatnonzero(_outlying(departure, typical, _OUTLYING_PATTERN)):
        if departure[place] > typical:
            found[int(rest[place])] = f"is lit differently, by {departure[place]:.0%} in a part"
    return found


def _unlike_darks(blocks: NDArray[np.float64]) -> dict[int, str]:
    usual = np.median(blocks, axis=0)
    # A dark level near zero has no per cent: it is compared with its noise alone.
    least = np.maximum(_OUTLYING_DARK * np.abs(usual), 1.0)
    departure = ((blocks - usual) / least).max(axis=1)
    off = _outlying(departure, float(np.median(departure)), 1.0)
    brighter = departure > np.median(departure)
    return {int(number): "is brighter than the others" for number in np.flatnonzero(off & brighter)}


def _outlying(values: NDArray[np.float64], usual: float, least: float) -> NDArray[np.bool_]:
    """Values that are off by more than `least` and by six robust standard deviations."""
    distance = np.abs(values - usual)
    limit = max(least, _OUTLYING_SIGMAS * _SIGMA_OF_MAD * float(np.median(distance)))
    # With most frames off there is no scatter to speak of, only what is usual.
    if 2 * np.count_nonzero(distance > least) >= len(values):
        limit = least
    return np.asarray(distance > limit)


def _block_means(frame: NDArray[Any]) -> NDArray[np.float64]:
    rows, columns = (np.unique(np.arange(_BLOCKS) * size // _BLOCKS) for size in frame.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.add.reduceat(frame, columns, axis=1, dtype=np.float64)
        sums = np.add.reduceat(sums, rows, axis=0)
    heights = np.diff(rows, append=frame.shape[0])[:, None]
    widths = np.diff(columns, append=frame.shape[1])[None, :]
    return np.asarray(sums / (heights * widths)).ravel()


def _stack(frames: ArrayLike, what: str) -> NDArray[Any]:
    stack = np.asarray(frames)
    if stack.ndim != 3 or 0 in stack.shape:
        raise InputError(
            f"{what} have shape {stack.shape}; give at least one frame, as (n, rows, columns)"
        )
    return stack


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
