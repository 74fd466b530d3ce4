"""The loops over the pixels of a frame, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from apsber_bluesky.processing._compiled import compiled

_CLIP = 3.0
_ROUNDS = 5
# Half the edge of the square that the background around a peak is measured in [pixel].
_REACH = 5
#: What is told of a peak: row, column, intensity and signal to noise.
PEAK_FIELDS = 4


@compiled
def ring_backgrounds(
    pixels: Any, samples: Any, starts: Any, limit: float, photon: float, mean: Any, sigma: Any
) -> None:
    """Mean and standard deviation of each ring's background, without what stands above it.

    Values beyond `_CLIP` standard deviations are left out, and again, as A. Barty et al. do. The
    deviation is never taken for less than the photons' own: then 64 samples are enough, and a
    background of less than one photon has one, too.
    """
    values = np.empty(4096, np.float64)
    for ring in range(len(starts) - 1):
        count = 0
        for place in range(starts[ring], starts[ring + 1]):
            value = float(pixels[samples[place]])
            # Not a number compares as false, too.
            if value < limit:
                values[count] = value
                count += 1
        mean[ring], sigma[ring] = np.inf, 0.0
        top, kept_before = np.inf, -1
        for _ in range(_ROUNDS):
            total = squares = 0.0
            kept = 0
            for k in range(count):
                if values[k] <= top:
                    total += values[k]
                    squares += values[k] * values[k]
                    kept += 1
            if kept == 0 or kept == kept_before:
                break
            kept_before = kept
            middle = total / kept
            spread = max(squares / kept - middle * middle, photon * max(middle, 0.0))
            mean[ring], sigma[ring] = middle, math.sqrt(spread)
            top = middle + _CLIP * sigma[ring]


@compiled
def find_candidates(pixels: Any, ring: Any, threshold: Any, limit: float, found: Any) -> int:
    """Numbers of the pixels above their ring's threshold; how many there are, at most so many."""
    count = 0
    for place in range(len(pixels)):
        value = pixels[place]
        if value > threshold[ring[place]] and value < limit:
            if count == len(found):
                return count
            found[count] = place
            count += 1
    return count


@compiled
def collect_peaks(
    image: Any,
    ring: Any,
    mean: Any,
    candidates: Any,
    rules: Any,
    mark: Any,
    stack: Any,
    peaks: Any,
) -> int:
    """Join neighbouring candidates to peaks; how many keep the rules.

    `rules` are fewest and most pixels, peak_snr, photon, limit. `mark` is 0 everywhere before and
    afterwards: 1 is a candidate, 2 one that belongs to a peak.
    """
    columns = image.shape[1]
    fewest, most, peak_snr, photon, limit = rules
    for place in candidates:
        mark[place // columns, place % columns] = 1
    count = 0
    for place in candidates:
        row, column = place // columns, place % columns
        if mark[row, column] != 1:
            continue
        size = _flood(mark, row, column, stack)
        if size < fewest or size > most:
            continue
        total = across = down = 0.0
        for k in range(size):
            at = stack[k]
            weight = (
                float(image[at // columns, at % columns]) - mean[ring[at // columns, at % columns]]
            )
            total += weight
            down += weight * (at // columns)
            across += weight * (at % columns)
        row, column = int(down / total + 0.5), int(across / total + 0.5)
        middle, spread = _around(image, ring, len(mean), mark, row, column, limit)
        signal = 0.0
        for k in range(size):
            at = stack[k]
            signal += float(image[at // columns, at % columns]) - middle
        noise = math.sqrt(size * max(spread, photon * max(middle, 0.0)) + photon * photon)
        if signal < peak_snr * noise:
            continue
        if count == len(peaks):
            break
        peaks[count, 0], peaks[count, 1] = down / total, across / total
        peaks[count, 2], peaks[count, 3] = signal / photon, signal / noise
        count += 1
    for place in candidates:
        mark[place // columns, place % columns] = 0
    return count


@compiled
def _flood(mark: Any, row: int, column: int, stack: Any) -> int:
    """All candidates that touch this one, by a side or a corner; `stack` has them then."""
    rows, columns = mark.shape
    mark[row, column] = 2
    stack[0] = row * columns + column
    size, done = 1, 0
    while done < size:
        row, column = stack[done] // columns, stack[done] % columns
        done += 1
        for y in range(max(row - 1, 0), min(row + 2, rows)):
            for x in range(max(column - 1, 0), min(column + 2, columns)):
                if mark[y, x] == 1:
                    mark[y, x] = 2
                    stack[size] = y * columns + x
                    size += 1
    return size


@compiled
def _around(
    image: Any, ring: Any, left_out: int, mark: Any, row: int, column: int, limit: float
) -> Any:
    """Mean and variance of the pixels around a peak that belong to none."""
    rows, columns = image.shape
    total = squares = 0.0
    count = 0
    for y in range(max(row - _REACH, 0), min(row + _REACH + 1, rows)):
        for x in range(max(column - _REACH, 0), min(column + _REACH + 1, columns)):
            value = float(image[y, x])
            if mark[y, x] == 0 and ring[y, x] < left_out and value < limit:
                total += value
                squares += value * value
                count += 1
    if count == 0:
        return 0.0, np.inf
    middle = total / count
    return middle, squares / count - middle * middle
