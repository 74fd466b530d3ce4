"""Numbers that follow each other."""

from __future__ import annotations

import numpy as np


def unbroken(numbers: list[int]) -> list[tuple[int, int]]:
    """Rising numbers as ranges ``[start, stop)`` without a gap."""
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(numbers, breaks) if len(part)]
