"""Examples to learn from, in a folder: what goes in, what should come out, and patches of both."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, write_json

_DESCRIPTION = "examples.json"
# How often a patch is drawn around a voxel of a class chosen by chance, rather than anywhere.
_CLASS_FIRST = 0.5


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
    """

    origin: str
    classes: list[str]
    volumes: int = 0


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
        except FileNotFoundError:
            raise InputError(f"{path} holds no examples: there is no {_DESCRIPTION}") from None
        self.description = ExampleDescription(**known)

    @classmethod
    def create(cls, path: Path, origin: str, classes: list[str]) -> ExampleFolder:
        """Start an empty folder."""
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / _DESCRIPTION, asdict(ExampleDescription(origin, classes)))
        return cls(path)

    def add(
        self,
        inputs: NDArray[Any],
        *,
        targets: NDArray[Any] | None = None,
        labels: NDArray[Any] | None = None,
    ) -> None:
        """Add a volume."""
        number = self.description.volumes
        if not np.isfinite(inputs).all():
            raise InputError(f"volume {number} of the examples holds NaN or infinite values")
        self._save(number, "inputs", inputs.astype(np.float16))
        if targets is not None:
            self._save(number, "targets", targets.astype(np.float16))
        if labels is not None:
            self._save(number, "labels", labels.astype(np.uint8))
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
        np.save(self.path / f"{number:05}-{kind}.npy", values)

    def _load(self, number: int, kind: str) -> NDArray[Any]:
        loaded: NDArray[Any] = np.load(
            self.path / f"{number:05}-{kind}.npy", mmap_mode="r", allow_pickle=False
        )
        return loaded


@dataclass(frozen=True, slots=True)
class PatchDraw:
    """How patches are drawn.

    Attributes
    ----------
    slices : int
        Neighbouring slices that go in.
    size : int
        Rows and columns of a patch.
    labels : bool
        Whether the target is the labels.
    scale_spread : float
        Values are multiplied by ``exp`` of a normal number of this spread.
    """

    slices: int
    size: int
    labels: bool
    scale_spread: float = 0.0


def draw_patch(
    folder: ExampleFolder, draw: PatchDraw, random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A patch by chance, turned and mirrored by chance.

    Returns
    -------
    inputs : ndarray of float32, shape (slices, size, size)
        Neighbouring slices.
    target : ndarray, shape (size, size)
        The middle slice as it should be: float32, or labels.
    """
    number = int(random.integers(folder.description.volumes))
    inputs = folder.inputs(number)
    variants, depth, rows, columns = inputs.shape
    variant, half = int(random.integers(variants)), draw.slices // 2
    z = int(random.integers(half, depth - half))
    row, column = _corner(folder, number, z, draw, random, (rows, columns))
    window = (slice(row, row + draw.size), slice(column, column + draw.size))
    images = np.asarray(inputs[variant, z - half : z + half + 1, *window], np.float32)
    if draw.labels:
        target = np.asarray(folder.labels(number)[z, *window])
    else:
        targets = folder.targets(number)
        target = np.asarray(targets[min(variant, len(targets) - 1), z, *window], np.float32)
    if draw.scale_spread:
        images *= np.float32(np.exp(draw.scale_spread * random.standard_normal()))
    return _turn(images, target, random)


def _corner(
    folder: ExampleFolder,
    number: int,
    z: int,
    draw: PatchDraw,
    random: np.random.Generator,
    shape: tuple[int, int],
) -> tuple[int, int]:
    last = [length - draw.size for length in shape]
    if draw.labels and random.uniform() < _CLASS_FIRST:
        labels = folder.labels(number)[z]
        places = np.flatnonzero(labels == random.choice(np.unique(labels)))
        place = divmod(int(random.choice(places)), shape[1])
        shifts = random.integers(0, draw.size, 2)
        row, column = (
            int(np.clip(at - shift, 0, end))
            for at, shift, end in zip(place, shifts, last, strict=True)
        )
        return row, column
    return int(random.integers(last[0] + 1)), int(random.integers(last[1] + 1))


def _turn(
    images: NDArray[np.float32], target: NDArray[Any], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    if random.integers(2):
        images = images[::-1]
    if random.integers(2):
        images, target = images[:, ::-1], target[::-1]
    quarter = int(random.integers(4))
    images, target = np.rot90(images, quarter, (1, 2)), np.rot90(target, quarter)
    return np.ascontiguousarray(images), np.ascontiguousarray(target)
