"""Simulated scans whose truth is known: what networks are trained on, and judged on others."""

from apsber_bluesky.simulation.training._bragg_frames import (
    BraggFrame,
    FrameConditions,
    simulate_bragg_frame,
)
from apsber_bluesky.simulation.training._materials import SOIL_CLASSES, Sample
from apsber_bluesky.simulation.training._random_scans import random_scans
from apsber_bluesky.simulation.training._samples import random_sample
from apsber_bluesky.simulation.training._scans import ScanConditions, TrainingScan, simulate_scan

__all__ = [
    "SOIL_CLASSES",
    "BraggFrame",
    "FrameConditions",
    "Sample",
    "ScanConditions",
    "TrainingScan",
    "random_sample",
    "random_scans",
    "simulate_bragg_frame",
    "simulate_scan",
]
