"""Reader of napari's plugin: the volumes of a run as layers, read as far as they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apsber_bluesky.analysis import grey_range
from apsber_bluesky.core import InputError, StorageError
from apsber_bluesky.viewers._open_run import folder_of, is_address, open_source
from apsber_bluesky.viewers._run_image import AXES, RunImage
from apsber_bluesky.viewers._run_source import RunSource

LayerData = tuple[Any, dict[str, Any], str]
_LABELS = "labels"


def get_reader(path: str | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """Say whether this is a run, or a volume of one; napari asks it of whatever is opened.

    Parameters
    ----------
    path : str or sequence of str
        Folder of a run, its ``ledger.sqlite``, one of its volumes such as ``denoised.zarr``, or
        the address of a run in Tiled.

    Returns
    -------
    callable or None
        What reads it; None leaves it to other plugins.
    """
    if not isinstance(path, str):
        return None
    if is_address(path):
        return read_layers
    try:
        folder_of(Path(path))
    except StorageError:
        return None
    return read_layers


def read_layers(path: str) -> list[LayerData]:
    """The volumes of a run as napari wants them.

    Images are multiscale and lazy: what napari does not draw is not read, but for one slice of
    the coarsest level, which gives black and white.

    Raises
    ------
    ApsberError
        If the run cannot be read, or has no volume yet.
    """
    source = open_source(path if is_address(path) else Path(path))
    names = source.image_names()
    chosen = Path(path).name.removesuffix(".zarr")
    if not is_address(path) and path.rstrip("/").endswith(".zarr"):
        names = tuple(name for name in names if name == chosen)
    if not names:
        raise InputError(f"{path} has no volume that can be shown yet; 'apsber status' says why")
    about = source.describe()
    title = f"{about['sample'] or 'sample'} {about['scan_id']}"
    return [_layer(source, source.image(name), title, names) for name in names]


def _layer(source: RunSource, image: RunImage, title: str, names: Sequence[str]) -> LayerData:
    levels = [_lazy(level) for level in image.levels]
    options: dict[str, Any] = {
        "name": f"{title} {image.name}",
        "axis_labels": AXES,
        "multiscale": len(levels) > 1,
        "metadata": {
            "run_uid": source.uid,
            "quantity": image.quantity,
            "unit": image.unit,
            "classes": dict(enumerate(image.classes)),
        },
    }
    if image.voxel_size_um is not None:
        options |= {"scale": (image.voxel_size_um,) * 3, "units": ("um",) * 3}
    data = levels if len(levels) > 1 else levels[0]
    if image.name == _LABELS:
        return data, options | _label_options(image), "labels"
    # The last of them is the cleanest; the others lie below and are switched on when wanted.
    seen = "denoised" if "denoised" in names else "volume"
    options |= {"visible": image.name == seen or len(names) == 1}
    if image.name == "uncertainty":
        options |= {"contrast_limits": (0.0, 1.0), "colormap": "magma", "opacity": 0.6}
    else:
        options |= {"contrast_limits": _black_and_white(image), "colormap": "gray"}
    return data, options, "image"


def _label_options(image: RunImage) -> dict[str, Any]:
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, str] = dict.fromkeys((None, 0), "transparent")
    colours.update(image.colours.items())
    numbers = range(len(image.classes))
    return {
        "opacity": 0.5,
        "colormap": DirectLabelColormap(color_dict=colours),
        "features": {"index": list(numbers), "class": [image.classes[n] for n in numbers]},
    }


def _black_and_white(image: RunImage) -> tuple[float, float]:
    coarse = len(image.levels) - 1
    middle = image.read_slice("z", image.shape[0] // 2, coarse)
    return grey_range(middle) if np.isfinite(middle).any() else (0.0, 1.0)


def _lazy(level: Any) -> Any:
    import dask.array

    # Without a name dask would read the array to give it one.
    return dask.array.from_array(level, chunks=level.chunks, name=False)  # type: ignore[no-untyped-call]
