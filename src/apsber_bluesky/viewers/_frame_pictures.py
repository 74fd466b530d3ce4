"""Pictures out of frames: a sinogram, a projection, the mean of a series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.viewers._run_source import Frames

# A picture is no reason to read a whole scan again.
_MOST_BYTES: Final = 256_000_000
_MOST_FRAMES: Final = 360
_LEAST_FRAMES: Final = 16
_MOST_REFERENCES: Final = 8
_LEAST_TRANSMISSION: Final = np.float32(1e-4)


def chosen_frames(frames: Frames, stream: str, at_most: int = _MOST_FRAMES) -> NDArray[np.int64]:
    """Indices of frames to look at: all, or some in even steps."""
    series = frames.series[stream]
    size = int(np.prod(series.shape[1:])) * series.dtype.itemsize
    number = min(at_most, max(_LEAST_FRAMES, _MOST_BYTES // max(size, 1)), len(series.written))
    return series.written[:: -(-len(series.written) // number)]


@dataclass(frozen=True, slots=True)
class Sinogram:
    """Line integrals of a detector row.

    Attributes
    ----------
    values : ndarray of float32, shape (frames, columns)
        Line integrals, or counts if there were no flats.
    frames : ndarray of int64, shape (frames,)
        Which projections they are of.
    row : int
        Which row.
    unit : str
        Of the values.
    """

    values: NDArray[np.float32]
    frames: NDArray[np.int64]
    row: int
    unit: str


def read_sinogram(frames: Frames) -> Sinogram | None:
    """The middle row of the projections; None before the first."""
    if "primary" not in frames.series:
        return None
    row = frames.series["primary"].shape[1] // 2
    chosen = chosen_frames(frames, "primary")
    counts = frames.read("primary", chosen, row).astype(np.float32)
    transmission = _transmission(counts, frames, row)
    if transmission is None:
        return Sinogram(counts, chosen, row, "counts")
    values = -np.log(np.maximum(transmission, _LEAST_TRANSMISSION))
    return Sinogram(values, chosen, row, "line integral")


def read_projection(frames: Frames) -> tuple[NDArray[np.float32], str] | None:
    """The last projection, as transmission if there are flats, else as counts."""
    if "primary" not in frames.series:
        return None
    last = frames.series["primary"].written[-1:]
    image = frames.read("primary", last)[0].astype(np.float32)
    transmission = _transmission(image, frames)
    return (image, "counts") if transmission is None else (transmission, "transmission")


@dataclass(frozen=True, slots=True)
class SeriesPicture:
    """A series of frames at a glance.

    Attributes
    ----------
    mean, maximum : ndarray of float64, shape (rows, columns)
        Over the frames; NaN where a pixel is masked.
    frames, sums : ndarray, shape (frames,)
        Which frames were looked at, and the sum of each.
    total : int
        How many there are.
    """

    mean: NDArray[np.float64]
    maximum: NDArray[np.float64]
    frames: NDArray[np.int64]
    sums: NDArray[np.float64]
    total: int


def read_series(frames: Frames) -> SeriesPicture | None:
    """Mean, maximum and sums of a series; None before its first frame."""
    stream = next((s for s in ("primary", *frames.series) if s in frames.series), None)
    if stream is None:
        return None
    chosen = chosen_frames(frames, stream, at_most=64)
    images = _images(frames, stream, chosen)
    first = next(images)
    total, largest, sums = first.copy(), first, [np.nansum(first)]
    for image in images:
        total += image
        largest = np.fmax(largest, image)
        sums.append(np.nansum(image))
    count = len(frames.series[stream].written)
    return SeriesPicture(total / len(chosen), largest, chosen, np.asarray(sums), count)


def _images(frames: Frames, stream: str, chosen: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    for index in chosen[:, None]:
        image = frames.read(stream, index)[0]
        values = image.astype(np.float64)
        if image.dtype.kind == "u":
            # Counting detectors keep their largest number for pixels that do not count.
            values[image == np.iinfo(image.dtype).max] = np.nan
        yield values


def _transmission(
    counts: NDArray[np.float32], frames: Frames, row: int | None = None
) -> NDArray[np.float32] | None:
    """Frames over flats, both without darks; None if there are no flats."""
    flat, dark = _reference(frames, "flats", row), _reference(frames, "darks", row)
    if flat is None:
        return None
    if dark is None:
        dark = np.zeros_like(flat)
    return np.asarray((counts - dark) / np.maximum(flat - dark, 1), np.float32)


def _reference(frames: Frames, stream: str, row: int | None) -> NDArray[np.float32] | None:
    if stream not in frames.series:
        return None
    chosen = chosen_frames(frames, stream, at_most=_MOST_REFERENCES)
    return np.asarray(frames.read(stream, chosen, row).mean(axis=0), np.float32)
