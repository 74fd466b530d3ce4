"""Examples to learn from, in a folder: what goes in, and what should come out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, explain_disk_errors, write_json

UNKNOWN = 255
"""Label of voxels of which nobody knows what they are."""

_DESCRIPTION = "examples.json"


@dataclass(frozen=True, slots=True)
class ExampleDescription:
    """What a folder of examples holds.

    Attributes
    ----------
    origin : str
        Where the examples come from, for the model's card.
    classes : list of str
        Names of the labels; empty where there are none.
    volumes : int
        How many volumes.
    made_with : dict
        What the examples follow from, so that a folder is continued with nothing else.
    """

    origin: str
    classes: list[str]
    volumes: int = 0
    made_with: dict[str, Any] = field(default_factory=dict)


class ExampleFolder:
    """Volumes with their targets, which stay on disk.

    Each volume has inputs ``(variants, slices, rows, columns)`` float16, and at least one of
    targets ``(variants or 1, slices, rows, columns)`` float16 and labels ``(slices, rows,
    columns)`` uint8 (255 where nobody knows). Values are in units of the volume's level (see
    `object_level`).

    Parameters
    ----------
    path : Path
        The folder.

    Raises
    ------
    InputError
        If it holds no examples.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            known = json.loads((path / _DESCRIPTION).read_text())
            self.description = ExampleDescription(**known)
        except FileNotFoundError:
            raise InputError(f"{path} holds no examples: there is no {_DESCRIPTION}") from None
        except (ValueError, TypeError) as error:
            raise InputError(f"{path / _DESCRIPTION} describes no examples: {error}") from error

    @classmethod
    def create(
        cls, path: Path, origin: str, classes: list[str], made_with: dict[str, Any] | None = None
    ) -> ExampleFolder:
        """Start an empty folder."""
        description = ExampleDescription(origin, classes, made_with=made_with or {})
        with explain_disk_errors(path, "keep examples"):
            path.mkdir(parents=True, exist_ok=True)
            write_json(path / _DESCRIPTION, asdict(description))
        return cls(path)

    @classmethod
    def open_or_create(
        cls, path: Path, origin: str, classes: list[str], made_with: dict[str, Any]
    ) -> ExampleFolder:
        """Go on with a folder of the same kind, or start one.

        Raises
        ------
        InputError
            If the folder holds examples of another kind.
        """
        if not (path / _DESCRIPTION).exists():
            return cls.create(path, origin, classes, made_with)
        folder = cls(path)
        known = folder.description
        for what, found, wanted in (
            ("origin", known.origin, origin),
            ("classes", known.classes, classes),
            ("made_with", known.made_with, made_with),
        ):
            if found != wanted:
                raise InputError(
                    f"{path} holds other examples: their {what} is {found}, not {wanted}; "
                    "choose another folder, or remove this one"
                )
        return folder

    def add(
        self,
        inputs: NDArray[Any],
        *,
        targets: NDArray[Any] | None = None,
        labels: NDArray[Any] | None = None,
    ) -> None:
        """Add a volume; it counts once all of it is written.

        Raises
        ------
        InputError
            If a value is NaN or infinite or a label is not one of the classes, or the shapes do
            not fit together.
        """
        number = self.description.volumes
        for kind, given in (("targets", targets), ("labels", labels)):
            if given is not None and given.shape[-3:] != inputs.shape[-3:]:
                raise InputError(
                    f"{kind} of volume {number} have shape {given.shape}, inputs {inputs.shape}"
                )
        self._save(number, "inputs", _half(inputs, f"inputs of volume {number}"))
        if targets is not None:
            self._save(number, "targets", _half(targets, f"targets of volume {number}"))
        if labels is not None:
            checked = check_labels(labels, self.description.classes, f"labels of volume {number}")
            self._save(number, "labels", checked)
        plain = {**asdict(self.description), "volumes": number + 1}
        write_json(self.path / _DESCRIPTION, plain)
        self.description = ExampleDescription(**plain)

    def inputs(self, number: int) -> NDArray[np.float16]:
        """What goes in, mapped from disk."""
        return self._load(number, "inputs")

    def targets(self, number: int) -> NDArray[np.float16]:
        """What should come out, mapped from disk."""
        return self._load(number, "targets")

    def labels(self, number: int) -> NDArray[np.uint8]:
        """Labels, mapped from disk."""
        return self._load(number, "labels")

    def _save(self, number: int, kind: str, values: NDArray[Any]) -> None:
        path = self.path / f"{number:05}-{kind}.npy"
        with explain_disk_errors(path, "keep examples"):
            np.save(path, values)

    def _load(self, number: int, kind: str) -> NDArray[Any]:
        path = self.path / f"{number:05}-{kind}.npy"
        try:
            loaded: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"the examples have no readable {kind} at {path}: {error}") from error
        return loaded


def _half(values: NDArray[Any], what: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        result: NDArray[np.float16] = values.astype(np.float16)
    wrong = int((~np.isfinite(result)).sum())
    if wrong:
        raise InputError(f"{what}: {wrong} values are NaN, infinite or beyond 65504")
    return result


def check_labels(labels: NDArray[Any], classes: list[str], what: str) -> NDArray[np.uint8]:
    """Labels as they are kept: an index into the classes, or `UNKNOWN`.

    Raises
    ------
    InputError
        If a label is NaN, not whole, or neither of the two.
    """
    wrong = ~np.isin(labels, [*range(len(classes)), UNKNOWN])
    if wrong.any():
        raise InputError(
            f"{what}: {int(wrong.sum())} are neither 0 to {len(classes) - 1} "
            f"({', '.join(classes)}) nor {UNKNOWN} (unknown); the first is {labels[wrong][0]}"
        )
    checked: NDArray[np.uint8] = labels.astype(np.uint8)
    return checked


def check_examples(folder: ExampleFolder, *, slices: int, patch: int, labels: bool) -> None:
    """Look for what would spoil a training before it is begun.

    Raises
    ------
    InputError
        If there is no volume, one is too small, or a class has no voxel in the labels.
    """
    volumes, classes = folder.description.volumes, folder.description.classes
    if not volumes:
        raise InputError(f"{folder.path} holds no examples; add volumes to it")
    counts = np.zeros(UNKNOWN + 1, np.int64)
    for number in range(volumes):
        shape = folder.inputs(number).shape[1:]
        if shape[0] < slices or min(shape[1:]) < patch:
            raise InputError(
                f"volume {number} of {folder.path} has {shape} voxels; {slices} slices of "
                f"{patch} x {patch} pixels are the least"
            )
        if labels:
            counts += np.bincount(folder.labels(number).ravel(), minlength=len(counts))
    if not labels:
        return
    if len(classes) < 2:
        raise InputError(f"{folder.path} has the classes {classes}; labels need two or more")
    for name, count in zip(classes, counts, strict=False):
        if not count:
            raise InputError(
                f"class {name} has no voxel in the labels of {folder.path}; label some, or leave "
                "the class out"
            )
