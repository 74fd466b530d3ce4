"""Pictures of a volume, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.core import InputError, atomic_file, explain_disk_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_DPI = 120
_LEAST_ASPECT = 0.4
_FLAT_ASPECT = 0.6
_SHOWN_PERCENTILES = (0.5, 99.8)


def draw_ortho_slices(
    xy: ArrayLike,
    xz: ArrayLike,
    yz: ArrayLike,
    path: Path,
    *,
    title: str = "",
    unit: str = "1/pixel",
    pixel_size_um: float | None = None,
) -> None:
    """Draw three orthogonal slices of a volume into a PNG file.

    All three share one grey scale, from the 0.5th to the 99.8th percentile. A volume of few rows
    is drawn taller than it is, and the picture says by how much.

    Parameters
    ----------
    xy : array_like
        Horizontal slice, shape ``(size_y, size_x)``.
    xz, yz : array_like
        Vertical slices, shapes ``(rows, size_x)`` and ``(rows, size_y)``.
    path : Path
        The file to write; it appears whole or not at all.
    title : str
        Heading.
    unit : str
        Unit of the values, for the colour bar.
    pixel_size_um : float, optional
        Pixel size at the sample [um]; without it the axes are in pixels.

    Raises
    ------
    InputError
        If a slice is empty or not two-dimensional, shapes do not fit each other, or no value is
        finite.
    StorageError
        If the place is full, forbidden or read-only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    views = [_check_view(view, name) for view, name in ((xy, "xy"), (xz, "xz"), (yz, "yz"))]
    _check_together(*views)
    figure = _compose(views, title, unit, _Scale(pixel_size_um, max(views[0].shape)))
    canvas = FigureCanvasAgg(figure)
    with explain_disk_errors(path, "draw the slices"), atomic_file(path) as partial:
        # The name of the drawing program is left out, so equal slices give equal files.
        canvas.print_figure(
            partial, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None}
        )


class _Scale:
    """Pixels as the axes show them."""

    def __init__(self, pixel_size_um: float | None, extent_px: int) -> None:
        self.factor, self.unit = 1.0, "pixel"
        if pixel_size_um is not None:
            if not np.isfinite(pixel_size_um) or pixel_size_um <= 0:
                raise InputError(f"pixel_size_um is {pixel_size_um}; give a positive number")
            in_mm = extent_px * pixel_size_um >= 1000
            self.factor = pixel_size_um / 1000 if in_mm else pixel_size_um
            self.unit = "mm" if in_mm else "µm"


def _check_view(values: ArrayLike, name: str) -> NDArray[Any]:
    view = np.asarray(values, dtype=np.float64)
    if view.ndim != 2 or view.size == 0:
        raise InputError(f"the {name} slice has shape {view.shape}; two dimensions are needed")
    return view


def _check_together(xy: NDArray[Any], xz: NDArray[Any], yz: NDArray[Any]) -> None:
    if xz.shape[1] != xy.shape[1] or yz.shape[1] != xy.shape[0] or xz.shape[0] != yz.shape[0]:
        raise InputError(
            f"slices of shapes xy {xy.shape}, xz {xz.shape}, yz {yz.shape} are not of one volume"
        )


def _compose(views: list[NDArray[Any]], title: str, unit: str, scale: _Scale) -> Figure:
    from matplotlib.figure import Figure

    low, high = _grey_range(views)
    flat = views[1].shape[0] < _FLAT_ASPECT * views[1].shape[1]
    figure = Figure(figsize=(11.5, 5.4) if flat else (14.5, 4.9), layout="compressed")
    layout = "AB;AC" if flat else "ABC"
    axes = figure.subplot_mosaic(layout)
    image = None
    for panel, name, view in zip("ABC", ("xy", "xz", "yz"), views, strict=True):
        image = _draw_view(axes[panel], view, name, scale, low, high)
    if image is not None:
        bar = figure.colorbar(image, ax=list(axes.values()), shrink=0.85, pad=0.02)
        bar.set_label(f"attenuation [{unit}]")
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def _draw_view(
    axes: Axes, view: NDArray[Any], name: str, scale: _Scale, low: float, high: float
) -> AxesImage:
    rows, columns = view.shape
    stretch = 1.0
    if name != "xy":
        stretch = max(1.0, _LEAST_ASPECT * columns / rows)
    across, down = name[0], name[1]
    half = 0.5 * scale.factor
    # x and y are counted from the rotation axis, z from the first row.
    left = -(columns // 2) * scale.factor - half
    top = (-(rows // 2) * scale.factor if name == "xy" else 0.0) - half
    extent = (left, left + columns * scale.factor, top + rows * scale.factor, top)
    image = axes.imshow(
        view, cmap="gray", vmin=low, vmax=high, extent=extent, aspect=stretch, resample=True
    )
    note = f", {down} stretched {stretch:.3g} times" if stretch > 1 else ""
    axes.set_title(f"{name} slice{note}", fontsize=11)
    axes.set_xlabel(f"{across} [{scale.unit}]")
    axes.set_ylabel(f"{down} [{scale.unit}]")
    if name != "xy" and rows <= 8:
        axes.set_yticks([row * scale.factor for row in range(rows)])
    return image


def _grey_range(views: list[NDArray[Any]]) -> tuple[float, float]:
    values = np.concatenate([view.ravel() for view in views])
    values = values[np.isfinite(values)]
    if not values.size:
        raise InputError("the slices hold no finite value; there is nothing to draw")
    low, high = (float(v) for v in np.percentile(values, _SHOWN_PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)
