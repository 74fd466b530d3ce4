"""Simulated scans whose truth is known: what networks are trained on, and judged on others."""

from apsber_bluesky.simulation.training._materials import SOIL_CLASSES, Sample
from apsber_bluesky.simulation.training._samples import random_sample
from apsber_bluesky.simulation.training._scans import ScanConditions, TrainingScan, simulate_scan

__all__ = [
    "SOIL_CLASSES",
    "Sample",
    "ScanConditions",
    "TrainingScan",
    "random_sample",
    "simulate_scan",
]
