"""What the values of a volume are: attenuation, labels, probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.storage._pyramid import halve, vote

_MOST_CLASSES = 255  # of uint8, which keeps its last value for the unknown
# M. Okabe and K. Ito, Color Universal Design (2008): told apart by the colour-blind, too.
_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (153, 153, 153),
)
_BACKGROUND = "background"

ContentKind = Literal["attenuation", "labels", "uncertainty", "probabilities", "image"]
Halve = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class VolumeContent:
    """What a volume holds.

    Attributes
    ----------
    quantity : str
        In words.
    dtype : dtype
        Of the stored values.
    unit : str or None
        Unit of the values; None is that of attenuation, which follows from the voxel size.
    classes : tuple of str
        Of labels, by their number; of channels, in their order.
    channels : int
        Length of the axis before z; 0 if there is none.
    halve : callable
        Makes the coarser levels.
    compressed : bool
        Whether it is worth while.
    """

    quantity: str
    dtype: np.dtype[Any]
    unit: str | None = None
    classes: tuple[str, ...] = ()
    channels: int = 0
    halve: Halve = halve
    compressed: bool = False

    @property
    def metadata(self) -> dict[str, Any]:
        """What readers of the suite are told, as plain JSON values."""
        told: dict[str, Any] = {"quantity": self.quantity}
        return told | ({"classes": list(self.classes)} if self.classes else {})

    @property
    def image_label(self) -> dict[str, Any] | None:
        """The ``image-label`` attribute of OME-Zarr, if the values are labels."""
        if self.dtype.kind != "u":
            return None
        return {
            "colors": [
                {"label-value": number, "rgba": _colour(number, name)}
                for number, name in enumerate(self.classes)
            ],
            "properties": [
                {"label-value": number, "class": name} for number, name in enumerate(self.classes)
            ],
        }


ATTENUATION = VolumeContent("linear attenuation coefficient", np.dtype("<f4"))

UNCERTAINTY = VolumeContent(
    "uncertainty of the labels, entropy over that of equal probabilities",
    np.dtype("<f2"),
    unit="1",
    compressed=True,
)


def label_content(classes: Sequence[str]) -> VolumeContent:
    """Labels of some classes; 255 is unknown.

    Raises
    ------
    InputError
        If there are no classes, or more than a byte can tell apart.
    """
    names = tuple(classes)
    if not 1 <= len(names) <= _MOST_CLASSES:
        raise InputError(f"labels of {len(names)} classes cannot be kept; give 1 to 255")
    coarser = functools.partial(vote, classes=len(names))
    return VolumeContent("class", np.dtype("|u1"), "1", names, halve=coarser, compressed=True)


def content_of(
    kind: ContentKind,
    *,
    quantity: str = "",
    classes: Sequence[str] = (),
    unit: str = "",
    channels: int = 0,
) -> VolumeContent:
    """What values of some kind are.

    Parameters
    ----------
    kind : {"attenuation", "labels", "uncertainty", "probabilities", "image"}
        The kind; an image has any meaning, as a model of somebody's own gives it.
    quantity, unit, channels : str, str, int
        Of an image.
    classes : sequence of str
        Of labels and probabilities.

    Raises
    ------
    InputError
        If labels have no class, or more than a byte can tell apart.
    """
    if kind == "attenuation":
        return ATTENUATION
    if kind == "uncertainty":
        return UNCERTAINTY
    if kind == "labels":
        return label_content(classes)
    if kind == "probabilities":
        names, half = tuple(classes), np.dtype("<f2")
        return VolumeContent(
            "probability of the class", half, "1", names, len(names), compressed=True
        )
    return VolumeContent(quantity, np.dtype("<f4"), unit, channels=channels)


def _colour(number: int, name: str) -> list[int]:
    if name == _BACKGROUND:
        return [0, 0, 0, 0]
    return [*_COLOURS[number % len(_COLOURS)], 255]
