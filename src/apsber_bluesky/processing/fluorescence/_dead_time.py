"""Counts that a detector missed while it was busy with others."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError


def dead_time_factor(
    events: ArrayLike, exposure_s: float, event_width_s: ArrayLike
) -> NDArray[np.float64]:
    """What counts must be multiplied by, from the number of events that were processed.

    An Xspress3 is dead for a fixed width after each event, so of the exposure the share
    ``1 - events * width / exposure`` was live.

    Parameters
    ----------
    events : array_like
        Events of a frame and channel, those outside of the spectrum included where known.
    exposure_s : float
        Exposure time [s].
    event_width_s : array_like
        Dead time of one event [s]; broadcast against `events`.

    Returns
    -------
    ndarray
        Factors, 1 or more.

    Raises
    ------
    InputError
        If the exposure is not positive, or there are more events than fit into it.
    """
    if not exposure_s > 0:
        raise InputError(f"exposure_s is {exposure_s!r}; give a positive number of seconds")
    dead = np.asarray(events, np.float64) * np.asarray(event_width_s, np.float64) / exposure_s
    if np.any(dead >= 1) or np.any(dead < 0):
        raise InputError(
            f"a channel would have been dead for {100 * float(np.max(dead)):.4g} % of the exposure"
            f" of {exposure_s} s; check exposure and event width"
        )
    factors: NDArray[np.float64] = 1 / (1 - dead)
    return factors


def sum_channels(
    spectra: ArrayLike, exposure_s: float, event_width_s: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add up the elements of a detector, each corrected for its own dead time.

    Parameters
    ----------
    spectra : array_like, shape (frames, channels, bins)
        Counts as they were recorded.
    exposure_s : float
        Exposure time of a frame [s].
    event_width_s : array_like, shape (channels,) or ()
        Dead time of one event [s]; 0 if the counts are corrected already.

    Returns
    -------
    total : ndarray, shape (frames, bins)
        Counts of a detector that misses none.
    variance : ndarray, shape (frames, bins)
        Their variances.

    Raises
    ------
    InputError
        If `spectra` has another shape, or `dead_time_factor` refuses.
    """
    counts = np.asarray(spectra)
    if counts.ndim != 3:
        raise InputError(f"spectra have shape {counts.shape}; give (frames, channels, bins)")
    factors = dead_time_factor(counts.sum(axis=2, dtype=np.float64), exposure_s, event_width_s)
    total = np.einsum("fcb,fc->fb", counts, factors, optimize=True)
    variance = np.einsum("fcb,fc->fb", counts, factors**2, optimize=True)
    return total, variance
