"""Turn the pages of a volume in Jupyter."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.analysis import grey_range
from apsber_bluesky.core import InputError
from apsber_bluesky.viewers._open_run import open_run
from apsber_bluesky.viewers._run_image import AXES, RunImage
from apsber_bluesky.viewers._run_view import RunView

_SHOWN_PIXELS: Final = 512
_LEVEL_PIXELS: Final = 384
_LABEL: Final = "labels"


class SliceBrowser:
    """Widgets that show one slice at a time; nothing else of the volume is read.

    Parameters
    ----------
    view : RunView
        The run.

    Attributes
    ----------
    widget : ipywidgets.VBox
        What Jupyter shows.
    image, axis, position, window, opacity, full : ipywidgets
        Which volume, the axis that slices are orthogonal to, which slice, black and white, how
        much of the labels covers the slice, and whether the full level is read.
    picture : ipywidgets.Image
        The slice, as PNG.

    Raises
    ------
    InputError
        If the run has no volume, or ipywidgets is not installed.
    """

    def __init__(self, view: RunView) -> None:
        widgets = _widgets()
        names = [name for name in view.image_names if name != _LABEL]
        if not names:
            raise InputError(f"run {view.uid} has no volume to browse; it is {view.about['state']}")
        self._view = view
        self._open: dict[str, RunImage] = {}
        self.image = widgets.Dropdown(options=names, description="volume")
        self.axis = widgets.ToggleButtons(options=AXES, description="across")
        self.position = widgets.IntSlider(description="slice", continuous_update=False)
        self.window = widgets.FloatRangeSlider(
            description="window", continuous_update=False, readout_format=".4g"
        )
        self.opacity = widgets.FloatSlider(
            value=0.4, min=0, max=1, step=0.05, description="labels", continuous_update=False
        )
        self.full = widgets.Checkbox(value=False, description="full resolution")
        self.legend = widgets.HTML()
        self.picture = widgets.Image(format="png", layout={"max_width": "100%"})
        self._quiet = False
        self._restart()
        for control in (self.position, self.window, self.opacity, self.full):
            control.observe(self._draw, "value")
        self.axis.observe(self._turn, "value")
        self.image.observe(self._restart, "value")
        has_labels = _LABEL in view.image_names
        controls = [self.image, self.axis, self.position, self.window, self.full]
        self.widget = widgets.VBox(
            [widgets.VBox(controls + ([self.opacity] if has_labels else [])), self.picture]
            + ([self.legend] if has_labels else [])
        )

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def _image(self, name: str) -> RunImage:
        if name not in self._open:
            self._open[name] = self._view.image(name)
        return self._open[name]

    def _restart(self, _: Any = None) -> None:
        """Begin in the middle of another volume, with a window that shows its values."""
        image = self._image(self.image.value)
        middle = image.read_slice("z", image.shape[0] // 2, image.level_for(_LEVEL_PIXELS))
        finite = middle[np.isfinite(middle)]
        low, high = (float(v) for v in (finite.min(), finite.max())) if finite.size else (0.0, 1.0)
        self._quiet = True
        # Bounds may not cross, whatever they were before.
        self.window.min, self.window.max = -np.inf, np.inf
        self.window.min, self.window.max = low, high if high > low else low + 1.0
        self.window.step = (self.window.max - self.window.min) / 1000
        self.window.value = grey_range(finite) if finite.size else (0.0, 1.0)
        self._turn()

    def _turn(self, _: Any = None) -> None:
        """Begin in the middle of another axis."""
        size = self._image(self.image.value).shape[AXES.index(self.axis.value)]
        self._quiet = True
        self.position.max = size - 1
        self.position.value = size // 2
        self._quiet = False
        self._draw()

    def _draw(self, _: Any = None) -> None:
        if self._quiet:
            return
        image = self._image(self.image.value)
        level = 0 if self.full.value else image.level_for(_LEVEL_PIXELS)
        place = (self.axis.value, self.position.value, level)
        grey = _to_grey(image.read_slice(*place), *self.window.value)
        picture = np.repeat(grey[..., None], 3, axis=2)
        if _LABEL in self._view.image_names and self.opacity.value > 0:
            labels = self._image(_LABEL)
            picture = blend(picture, labels.read_slice(*place), labels.colours, self.opacity.value)
            self.legend.value = _legend(labels)
        self.picture.value = _png(picture)


def browse_slices(run: Any = "latest", **where: Any) -> SliceBrowser:
    """Browse the slices of a run in Jupyter.

    Parameters
    ----------
    run : RunView, or whatever `open_run` takes
        The run.
    **where
        Arguments of `open_run`.

    Returns
    -------
    SliceBrowser
        The widgets; Jupyter shows them.

    Raises
    ------
    InputError
        If the run has no volume, or ipywidgets is not installed.
    """
    return SliceBrowser(run if isinstance(run, RunView) else open_run(run, **where))


def blend(
    picture: NDArray[np.uint8], labels: NDArray[Any], colours: dict[int, str], opacity: float
) -> NDArray[np.uint8]:
    """Lay the colours of labels over a picture, shape (rows, columns, 3)."""
    table = np.zeros((256, 4), np.float32)
    for label, colour in colours.items():
        table[label] = [*bytes.fromhex(colour.removeprefix("#")), opacity]
    over = table[labels]
    share = over[..., 3:]
    return np.asarray((1 - share) * picture + share * over[..., :3] + 0.5).astype(np.uint8)


def _to_grey(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values.astype(np.float32) - low) / max(high - low, 1e-30)
    return np.asarray(np.nan_to_num(np.clip(scaled, 0, 1)) * 255).astype(np.uint8)


def _png(picture: NDArray[np.uint8]) -> bytes:
    from matplotlib.image import imsave

    rows, columns = picture.shape[:2]
    # Small slices are shown larger, and few rows taller than they are, or nobody sees them.
    zoom = max(1, _SHOWN_PIXELS // max(rows, columns))
    tall = max(1, columns // (3 * rows))
    file = io.BytesIO()
    enlarged = picture.repeat(zoom * tall, axis=0).repeat(zoom, axis=1)
    imsave(file, enlarged, format="png")
    return file.getvalue()


def _legend(labels: RunImage) -> str:
    from html import escape

    return " ".join(
        f'<span style="color:{labels.colours[number]}">■</span> {escape(name)}'
        for number, name in enumerate(labels.classes)
        if number in labels.colours
    )


def _widgets() -> Any:
    try:
        import ipywidgets
    except ImportError as error:
        raise InputError(
            f"slices are browsed with ipywidgets ({error}); install apsber_bluesky[viewers]"
        ) from error
    return ipywidgets
