"""Labels that somebody drew, as examples know them: an index into the classes, or unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned import UNKNOWN


class LabelSource(Protocol):
    """Labels on disk (``storage.LabelVolume`` is one)."""

    @property
    def path(self) -> Path:
        """File or folder."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        ...

    @property
    def names(self) -> dict[int, str]:
        """What the numbers mean, if the file says."""
        ...

    def slice(self, number: int) -> NDArray[Any]:
        """The labels of a slice."""
        ...


@dataclass(frozen=True, slots=True)
class LabelSurvey:
    """What was drawn where.

    Attributes
    ----------
    counts : ndarray of int64, shape (slices, classes)
        Voxels of each class in each slice.
    """

    counts: NDArray[np.int64]

    @property
    def labelled(self) -> NDArray[np.intp]:
        """Slices that have labels."""
        return np.flatnonzero(self.counts.any(axis=1))


class DrawnLabels(Protocol):
    """Labels of one file, or of several."""

    classes: list[str]

    def slice(self, number: int) -> NDArray[np.uint8]:
        """The labels of a slice: an index into the classes, or 255 where nobody knows."""
        ...


class LabelsByNumber:
    """Labels of one file, in which each class has its number.

    Parameters
    ----------
    source : LabelSource
        The file.
    classes : sequence of str
        Names of the numbers 0, 1, 2 and so on, the unlabelled one left out; empty takes those
        that the file has.
    unlabelled : int
        Number of voxels that nobody labelled; 255 always is one, too.

    Raises
    ------
    InputError
        If there are fewer than 2 classes.
    """

    def __init__(self, source: LabelSource, classes: Sequence[str], unlabelled: int) -> None:
        if classes:
            numbers = [number for number in range(len(classes) + 1) if number != unlabelled]
            named = dict(zip(numbers, classes, strict=False))
        else:
            named = {
                number: name
                for number, name in sorted(source.names.items())
                if number not in (unlabelled, UNKNOWN)
            }
        self.classes = check_names(list(named.values()), source.path)
        self._source, self._numbers = source, list(named)
        self._nobody = {unlabelled, UNKNOWN} - set(named)

    def slice(self, number: int) -> NDArray[np.uint8]:
        """The labels of a slice."""
        values = self._source.slice(number)
        labels = np.full(values.shape, UNKNOWN, np.uint8)
        for index, value in enumerate(self._numbers):
            labels[values == value] = index
        strange = (labels == UNKNOWN) & ~np.isin(values, list(self._nobody))
        if strange.any():
            value = values[strange][0]
            known = ", ".join(
                f"{value} {name}" for value, name in zip(self._numbers, self.classes, strict=True)
            )
            raise InputError(
                f"{int(strange.sum())} voxels of slice {number} of {self._source.path} have no"
                f" class ({known}), the first has {value}; name all classes with --classes, and"
                f" say with --unlabelled {value} if it means nothing"
            )
        return labels


class LabelsByFile:
    """Labels of several files, one for each class; what is not 0 there is of the class.

    Parameters
    ----------
    sources : sequence of LabelSource
        The files.
    classes : sequence of str
        A name for each; empty takes those of the files.

    Raises
    ------
    InputError
        If there is not a name for each.
    """

    def __init__(self, sources: Sequence[LabelSource], classes: Sequence[str]) -> None:
        names = list(classes) or [source.path.stem for source in sources]
        if len(names) != len(sources):
            raise InputError(
                f"there are {len(sources)} files of labels and {len(names)} classes; give a name"
                " for each"
            )
        self.classes, self._sources = check_names(names, sources[0].path), sources
        self.overlaps: Counter[tuple[int, int]] = Counter()

    def slice(self, number: int) -> NDArray[np.uint8]:
        """The labels of a slice; where two files overlap, the first counts and it is noted."""
        drawn = [self._drawn(source.slice(number)) for source in self._sources]
        labels = np.full(drawn[0].shape, UNKNOWN, np.uint8)
        for index, mask in enumerate(drawn):
            for other in range(index):
                self.overlaps[other, index] += int((mask & drawn[other]).sum())
            labels[mask & (labels == UNKNOWN)] = index
        return labels

    @staticmethod
    def _drawn(values: NDArray[Any]) -> NDArray[np.bool_]:
        drawn: NDArray[np.bool_] = (values != 0) & (values != UNKNOWN)
        return drawn

    def check_overlaps(self) -> None:
        """Refuse voxels that belong to two classes.

        Raises
        ------
        InputError
            If there are some; it says how many, and in which files.
        """
        for (one, other), count in self.overlaps.items():
            if count:
                raise InputError(
                    f"{count} voxels are labelled both in {self._sources[one].path} and in"
                    f" {self._sources[other].path}; a voxel has one class, correct one of them"
                )


def read_drawn_labels(
    sources: Sequence[LabelSource],
    shape: tuple[int, int, int],
    *,
    classes: Sequence[str] = (),
    unlabelled: int = UNKNOWN,
) -> tuple[DrawnLabels, LabelSurvey]:
    """Look through labels, and hold them against the volume that they belong to.

    Parameters
    ----------
    sources : sequence of LabelSource
        One file with a number for each class, or a file for each class.
    shape : tuple of int
        Shape of the volume.
    classes : sequence of str
        Names of the classes; empty takes those that the files have.
    unlabelled : int
        Number of voxels that nobody labelled, of a single file.

    Raises
    ------
    InputError
        If the shape is another one, a number has no class, a class has no voxel, or files overlap.
    """
    for source in sources:
        if source.shape != shape:
            raise InputError(
                f"the labels {source.path} have shape {source.shape}, the volume has {shape};"
                " labels need one voxel for each of the volume"
            )
    labels: DrawnLabels
    if len(sources) == 1:
        labels = LabelsByNumber(sources[0], classes, unlabelled)
    else:
        labels = LabelsByFile(sources, classes)
    counts = np.zeros((shape[0], len(labels.classes)), np.int64)
    for number in range(shape[0]):
        found = np.bincount(labels.slice(number).ravel(), minlength=UNKNOWN + 1)
        counts[number] = found[: len(labels.classes)]
    if isinstance(labels, LabelsByFile):
        labels.check_overlaps()
    for name, count in zip(labels.classes, counts.sum(axis=0), strict=True):
        if not count:
            raise InputError(
                f"class {name} has no voxel in the labels; draw some, or leave the class out"
            )
    return labels, LabelSurvey(counts)


def check_names(names: list[str], path: Path) -> list[str]:
    """Refuse names that no model can have.

    Raises
    ------
    InputError
        If there are fewer than 2 or too many, or two are equal.
    """
    if not 2 <= len(names) < UNKNOWN:
        raise InputError(
            f"the labels {path} have {len(names)} named classes; name 2 or more with"
            " --classes NAME,NAME"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not all(names):
        raise InputError(f"classes need names of their own, not {', '.join(names)!r}")
    return names
