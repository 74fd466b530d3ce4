"""A slice as a picture that says about which rotation centre it was made."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from apsber_bluesky.core import InputError, atomic_file, explain_disk_errors

_DPI = 100
_LABEL_PX = 36
_LEAST_WIDTH_PX = 520
_SHOWN_PERCENTILES = (0.5, 99.8)


def grey_range(values: ArrayLike) -> tuple[float, float]:
    """Values to show as black and white, so that several slices can be compared.

    Raises
    ------
    InputError
        If no value is finite.
    """
    finite = np.asarray(values)[np.isfinite(values)]
    if not finite.size:
        raise InputError("the slice holds no finite value; there is nothing to draw")
    low, high = np.percentile(finite, _SHOWN_PERCENTILES)
    return float(low), float(high) if high > low else float(low) + 1.0


def draw_centre_slice(
    values: ArrayLike, path: Path, *, centre_px: float, grey: tuple[float, float]
) -> None:
    """Draw a slice into a PNG file, pixel by pixel, under the centre that it was made about.

    Parameters
    ----------
    values : array_like
        The slice, shape ``(rows, columns)``.
    path : Path
        The file to write; it appears whole or not at all.
    centre_px : float
        Column of the rotation axis that was used [pixel].
    grey : tuple of float
        Values to show as black and white; see `grey_range`.

    Raises
    ------
    InputError
        If the slice is not two-dimensional.
    StorageError
        If the place is full, forbidden or read-only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    view = np.asarray(values, dtype=np.float32)
    if view.ndim != 2 or view.size == 0:
        raise InputError(f"the slice has shape {view.shape}; two dimensions are needed")
    zoom = max(1, math.ceil(_LEAST_WIDTH_PX / view.shape[1]))
    height, width = (size * zoom for size in view.shape)
    figure = Figure(figsize=(width / _DPI, (height + _LABEL_PX) / _DPI), dpi=_DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, height / (height + _LABEL_PX)))
    axes.set_axis_off()
    axes.imshow(
        view, cmap="gray", vmin=grey[0], vmax=grey[1], interpolation="nearest", aspect="auto"
    )
    middle = (height + _LABEL_PX / 2) / (height + _LABEL_PX)
    text = f"rotation centre {centre_px:.3f} px"
    figure.text(0.02, middle, text, va="center", fontsize=13, family="monospace")
    canvas = FigureCanvasAgg(figure)
    with explain_disk_errors(path, "draw the slice"), atomic_file(path) as partial:
        # The name of the drawing program is left out, so equal slices give equal files.
        canvas.print_figure(partial, format="png", dpi=_DPI, metadata={"Software": None})
