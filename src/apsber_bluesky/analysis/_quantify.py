"""Measure what labels show: fractions, connected parts, surface, thickness."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.analysis._components import ConnectedParts
from apsber_bluesky.analysis._surface import Surfaces
from apsber_bluesky.analysis._thickness import NOTHING, Thickness, local_thickness
from apsber_bluesky.core import InputError

UNKNOWN_LABEL: Final = 255
#: Names of the classes that porosity is made of.
BACKGROUND, PORE = "background", "pore"

_SLAB_VOXELS: Final = 1 << 25
# Thickness is measured in some blocks, for balls know no slabs.
_BLOCK: Final = 128
_BLOCKS_ALONG: Final = 2

_DEFINITIONS: Final = {
    "porosity": "voxels of class pore over those of all classes but background",
    "fraction": "voxels of the class over those of all classes",
    "parts": "connected by faces of voxels (6-neighbourhood)",
    "surface": "Crofton's formula in 13 directions: J. Ohser, F. Muecklich, Statistical Analysis of"
    " Microstructures in Materials Science (Wiley 2000)",
    "mean_thickness": "mean over the voxels of the diameter of the largest ball that fits in and"
    " holds the voxel: T. Hildebrand, P. Rueegsegger, J. Microsc. 185 (1997) 67",
}


@dataclass(frozen=True, slots=True)
class ClassQuantities:
    """What was measured of one class.

    Attributes
    ----------
    voxels : int
        How many.
    fraction : float
        Part of the voxels of all classes.
    volume : float
        Volume [unit^3].
    parts : int
        Connected parts.
    largest_part : float
        Part of the class that its largest connected part has; 0 without.
    part_diameters : dict of str to float
        Diameters of balls as large as the parts [unit]: 10, 50 and 90 % of the volume of the class
        are in smaller parts.
    surface : float
        Area of its surface [unit^2].
    specific_surface : float
        Surface over volume [1/unit]; 0 without.
    mean_thickness : float or None
        Mean local thickness [unit]; None of the background, and where there is none.
    thickness_distribution : list of tuple of float
        Local thickness [unit], and the part of the class that has it.
    """

    voxels: int
    fraction: float
    volume: float
    parts: int
    largest_part: float
    part_diameters: dict[str, float]
    surface: float
    specific_surface: float
    mean_thickness: float | None
    thickness_distribution: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Quantities:
    """What was measured of labels.

    Attributes
    ----------
    unit : {"um", "pixel"}
        Unit of lengths.
    voxel_size : float
        Edge of a voxel [unit].
    shape : tuple of int
        Of the volume.
    unknown_voxels : int
        Voxels of no class.
    porosity : float or None
        Pores over the object; None if there is no class ``pore``, or no object.
    thickness_blocks : int
        Blocks of up to 128^3 voxels that thickness was measured in.
    classes : dict of str to ClassQuantities
        By class.
    """

    unit: str
    voxel_size: float
    shape: tuple[int, ...]
    unknown_voxels: int
    porosity: float | None
    thickness_blocks: int
    classes: dict[str, ClassQuantities]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with what each number means."""
        return {**asdict(self), "shape": list(self.shape), "definitions": dict(_DEFINITIONS)}


def quantify_labels(
    labels: Any, classes: Sequence[str], voxel_size_um: float | None = None
) -> Quantities:
    """Measure labels, some slices at a time, so that they may be larger than memory.

    Fractions, connected parts and surfaces are those of the whole volume. Thickness is measured in
    up to 8 blocks of up to 128^3 voxels that are spread over it; what is larger than a block is
    thicker than is said.

    Parameters
    ----------
    labels : array_like of uint8, shape (slices, rows, columns)
        Numbers of the classes, or 255 for unknown; anything that slices like an array.
    classes : sequence of str
        Their names.
    voxel_size_um : float, optional
        Edge of a voxel [um]; without it lengths are in pixels.

    Returns
    -------
    Quantities
        What was measured.

    Raises
    ------
    InputError
        If the shape or a label is wrong.
    ConfigurationError
        If scikit-image is not installed.
    """
    shape = tuple(int(size) for size in labels.shape)
    if len(shape) != 3 or 0 in shape or not classes:
        raise InputError(
            f"labels have shape {shape} and {len(classes)} classes; give (slices, rows, columns)"
            " and at least one class"
        )
    if voxel_size_um is not None and not voxel_size_um > 0:
        raise InputError(f"voxel_size_um is {voxel_size_um}; give a size above 0")
    counts = np.zeros(UNKNOWN_LABEL + 1, np.int64)
    parts, surfaces = ConnectedParts(UNKNOWN_LABEL), Surfaces(len(classes), UNKNOWN_LABEL)
    for slab in _slabs(labels, shape):
        counts += np.bincount(slab.ravel(), minlength=len(counts))
        _check(counts, classes)
        parts.add(slab)
        surfaces.add(slab)
    blocks = _blocks(shape)
    thickness = _thickness(labels, blocks, classes)
    size = voxel_size_um or 1.0
    known = int(counts[: len(classes)].sum())
    return Quantities(
        unit="pixel" if voxel_size_um is None else "um",
        voxel_size=size,
        shape=shape,
        unknown_voxels=int(counts[UNKNOWN_LABEL]),
        porosity=_porosity(dict(zip(classes, counts.tolist(), strict=False))),
        thickness_blocks=len(blocks),
        classes={
            name: _of_class(
                int(counts[k]),
                known,
                parts.sizes(k),
                float(surfaces.areas()[k]),
                thickness.get(name, NOTHING),
                size,
            )
            for k, name in enumerate(classes)
        },
    )


def _slabs(labels: Any, shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    height = max(1, _SLAB_VOXELS // (shape[1] * shape[2]))
    for first in range(0, shape[0], height):
        slab = np.asarray(labels[first : first + height])
        if slab.dtype != np.uint8:
            raise InputError(f"labels are {slab.dtype}; give uint8, with 255 for unknown")
        yield slab


def _check(counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    strange = np.flatnonzero(counts[len(classes) : UNKNOWN_LABEL]) + len(classes)
    if strange.size:
        raise InputError(
            f"labels hold {strange[:5].tolist()}, but there are {len(classes)} classes"
            f" ({', '.join(classes)}); name all classes, or set those voxels to 255"
        )


def _porosity(counts: dict[str, int]) -> float | None:
    solid = sum(count for name, count in counts.items() if name != BACKGROUND)
    return counts[PORE] / solid if PORE in counts and solid else None


def _blocks(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    along = []
    for size in shape:
        number = 1 if size <= _BLOCK else _BLOCKS_ALONG
        gap = (size - number * min(size, _BLOCK)) / (number + 1)
        starts = [max(0, round(gap + k * (gap + _BLOCK))) for k in range(number)]
        along.append([slice(start, min(start + _BLOCK, size)) for start in starts])
    return list(itertools.product(*along))


def _thickness(
    labels: Any, blocks: list[tuple[slice, ...]], classes: Sequence[str]
) -> dict[str, Thickness]:
    """Thickness of each class but the background, which ends where the volume does."""
    found = {name: NOTHING for name in classes if name != BACKGROUND}
    for block in blocks:
        values = np.asarray(labels[block])
        for number, name in enumerate(classes):
            if name in found:
                found[name] += local_thickness(values == number)
    return found


def _of_class(
    voxels: int,
    known: int,
    parts: NDArray[np.int64],
    area: float,
    thickness: Thickness,
    size: float,
) -> ClassQuantities:
    measured = int(thickness.voxels.sum())
    return ClassQuantities(
        voxels=voxels,
        fraction=voxels / known if known else 0.0,
        volume=voxels * size**3,
        parts=len(parts),
        largest_part=float(parts[0] / voxels) if voxels else 0.0,
        part_diameters=_part_diameters(parts, size),
        surface=area * size**2,
        specific_surface=area / voxels / size if voxels else 0.0,
        mean_thickness=thickness.mean * size if measured else None,
        thickness_distribution=[
            ((voxels_thick + 0.5) * size, count / measured)
            for voxels_thick, count in enumerate(thickness.voxels.tolist())
            if count
        ],
    )


def _part_diameters(parts: NDArray[np.int64], size: float) -> dict[str, float]:
    if not len(parts):
        return {}
    rising = parts[::-1]
    share = np.cumsum(rising) / rising.sum()
    diameters = (6 / np.pi * rising) ** (1 / 3) * size
    return {f"d{q}": float(diameters[np.searchsorted(share, q / 100)]) for q in (10, 50, 90)}
