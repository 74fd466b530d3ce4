"""Quality numbers with a verdict each, and figures."""

from apsber_bluesky.analysis._assessment import ReconstructHalf, assess_scan
from apsber_bluesky.analysis._centre_pictures import draw_centre_slice, grey_range
from apsber_bluesky.analysis._centre_residual import centre_residual
from apsber_bluesky.analysis._figures import draw_ortho_slices
from apsber_bluesky.analysis._frame_counts import missing_frames, saturated_pixels
from apsber_bluesky.analysis._limits import DEFAULT_LIMITS
from apsber_bluesky.analysis._resolution import (
    RingCorrelation,
    fourier_ring_correlation,
    resolution,
)
from apsber_bluesky.analysis._signal_to_noise import signal_to_noise

__all__ = [
    "DEFAULT_LIMITS",
    "ReconstructHalf",
    "RingCorrelation",
    "assess_scan",
    "centre_residual",
    "draw_centre_slice",
    "draw_ortho_slices",
    "fourier_ring_correlation",
    "grey_range",
    "missing_frames",
    "resolution",
    "saturated_pixels",
    "signal_to_noise",
]
