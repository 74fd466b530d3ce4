"""Whether the open beam stayed as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.analysis._limits import NotApplicable, metric
from apsber_bluesky.core import InputError, Limits, QualityMetric

_SOURCE = (
    "relative change of block means of the open beam, after V. Van Nieuwenhove et al., Opt. "
    "Express 23 (2015) 27975"
)
_BLOCKS = 16


def flat_stability(
    series: Sequence[NDArray[Any]],
    dark: NDArray[Any] | None = None,
    *,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Largest relative change of the open beam, within a series of flats and between series.

    Flats are averaged over up to 16 x 16 blocks, so that noise does not count. Within a series it
    is the scatter of the blocks about their mean over the series, between two series the
    difference of these means; both as a root mean square over the blocks.

    Parameters
    ----------
    series : sequence of ndarray
        Flats of each time they were taken at, or their `block_means`, shape
        ``(n, rows, columns)`` [counts].
    dark : ndarray, optional
        Mean dark, or its block means, shape ``(rows, columns)`` [counts].
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``flat_stability`` [1].

    Raises
    ------
    NotApplicable
        If there are fewer than two flats, or they hold no light.
    InputError
        If flats are no stacks of frames.
    """
    if any(flats.ndim != 3 for flats in series):
        raise InputError("flats are stacks of frames, shape (n, rows, columns)")
    offset = 0.0 if dark is None else block_means(dark[None])[0]
    kept = [block_means(flats) - offset for flats in series if len(flats)]
    if sum(len(blocks) for blocks in kept) < 2:
        raise NotApplicable("fewer than two flats were taken")
    means = [blocks.mean(axis=0) for blocks in kept]
    light = np.mean(means, axis=0)
    lit = light > 0.01 * light.max()
    if light.max() <= 0:
        raise NotApplicable("the flats hold no light")
    within = max(_rms((b - m)[:, lit] / light[lit]) for b, m in zip(kept, means, strict=True))
    notes = [f"within a series {within:.2%}"]
    between = 0.0
    if len(means) > 1:
        changes = [(later - means[0])[lit] / light[lit] for later in means[1:]]
        between = max(_rms(change) for change in changes)
        notes.append(f"from the first series to another {between:.2%}")
    else:
        notes.append("flats were taken once, so a change during the scan is not seen")
    return metric(
        "flat_stability",
        max(within, between),
        unit="1",
        source=_SOURCE,
        note="; ".join(notes),
        limits=limits,
    )


def block_means(frames: NDArray[Any]) -> NDArray[np.float64]:
    """Means of up to 16 x 16 blocks of each frame, which judge light as well as the frame itself.

    Parameters
    ----------
    frames : ndarray
        Shape ``(n, rows, columns)``; block means stay as they are.

    Returns
    -------
    ndarray of float64
        Shape ``(n, up to 16, up to 16)``.
    """
    rows, columns = (np.unique(np.arange(_BLOCKS) * size // _BLOCKS) for size in frames.shape[1:])
    heights = np.diff(rows, append=frames.shape[1])[:, None]
    widths = np.diff(columns, append=frames.shape[2])
    means = np.empty((len(frames), len(rows), len(columns)))
    for frame, own in zip(frames, means, strict=True):
        sums = np.add.reduceat(frame, columns, axis=1, dtype=np.float64)
        own[...] = np.add.reduceat(sums, rows, axis=0) / (heights * widths)
    return means


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
