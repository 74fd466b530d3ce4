"""Iterative reconstruction: a projector pair, CGLS, SIRT and total variation."""

from apsber_bluesky.processing.iterative._engine import IterativeEngine
from apsber_bluesky.processing.iterative._projector import Projector
from apsber_bluesky.processing.iterative._reconstruct import (
    IterationReport,
    IterativeReconstruction,
    iterative_bytes,
    reconstruct_iteratively,
)
from apsber_bluesky.processing.iterative._settings import ITERATIVE_METHODS, IterativeSettings

__all__ = [
    "ITERATIVE_METHODS",
    "IterationReport",
    "IterativeEngine",
    "IterativeReconstruction",
    "IterativeSettings",
    "Projector",
    "iterative_bytes",
    "reconstruct_iteratively",
]
