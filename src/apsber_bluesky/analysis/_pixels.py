"""Pixels that are saturated, and pixels that do not answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from apsber_bluesky.analysis._limits import NotApplicable, metric
from apsber_bluesky.core import Limits, QualityMetric

_DEAD_SOURCE = (
    "pixels that answer with less than 30 % of their neighbours' median, as normalisation "
    "replaces them"
)
_STUCK_SOURCE = "pixels that say the same in every frame, while their neighbours count"
_NEIGHBOURHOOD = 5
_LEAST_FRAMES = 4
# Poisson noise leaves a pixel that expects 20 counts without any once in 5e8 cases.
_LEAST_COUNTS = 20.0


class PixelSums:
    """Sums over frames of a detector, by which its pixels are judged.

    Parameters
    ----------
    full_scale : float or None
        Counts at which a pixel is saturated; None if it never is.

    Attributes
    ----------
    frames : int
        Frames that were taken in.
    """

    def __init__(self, full_scale: float | None) -> None:
        self._full_scale = full_scale
        self.frames = 0
        self._pixels = self._saturated = 0
        self._worst = 0
        self._least: NDArray[Any] | None = None
        self._most: NDArray[Any] | None = None
        self._total: NDArray[np.float64] | None = None

    def take(self, frames: NDArray[Any], *, single: bool = False) -> None:
        """Take in frames, shape ``(n, rows, columns)``.

        `single` pixels are followed only if it is asked for: it costs more than counting those
        that are saturated.
        """
        self.frames += len(frames)
        self._pixels += frames.size
        if self._full_scale is not None:
            for frame in frames:
                # Most frames have no such pixel, and their maximum is quickly found.
                if frame.max(initial=0) >= self._full_scale:
                    own = int(np.count_nonzero(frame >= self._full_scale))
                    self._saturated += own
                    self._worst = max(self._worst, own)
        if single and len(frames):
            self._follow(frames)

    def _follow(self, frames: NDArray[Any]) -> None:
        least, most = frames.min(axis=0), frames.max(axis=0)
        total = frames.sum(axis=0, dtype=np.float64)
        if self._least is None or self._most is None or self._total is None:
            self._least, self._most, self._total = least, most, total
            return
        np.minimum(self._least, least, out=self._least)
        np.maximum(self._most, most, out=self._most)
        self._total += total

    @property
    def stuck(self) -> NDArray[np.bool_]:
        """Pixels that said the same in every frame that was followed, while neighbours count.

        Raises
        ------
        NotApplicable
            If fewer than 4 frames were followed.
        """
        if self._least is None or self._most is None or self._total is None:
            raise NotApplicable("no frames were followed")
        if self.frames < _LEAST_FRAMES:
            raise NotApplicable(
                f"{self.frames} frames are too few to tell pixels that do not answer"
            )
        constant = self._least == self._most
        if self._full_scale is not None:
            masked = constant & (self._least >= self._full_scale)
        else:
            masked = np.zeros_like(constant)
        around = ndimage.median_filter(
            np.where(masked, 0, self._total), size=_NEIGHBOURHOOD, mode="nearest"
        )
        return np.asarray(masked | (constant & (around >= _LEAST_COUNTS)))

    @property
    def saturated_part(self) -> float:
        """Part of all pixels so far that were saturated, but for those that always are."""
        always = 0
        if self._least is not None and self._full_scale is not None:
            always = int(np.count_nonzero(self._least >= self._full_scale)) * self.frames
        return (self._saturated - always) / self._pixels if self._pixels else 0.0

    def saturation(self, *, limits: Mapping[str, Limits] | None = None) -> QualityMetric:
        """The quality number ``saturated_pixels``, from 0 to 1.

        Raises
        ------
        NotApplicable
            If no frame was taken in, or the pixels cannot be saturated.
        """
        if self._full_scale is None:
            raise NotApplicable("pixels of this type have no full scale; give the detector's")
        if not self._pixels:
            raise NotApplicable("no frame was looked at")
        return metric(
            "saturated_pixels",
            self.saturated_part,
            unit="1",
            source="detector full scale",
            note=(
                f"full scale is {self._full_scale:g} counts; {self._worst} pixels in the worst of"
                f" {self.frames} frames"
            ),
            limits=limits,
        )


def dead_pixels(
    mask: NDArray[np.bool_],
    *,
    from_flats: bool = True,
    limits: Mapping[str, Limits] | None = None,
) -> QualityMetric:
    """Part of the pixels that do not answer.

    Parameters
    ----------
    mask : ndarray of bool, shape (rows, columns)
        True where a pixel does not answer.
    from_flats : bool
        Whether that was found from flats, or else from frames of the run.
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``dead_pixels``, from 0 to 1.
    """
    number = int(np.count_nonzero(mask))
    return metric(
        "dead_pixels",
        number / mask.size if mask.size else 0.0,
        unit="1",
        source=_DEAD_SOURCE if from_flats else _STUCK_SOURCE,
        note=f"{number} of {mask.size} pixels",
        limits=limits,
    )
