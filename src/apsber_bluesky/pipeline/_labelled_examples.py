"""Examples for a segmenter from labels that somebody drew on a volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.pipeline._accumulation import central_rows
from apsber_bluesky.pipeline._drawn_labels import DrawnLabels, LabelSurvey
from apsber_bluesky.pipeline._noise2inverse import Progress, nobody, start_examples
from apsber_bluesky.processing.learned import UNKNOWN

if TYPE_CHECKING:
    from apsber_bluesky.processing.learned import ExampleFolder

# Of labelled slices beyond these, one more tells little that is new.
_MOST_SLICES = 128


class Volume(Protocol):
    """Slices on disk (a zarr array is one)."""

    @property
    def shape(self) -> Any:
        """Slices, rows, columns."""
        ...

    def __getitem__(self, place: Any) -> Any:
        """Read some."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """Examples from labels.

    Attributes
    ----------
    training, held_out : ExampleFolder
        To be learned from, and to measure on.
    training_slices, held_out_slices : list of int
        Where in the volume they are.
    """

    training: ExampleFolder
    held_out: ExampleFolder
    training_slices: list[int]
    held_out_slices: list[int]


def make_labelled_examples(
    volumes: Mapping[str, Volume],
    labels: DrawnLabels,
    survey: LabelSurvey,
    folder: Path,
    *,
    slices: int,
    patch: int,
    origin: str,
    made_with: dict[str, Any],
    progress: Progress = nobody,
) -> LabelledExamples:
    """Cut what is labelled out of a volume.

    About a quarter of the labelled slices, neighbours of each other, is kept to measure on.

    Parameters
    ----------
    volumes : mapping of str to Volume
        The volume, by its name in messages, and other versions of it such as the denoised one, in
        the same unit.
    labels, survey : DrawnLabels, LabelSurvey
        What is labelled; see `read_drawn_labels`.
    folder : Path
        Where the examples go, in ``examples`` and ``held-out``.
    slices : int
        Neighbouring slices that go into the network, odd.
    patch : int
        Rows and columns of a patch [pixel]; no example is smaller.
    origin : str
        What the volume is called.
    made_with : dict
        What the examples follow from, for the model's card.
    progress : callable
        Told how many slices are done, of how many.

    Raises
    ------
    InputError
        If the volume holds NaN, no object stands out, or labels are on one slice only, or a class
        is on one alone.
    """
    kept = choose_held_out(survey, labels.classes)
    chosen = survey.labelled
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _MOST_SLICES)).astype(int)]
    training_slices = [int(z) for z in chosen if z not in kept]
    # One level for all, as it is where models are applied.
    level = np.float32(_level(*next(iter(volumes.items()))))
    training, held_out = start_examples(folder, origin, labels.classes, made_with)
    places = [(training, z) for z in training_slices] + [(held_out, z) for z in kept]
    for done, (examples, z) in enumerate(places):
        progress(done, len(places))
        drawn = labels.slice(z)
        window = _window(drawn, patch)
        inputs = np.stack(
            [
                _neighbours(name, volume, z, slices)[:, *window] / level
                for name, volume in volumes.items()
            ]
        )
        parts = [drawn[window]]
        if examples is held_out and len(kept) == 1:
            # The temperature and the figures are of different voxels.
            parts = _halves(drawn[window])
        for part in parts:
            examples.add(inputs, labels=np.broadcast_to(part, inputs.shape[1:]))
    progress(len(places), len(places))
    return LabelledExamples(training, held_out, training_slices, kept)


def choose_held_out(survey: LabelSurvey, classes: list[str]) -> list[int]:
    """Neighbouring labelled slices to measure on, such that all classes are there and elsewhere.

    Raises
    ------
    InputError
        If there are none.
    """
    labelled = survey.labelled
    if len(labelled) < 2:
        raise InputError(
            f"labels are on {len(labelled)} slice; draw on 2 or more that lie apart, one is kept"
            " to measure on"
        )
    for name, number in zip(classes, (survey.counts > 0).sum(axis=0), strict=True):
        if number < 2:
            raise InputError(
                f"class {name} is drawn on {number} slice alone; draw it on 2 or more, one is kept"
                " to measure on"
            )
    total = survey.counts.sum(axis=0)
    wanted = max(1, len(labelled) // 4)
    for count in range(wanted, len(labelled)):
        for start in range(len(labelled) - count, -1, -1):
            kept = labelled[start : start + count]
            there = survey.counts[kept].sum(axis=0)
            if ((there > 0) & (there < total)).all():
                return [int(z) for z in kept]
    raise InputError(
        "no part of the labelled slices has all classes and leaves some of each; draw all classes"
        " on 2 slices"
    )


def _level(name: str, volume: Volume) -> float:
    from apsber_bluesky.processing.learned import object_level

    try:
        return object_level(np.asarray(volume[central_rows(volume.shape[0])]))
    except InputError as error:
        raise InputError(f"volume {name}: {error}") from error


def _neighbours(name: str, volume: Volume, z: int, slices: int) -> NDArray[np.float32]:
    """A slice with those beside it, mirrored at the ends of the volume."""
    depth, half = volume.shape[0], slices // 2
    mirrored = np.pad(np.arange(depth), half, mode="reflect" if depth > 1 else "edge")
    images = np.stack([np.asarray(volume[int(n)], np.float32) for n in mirrored[z : z + slices]])
    bad = int((~np.isfinite(images)).sum())
    if bad:
        raise InputError(f"volume {name} holds {bad} NaN or infinite values around slice {z}")
    return images


def _window(labels: NDArray[np.uint8], patch: int) -> tuple[slice, slice]:
    """What is labelled, with a margin of half a patch and at least one patch wide."""
    rows, columns = np.nonzero(labels != UNKNOWN)
    sides = []
    for places, length in zip((rows, columns), labels.shape, strict=True):
        first = max(int(places.min()) - patch // 2, 0)
        stop = min(int(places.max()) + 1 + patch // 2, length)
        first = max(min(first, stop - patch), 0)
        sides.append(slice(first, min(max(stop, first + patch), length)))
    return sides[0], sides[1]


def _halves(labels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The upper and the lower half of what is labelled."""
    known = np.flatnonzero(labels != UNKNOWN)
    halves = []
    for keep in (known[: len(known) // 2], known[len(known) // 2 :]):
        half = np.full(labels.shape, UNKNOWN, np.uint8)
        half.flat[keep] = labels.flat[keep]
        halves.append(half)
    return halves
