"""An image in a terminal: two pixels in each character."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rich.text import Text

    from apsber_bluesky.analysis import ImagePanel

_UPPER_HALF: Final = "▀"


def half_blocks(panel: ImagePanel, columns: int) -> Text:
    """Draw the image of a panel in grey, no wider than so many characters.

    Parameters
    ----------
    panel : ImagePanel
        The image, its limits and whether its grey is the logarithm.
    columns : int
        Characters in a line.

    Returns
    -------
    rich.text.Text
        Lines of half blocks, upper pixels in front of lower ones.
    """
    from rich.text import Text

    grey = _grey(panel, columns)
    lines = []
    for upper, lower in zip(grey[::2], grey[1::2], strict=True):
        pairs = zip(upper.tolist(), lower.tolist(), strict=True)
        lines.append(
            Text.assemble(
                *((_UPPER_HALF, f"rgb({u},{u},{u}) on rgb({d},{d},{d})") for u, d in pairs)
            )
        )
    return Text("\n").join(lines)


def _grey(panel: ImagePanel, columns: int) -> NDArray[np.uint8]:
    """The image as 8 bits, scaled down by averages to an even number of rows."""
    values: NDArray[Any] = np.nan_to_num(panel.values.astype(np.float64), nan=panel.limits[0])
    low, high = panel.limits
    if panel.logarithmic:
        low = max(low, high * 1e-6, 1e-12)
        values, low, high = np.log(np.maximum(values, low)), np.log(low), np.log(high)
    step = max(1, -(-values.shape[1] // columns))
    rows, width = (size // step for size in values.shape)
    if rows >= 2:
        values = values[: rows * step, : width * step]
        values = values.reshape(rows, step, width, step).mean(axis=(1, 3))[: rows - rows % 2]
    else:
        values = np.repeat(values[:1, :columns], 2, axis=0)
    scaled = (values - low) / max(high - low, 1e-30)
    return np.asarray(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
