"""Slices of the volumes of a run as pictures; no volume is read whole."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, InputError, RunFolder
from apsber_bluesky.dashboard._png import grey_png, palette_png, to_grey
from apsber_bluesky.storage import open_volume, read_volume_info

AXES: Final = ("z", "y", "x")
LABELS: Final = "labels"
#: Volumes that can be looked at, by name.
VOLUMES: Final = ("volume", "denoised", LABELS, "uncertainty")

#: A larger slice comes from a coarser level of the pyramid [pixel].
MAXIMUM_SIDE: Final = 1024

_DARKEST, _BRIGHTEST = 0.5, 99.8
_KEPT: Final = 16
_LONGEST_NAME: Final = 80
# Okabe and Ito's colours, which the colour-blind can tell apart (K. Okabe and M. Ito, 2008).
_COLOURS: Final = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


@dataclass(frozen=True, slots=True)
class _Open:
    """Levels of a volume, and the range of its values."""

    levels: tuple[Any, ...]
    low: float
    high: float
    facts: dict[str, Any]


class VolumeSlices:
    """Pictures of slices; the volumes looked at last stay open."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[Path, int], _Open] = OrderedDict()
        self._lock = threading.Lock()

    def describe(self, folder: RunFolder) -> dict[str, dict[str, Any]]:
        """The volumes of a run: ``shape``, ``unit``, ``voxel_size_um``, range, classes."""
        found = {}
        for name in VOLUMES:
            if _path(folder, name).is_dir():
                found[name] = self._volume(folder, name).facts
        return found

    def png(self, folder: RunFolder, name: str, axis: str, position: int) -> bytes:
        """One slice.

        Parameters
        ----------
        folder : RunFolder
            The run.
        name : str
            One of `VOLUMES`.
        axis : {"z", "y", "x"}
            Across which it is cut.
        position : int
            Where, in voxels of the full volume.

        Raises
        ------
        InputError
            If there is no such name, axis or position.
        DataFileError
            If the run has no such volume.
        """
        if name not in VOLUMES or axis not in AXES:
            raise InputError(f"no slice {axis!r:.20} of {name!r:.20}")
        volume, number = self._volume(folder, name), AXES.index(axis)
        full = volume.levels[0].shape
        if not 0 <= position < full[number]:
            raise InputError(f"position {position} is outside 0 to {full[number] - 1}")
        level = _level_for(volume.levels, number)
        place = min(position * level.shape[number] // full[number], level.shape[number] - 1)
        cut = tuple(place if k == number else slice(None) for k in range(3))
        pixels = np.asarray(level[cut])
        if name == LABELS:
            return palette_png(pixels.astype(np.uint8), _palette(volume.facts["classes"]))
        return grey_png(to_grey(pixels, volume.low, volume.high))

    def _volume(self, folder: RunFolder, name: str) -> _Open:
        path = _path(folder, name)
        # A volume that was made again is another one.
        try:
            key = (path, path.stat().st_ctime_ns)
        except OSError:
            raise DataFileError(f"run {folder.uid} has no {name}") from None
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        opened = _open(path, is_labels=name == LABELS)
        with self._lock:
            self._open[key] = opened
            while len(self._open) > _KEPT:
                self._open.popitem(last=False)
        return opened


def _path(folder: RunFolder, name: str) -> Path:
    path: Path = getattr(folder, name)
    return path


def _open(path: Path, *, is_labels: bool) -> _Open:
    if path.is_symlink():
        raise DataFileError(f"{path.name} is a link, and what it leads to is not shown")
    info = read_volume_info(path)
    if len(info.shape) != 3:
        raise DataFileError(f"{path.name} has {len(info.shape)} axes, not three")
    levels = tuple(open_volume(path, level) for level in range(len(info.levels)))
    low, high = (0.0, 255.0) if is_labels else _range(np.asarray(_middle(levels[-1])))
    facts = {
        "shape": list(info.shape),
        "unit": info.unit,
        "voxel_size_um": info.voxel_size_um,
        "low": low,
        "high": high,
        "classes": _classes(path) if is_labels else [],
    }
    return _Open(levels, low, high, facts)


def _middle(level: Any) -> Any:
    """The middle half of the coarsest level's slices: where the sample is, and never much."""
    first = level.shape[0] // 4
    return level[first : max(first + 1, min(level.shape[0] - first, first + 64))]


def _range(values: NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (_DARKEST, _BRIGHTEST))
    return float(low), float(high)


def _level_for(levels: tuple[Any, ...], axis: int) -> Any:
    """The finest level whose slices are not too large, else the coarsest."""
    for level in levels:
        if max(n for k, n in enumerate(level.shape) if k != axis) <= MAXIMUM_SIDE:
            return level
    return levels[-1]


def _classes(path: Path) -> list[dict[str, Any]]:
    """Value, name and colour of each class, as OME-Zarr's image-label has them."""
    import zarr

    ome: Any = zarr.open_group(path, mode="r").attrs.get("ome")
    try:
        about = ome.get("image-label", {})
        names = {p["label-value"]: p.get("class") for p in about.get("properties", [])}
        colours = {c["label-value"]: c.get("rgba") for c in about.get("colors", [])}
    except (AttributeError, KeyError, TypeError) as error:
        raise DataFileError(f"{path.name} does not say what its labels are: {error}") from error
    values = [v for v in {**names, **colours} if isinstance(v, int) and 0 <= v < 256]
    return [
        {
            "value": value,
            "name": str(names.get(value) or f"class {value}")[:_LONGEST_NAME],
            "rgba": _rgba(colours.get(value), value),
        }
        for value in sorted(values)
    ]


def _rgba(colour: Any, value: int) -> list[int]:
    is_one = isinstance(colour, list) and len(colour) == 4
    if is_one and all(isinstance(part, int) and 0 <= part < 256 for part in colour):
        return list(colour)
    return [*_COLOURS[(value - 1) % len(_COLOURS)], 255 if value else 0]


def _palette(classes: list[dict[str, Any]]) -> list[tuple[int, int, int, int]]:
    """All 256 colours; the background, and what is unknown, can be seen through."""
    palette = [(*_COLOURS[(value - 1) % len(_COLOURS)], 255) for value in range(256)]
    palette[0] = palette[255] = (0, 0, 0, 0)
    for own in classes:
        if own["value"] not in (0, 255):
            red, green, blue, alpha = own["rgba"]
            palette[own["value"]] = (red, green, blue, alpha)
    return palette
