"""The panels of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OVERLAY_OPACITY: Final = 0.5
_NO_COLOUR: Final = "#999999"
_BAR_SHARE: Final = 0.3
_NICE: Final = (1.0, 2.0, 5.0)
_LEAST_ASPECT: Final = 0.4
_STYLES: Final = ("solid", "dashed", "dotted", "dashdot")


class Panel(Protocol):
    """Something that draws itself."""

    def draw(self, axes: Axes) -> None:
        """Draw into empty axes."""
        ...


@dataclass(frozen=True, slots=True)
class LabelOverlay:
    """Labels over an image.

    Attributes
    ----------
    labels : ndarray of unsigned integers, shape (rows, columns)
        Class of each pixel; 0 (background) and 255 (unknown) stay clear.
    names, colours : dict
        By class; a class without a colour is grey.
    """

    labels: NDArray[Any]
    names: Mapping[int, str]
    colours: Mapping[int, str]

    def colour(self, label: int) -> str:
        """Colour of a class."""
        return self.colours.get(label, _NO_COLOUR)

    def shown(self) -> list[int]:
        """Classes that are in the image and drawn."""
        return [int(label) for label in np.unique(self.labels) if label not in (0, 255)]


@dataclass(frozen=True, slots=True)
class ImagePanel:
    """An image with its scale.

    Attributes
    ----------
    title : str
        What it is.
    values : ndarray, shape (rows, columns)
        The image.
    limits : tuple of float
        Black and white.
    pixel_size_um : float or None
        Edge of a pixel [um]; None draws the bar in pixels.
    overlay : LabelOverlay or None
        Labels to draw over it.
    logarithmic : bool
        Whether grey is the logarithm.
    bar : bool
        Whether it has a scale bar.
    axes_names : tuple of str or None
        Names of the x and y axes of an image that is no picture of the sample.
    y_limits : tuple of float or None
        Values at the top and at the bottom of such an image.
    unit : str
        Of the values, for a colour bar; none is drawn without.
    colours : str
        Colour map.
    """

    title: str
    values: NDArray[Any]
    limits: tuple[float, float]
    pixel_size_um: float | None = None
    overlay: LabelOverlay | None = None
    logarithmic: bool = False
    bar: bool = True
    axes_names: tuple[str, str] | None = None
    y_limits: tuple[float, float] | None = None
    unit: str = ""
    colours: str = "gray"

    def draw(self, axes: Axes) -> None:
        """Draw the image, its labels and its scale bar."""
        rows, columns = self.values.shape
        # Few rows are drawn taller than they are, and the title says so.
        stretch = max(1.0, _LEAST_ASPECT * columns / rows)
        options: dict[str, Any] = {"aspect": "auto" if self.axes_names else stretch}
        if self.y_limits is not None:
            options["extent"] = (0, columns, self.y_limits[1], self.y_limits[0])
        image = axes.imshow(
            self.values, cmap=self.colours, norm=self._norm(), interpolation="nearest", **options
        )
        stretched = stretch > 1 and not self.axes_names
        note = f", {stretch:.3g} times taller" if stretched else ""
        axes.set_title(self.title + note, fontsize=11)
        if self.overlay is not None:
            _draw_overlay(axes, self.overlay, stretch)
        if self.axes_names is not None:
            axes.set_xlabel(self.axes_names[0])
            axes.set_ylabel(self.axes_names[1])
        else:
            axes.set_xticks([])
            axes.set_yticks([])
        if self.bar:
            _draw_scale_bar(axes, rows, columns, self.pixel_size_um)
        if self.unit:
            axes.figure.colorbar(image, ax=axes, shrink=0.8, label=self.unit)

    def _norm(self) -> Any:
        from matplotlib.colors import LogNorm, Normalize

        low, high = self.limits
        if self.logarithmic:
            low = max(low, high * 1e-6, 1e-12)
            return LogNorm(low, max(high, low * 10), clip=True)
        return Normalize(low, high)


@dataclass(frozen=True, slots=True)
class CurvesPanel:
    """Curves over one axis.

    Attributes
    ----------
    title, x_name, y_name : str
        What it shows.
    curves : sequence of tuple
        ``(name, x, y, colour)`` of each; an empty name is not listed.
    logarithmic : bool
        Whether y is drawn so.
    steps : bool
        Whether the curves are histograms.
    """

    title: str
    x_name: str
    y_name: str
    curves: Sequence[tuple[str, NDArray[Any], NDArray[Any], str]]
    logarithmic: bool = False
    steps: bool = False

    def draw(self, axes: Axes) -> None:
        """Draw the curves, each in its own style as well as colour."""
        for number, (name, x, y, colour) in enumerate(self.curves):
            axes.plot(
                x,
                y,
                color=colour,
                linestyle=_STYLES[number % len(_STYLES)],
                drawstyle="steps-mid" if self.steps else "default",
                linewidth=1.3,
                label=name,
            )
        axes.set_title(self.title, fontsize=11)
        axes.set_xlabel(self.x_name)
        axes.set_ylabel(self.y_name)
        if self.logarithmic and any(np.any(y > 0) for _, _, y, _ in self.curves):
            axes.set_yscale("log")
        axes.margins(x=0)
        axes.locator_params(axis="x", nbins=5)
        axes.ticklabel_format(axis="x", scilimits=(-3, 5))
        axes.grid(color="0.9")
        if any(name for name, *_ in self.curves):
            axes.legend(fontsize=9, frameon=False)


@dataclass(frozen=True, slots=True)
class MissingPanel:
    """Says what is not there, and why."""

    title: str
    reason: str

    def draw(self, axes: Axes) -> None:
        """Draw an empty frame with the reason in it."""
        axes.set_title(self.title, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("0.95")
        told = "\n".join(fill(plain_text(line, 400), 46) for line in self.reason.splitlines())
        text = axes.text(0.5, 0.5, told, ha="center", va="center", color="0.3", style="italic")
        # However long it is, the panels beside it keep their place.
        text.set_in_layout(False)


def _draw_overlay(axes: Axes, overlay: LabelOverlay, aspect: float) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch

    shown = overlay.shown()
    picture = np.zeros((*overlay.labels.shape, 4))
    for label in shown:
        picture[overlay.labels == label] = to_rgba(overlay.colour(label), _OVERLAY_OPACITY)
    axes.imshow(picture, interpolation="nearest", aspect=aspect)
    patches = [
        Patch(color=overlay.colour(label), label=overlay.names.get(label, f"class {label}"))
        for label in shown
    ]
    if patches:
        axes.legend(handles=patches, loc="upper right", fontsize=8, framealpha=0.8)


def _draw_scale_bar(axes: Axes, rows: int, columns: int, pixel_size_um: float | None) -> None:
    from matplotlib.patheffects import withStroke

    length_um = nice_length(columns * _BAR_SHARE * (pixel_size_um or 1.0))
    length_px = length_um / (pixel_size_um or 1.0)
    left, bottom = 0.04 * columns, 0.94 * (rows - 1)
    outline = [withStroke(linewidth=5, foreground="black")]
    axes.plot(
        [left, left + length_px], [bottom, bottom], color="white", linewidth=3,
        solid_capstyle="butt", path_effects=outline,
    )  # fmt: skip
    axes.text(
        left + length_px / 2, bottom - 0.02 * rows, _length(length_um, pixel_size_um),
        color="white", ha="center", va="bottom", fontsize=10,
        path_effects=[withStroke(linewidth=2.5, foreground="black")],
    )  # fmt: skip


def plain_text(text: str, at_most: int) -> str:
    """One line without control characters or formulas: it may come from outside."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line if len(line) <= at_most else f"{line[: at_most - 1]}…"
    return line.replace("$", r"\$")


def nice_length(at_most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that is not longer."""
    power = 10.0 ** math.floor(math.log10(at_most))
    return max(step for step in _NICE if step * power <= at_most * (1 + 1e-9)) * power


def _length(length_um: float, pixel_size_um: float | None) -> str:
    if pixel_size_um is None:
        return f"{length_um:g} px"
    if length_um >= 1000:
        return f"{length_um / 1000:g} mm"
    return f"{length_um:g} µm" if length_um >= 1 else f"{length_um * 1000:g} nm"
