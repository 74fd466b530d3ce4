"""Where the rotation axis is, by the cheapest way that is good enough."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.processing import CentreEstimate, find_centre, refine_centre

# From here on an estimate is not good enough, and looked at in small reconstructions.
_UNCERTAIN_PX: Final = 0.25
_REACH_PX: Final = 4.0


def estimate_centre(
    sinograms: NDArray[np.float32],
    angles_deg: NDArray[np.float64],
    *,
    engine: str,
    filter_name: str,
) -> CentreEstimate:
    """The centre from the projections' agreement; if that is vague, from small slices.

    Parameters
    ----------
    sinograms : ndarray of float32
        Line integrals of some rows, shape ``(n, rows, columns)``.
    angles_deg : ndarray
        Angle of each projection, shape ``(n,)`` [deg].
    engine, filter_name : str
        What the small slices are reconstructed with.

    Returns
    -------
    CentreEstimate
        The one of less uncertainty.

    Raises
    ------
    InputError
        If there are too few projections or angles.
    """
    estimate = find_centre(sinograms, angles_deg)
    centre = estimate.centre_px
    reach = min(_REACH_PX, centre, sinograms.shape[2] - 1 - centre)
    if estimate.uncertainty_px <= _UNCERTAIN_PX or reach < estimate.uncertainty_px:
        return estimate
    refined = refine_centre(
        sinograms, angles_deg, centre, reach_px=reach, engine=engine, filter_name=filter_name
    )
    return refined if refined.uncertainty_px < estimate.uncertainty_px else estimate
