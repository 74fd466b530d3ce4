"""A volume of a run, read slice by slice when somebody looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.storage import content_of

IMAGE_NAMES: Final = ("volume", "denoised", "uncertainty", "labels")
"""What a run may have of the kind, in the order in which viewers stack it."""
AXES: Final = ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class RunImage:
    """One of the volumes of a run.

    Attributes
    ----------
    name : str
        One of `IMAGE_NAMES`.
    levels : tuple of array-like
        The volume ``(z, y, x)`` and its coarser versions, each half the size; read when indexed.
    quantity, unit : str
        What the values are.
    voxel_size_um : float or None
        Edge of a voxel of the full level [um], None if unknown.
    classes : tuple of str
        Of labels, by their number.
    """

    name: str
    levels: tuple[Any, ...]
    quantity: str = ""
    unit: str = ""
    voxel_size_um: float | None = None
    classes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full level."""
        return tuple(self.levels[0].shape)

    @property
    def colours(self) -> dict[int, str]:
        """Colour of each class, ``#rrggbb``; classes that are not drawn have none."""
        if not self.classes:
            return {}
        told = content_of("labels", classes=self.classes).image_label or {"colors": []}
        rgba = {each["label-value"]: each["rgba"] for each in told["colors"]}
        return {k: "#{:02x}{:02x}{:02x}".format(*v[:3]) for k, v in rgba.items() if v[3]}

    def level_for(self, pixels: int) -> int:
        """The coarsest level whose slices have at least so many rows and columns."""
        fine_enough = [n for n, lv in enumerate(self.levels) if min(lv.shape[1:]) >= pixels]
        return max(fine_enough, default=0)

    def pixel_size_um(self, level: int = 0) -> float | None:
        """Edge of a pixel of a level [um]."""
        if self.voxel_size_um is None:
            return None
        return self.voxel_size_um * (1 << level)

    def read_slice(self, axis: str, position: int, level: int = 0) -> NDArray[Any]:
        """Read a slice.

        Parameters
        ----------
        axis : {"z", "y", "x"}
            The axis that it is orthogonal to.
        position : int
            Where on that axis, in voxels of the full level.
        level : int
            Which level to read it from.

        Returns
        -------
        ndarray, two-dimensional
            The other two axes, in the order z, y, x.

        Raises
        ------
        InputError
            If there is no such axis, position or level.
        """
        if axis not in AXES:
            raise InputError(f"there is no axis {axis!r}; give one of {', '.join(AXES)}")
        if not 0 <= level < len(self.levels):
            raise InputError(f"{self.name} has no level {level}; it has {len(self.levels)}, from 0")
        number = AXES.index(axis)
        if not 0 <= position < self.shape[number]:
            raise InputError(
                f"{self.name} has no slice {axis} = {position}; it has {self.shape[number]}, from 0"
            )
        place: list[Any] = [slice(None)] * 3
        last = int(self.levels[level].shape[number]) - 1
        place[number] = min(position >> level, last)
        return np.asarray(self.levels[level][tuple(place)])
