"""Widgets of napari's plugin: labels for the training of a segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from apsber_bluesky.core import InputError
from apsber_bluesky.storage import write_drawn_labels


def new_labels_widget() -> Any:
    """A button that makes an empty layer of labels, as large as a volume and at its place."""
    from magicgui import magicgui
    from napari.layers import Image, Labels

    def new_labels(volume: Image) -> Labels:
        shape = _full(volume).shape
        # Memory that nobody has drawn in is not taken.
        return Labels(
            np.zeros(shape, np.uint8),
            name=f"{volume.name} drawn",
            scale=volume.scale,
            units=volume.units,
            axis_labels=volume.axis_labels,
        )

    # magicgui reads the types themselves, which a postponed annotation does not give it here.
    new_labels.__annotations__ = {"volume": Image, "return": Labels}
    return magicgui(new_labels, call_button="New labels")


def save_labels_widget() -> Any:
    """A form that writes drawn labels to a file for ``apsber train segmenter --labels``."""
    from magicgui import magicgui
    from napari.layers import Image, Labels

    def save_labels(volume: Image, labels: Labels, classes: str, path: Path) -> None:
        from napari.utils.notifications import show_info

        count = save_labels_for_training(_full(volume), _full(labels), classes, path)
        show_info(f"{count} labelled voxels are in {path}")

    save_labels.__annotations__ = {
        "volume": Image, "labels": Labels, "classes": str, "path": Path, "return": None,
    }  # fmt: skip
    return magicgui(
        save_labels,
        call_button="Save labels",
        classes={"label": "names of 1, 2, 3, ...", "value": "background, root"},
        path={"mode": "w", "filter": "*.h5", "value": Path("labels.h5")},
    )


def save_labels_for_training(volume: Any, labels: Any, classes: str, path: Path) -> int:
    """Write labels that were drawn on a volume.

    Parameters
    ----------
    volume : array-like
        What they were drawn on; only its shape counts.
    labels : array-like of integers
        0 where nothing was drawn, else 1, 2, ...
    classes : str
        Names of 1, 2, ..., with commas between them.
    path : Path
        An HDF5 file.

    Returns
    -------
    int
        How many voxels are labelled.

    Raises
    ------
    InputError
        If the shapes differ, a name is missing or given twice, or nothing was drawn.
    StorageError
        If the disk refuses.
    """
    if labels.shape != volume.shape:
        raise InputError(
            f"labels have shape {tuple(labels.shape)}, the volume {tuple(volume.shape)}; draw them"
            " in a layer that 'New labels for training' makes"
        )
    names = [name.strip() for name in classes.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise InputError(f"the classes {classes!r} are not names that differ, with commas between")
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError(f"labels are written as HDF5; end the name {path.name!r} in .h5")
    return write_drawn_labels(path, labels, names)


def _full(layer: Any) -> Any:
    return layer.data[0] if layer.multiscale else layer.data
