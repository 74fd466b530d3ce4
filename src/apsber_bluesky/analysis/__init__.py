"""Quality numbers with a verdict each, and figures."""

from apsber_bluesky.analysis._assessment import (
    Assessment,
    DetectorFrames,
    ReconstructHalf,
    assess_scan,
)
from apsber_bluesky.analysis._centre_pictures import draw_centre_slice, grey_range
from apsber_bluesky.analysis._centre_residual import centre_residual
from apsber_bluesky.analysis._figures import draw_ortho_slices
from apsber_bluesky.analysis._flat_stability import block_means, flat_stability
from apsber_bluesky.analysis._fourier_correlation import RingCorrelation
from apsber_bluesky.analysis._frame_counts import missing_frames
from apsber_bluesky.analysis._limits import DEFAULT_LIMITS, NotApplicable, check_limits
from apsber_bluesky.analysis._motion import SampleMotion, drift, motion, sample_motion
from apsber_bluesky.analysis._pixels import PixelSums, dead_pixels
from apsber_bluesky.analysis._quantify import ClassQuantities, Quantities, quantify_labels
from apsber_bluesky.analysis._report import RunReport, draw_report, render_report
from apsber_bluesky.analysis._report_panels import (
    CurvesPanel,
    ImagePanel,
    LabelOverlay,
    MissingPanel,
    Panel,
)
from apsber_bluesky.analysis._reprojection import Project, reprojection_residual
from apsber_bluesky.analysis._resolution import fourier_ring_correlation, resolution
from apsber_bluesky.analysis._ring_score import ring_score
from apsber_bluesky.analysis._segmentation import (
    SegmentedSlices,
    class_contrast,
    segmentation_confidence,
)
from apsber_bluesky.analysis._shell_correlation import fourier_shell_correlation, resolution_3d
from apsber_bluesky.analysis._signal_to_noise import contrast_to_noise, signal_to_noise

__all__ = [
    "DEFAULT_LIMITS",
    "Assessment",
    "ClassQuantities",
    "CurvesPanel",
    "DetectorFrames",
    "ImagePanel",
    "LabelOverlay",
    "MissingPanel",
    "NotApplicable",
    "Panel",
    "PixelSums",
    "Project",
    "Quantities",
    "ReconstructHalf",
    "RingCorrelation",
    "RunReport",
    "SampleMotion",
    "SegmentedSlices",
    "assess_scan",
    "block_means",
    "centre_residual",
    "check_limits",
    "class_contrast",
    "contrast_to_noise",
    "dead_pixels",
    "draw_centre_slice",
    "draw_ortho_slices",
    "draw_report",
    "drift",
    "flat_stability",
    "fourier_ring_correlation",
    "fourier_shell_correlation",
    "grey_range",
    "missing_frames",
    "motion",
    "quantify_labels",
    "render_report",
    "reprojection_residual",
    "resolution",
    "resolution_3d",
    "ring_score",
    "sample_motion",
    "segmentation_confidence",
    "signal_to_noise",
]
