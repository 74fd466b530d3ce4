"""Random samples, of either family."""

from __future__ import annotations

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation.training._grown_core import GrownCore
from apsber_bluesky.simulation.training._materials import Sample
from apsber_bluesky.simulation.training._scattered_core import ScatteredCore

SAMPLE_KINDS = ("grown", "scattered")


def random_sample(kind: str, seed: int, *, slices: int, size: int) -> Sample:
    """Make a soil core by chance; equal arguments make equal cores.

    Parameters
    ----------
    kind : {"grown", "scattered"}
        ``grown``: aggregates with a pore space between them, winding roots, mineral grains.
        ``scattered``: ellipsoids in a matrix, as the phantom ``soil`` has them.
    seed : int
        Seed.
    slices, size : int
        Slices, and pixels per side of a slice; samples fill the view as the phantoms do.

    Returns
    -------
    Sample
        The core.

    Raises
    ------
    InputError
        If the kind is unknown, or a slice is too small to show anything.
    """
    if size < 64 or slices < 1:
        raise InputError(f"{slices} slices of {size} x {size} pixels show no soil; give 64 or more")
    if kind == "grown":
        return GrownCore(seed, slices=slices, size=size)
    if kind == "scattered":
        return ScatteredCore(seed, slices=slices, size=size)
    raise InputError(f"unknown kind of sample {kind!r}; choose one of {', '.join(SAMPLE_KINDS)}")
