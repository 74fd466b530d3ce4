"""Lengths that all engines share, so that they compute the same sums."""

from __future__ import annotations

import math

_CROP = 1.125
_FACTORS = (2, 3, 5, 7)


def smooth_length(least: int, step: int = 1) -> int:
    """Smallest of ``least``, ``least + step`` ... without prime factors above 7."""
    length = least
    while _remainder(length) != 1:
        length += step
    return length


def padded_length(columns: int) -> int:
    """Samples of a detector row with the zeros that keep its two ends apart, even."""
    return smooth_length(2 * columns, 2)


def cut_length(columns: int) -> int:
    """Samples of a filtered row that are kept: odd.

    The Nyquist frequency of an even number would mix slices that share a complex number.
    """
    return smooth_length(math.ceil(_CROP * columns) | 1, 2)


def _remainder(length: int) -> int:
    for factor in _FACTORS:
        while length % factor == 0:
            length //= factor
    return length
