"""Bragg peaks in frames, and which frames are hits."""

from apsber_bluesky.processing.hits._finder import FramePeaks, HitFinder, read_mask

__all__ = ["FramePeaks", "HitFinder", "read_mask"]
