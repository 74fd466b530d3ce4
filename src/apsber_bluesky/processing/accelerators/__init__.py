"""Engines of GPUs: the gridding engine on CuPy and torch, and tomocupy."""

from apsber_bluesky.processing.accelerators._cupy_engine import CupyEngine
from apsber_bluesky.processing.accelerators._tomocupy_engine import TomocupyEngine
from apsber_bluesky.processing.accelerators._torch_engine import TorchEngine

__all__ = [
    "CupyEngine",
    "TomocupyEngine",
    "TorchEngine",
]
