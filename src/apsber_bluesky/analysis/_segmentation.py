"""How sure a segmentation is, and how far apart its classes lie."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from apsber_bluesky.analysis._arrays import check_slices
from apsber_bluesky.analysis._limits import NotApplicable, metric
from apsber_bluesky.core import InputError, Limits, QualityMetric

_CONTRAST_SOURCE = (
    "difference of the means of two classes over their pooled deviation, M. Welvaert and "
    "Y. Rosseel, PLoS ONE 8 (2013) e77089"
)
_CONFIDENCE_SOURCE = (
    "1 - entropy of the class probabilities over that of no knowledge, C. E. Shannon, Bell Syst. "
    "Tech. J. 27 (1948) 379"
)
_LEAST_VOXELS = 100


@dataclass(frozen=True, slots=True)
class SegmentedSlices:
    """What a segmentation made of the slices that quality is measured on.

    Attributes
    ----------
    classes : sequence of str
        Name of each class.
    labels : ndarray of uint8, shape (k, size, size)
        Class of each voxel; 255 is unknown.
    uncertainty : ndarray or None
        Entropy of the class probabilities as a part of the largest possible, of that shape.
    """

    classes: Sequence[str]
    labels: NDArray[np.uint8]
    uncertainty: NDArray[Any] | None = None


def class_contrast(
    slices: ArrayLike, segmented: SegmentedSlices, *, limits: Mapping[str, Limits] | None = None
) -> QualityMetric:
    """Contrast to noise of the two classes that lie closest to each other.

    Parameters
    ----------
    slices : array_like
        Slices, shape ``(k, size, size)`` [attenuation in any unit].
    segmented : SegmentedSlices
        Their labels.
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``class_contrast``; the note names the two classes.

    Raises
    ------
    NotApplicable
        If fewer than two classes have 100 voxels.
    InputError
        If shapes do not fit or a value is not finite.
    """
    stack = check_slices(slices)
    labels = segmented.labels
    if labels.shape != stack.shape:
        raise InputError(f"labels have shape {labels.shape}, the slices {stack.shape}")
    counts = np.bincount(labels.ravel(), minlength=len(segmented.classes))
    present = np.flatnonzero(counts[: len(segmented.classes)] >= _LEAST_VOXELS)
    if len(present) < 2:
        raise NotApplicable(f"fewer than two classes have {_LEAST_VOXELS} voxels")
    values = {int(n): stack[labels == n].astype(np.float64) for n in present}
    moments = {n: (own.mean(), own.var()) for n, own in values.items()}
    contrast = {
        (a, b): _contrast(moments[a], moments[b]) for a, b in itertools.combinations(moments, 2)
    }
    a, b = min(contrast, key=lambda pair: contrast[pair])
    return metric(
        "class_contrast",
        contrast[a, b],
        unit="1",
        source=_CONTRAST_SOURCE,
        note=f"{segmented.classes[a]} and {segmented.classes[b]}",
        limits=limits,
    )


def segmentation_confidence(
    segmented: SegmentedSlices, *, limits: Mapping[str, Limits] | None = None
) -> QualityMetric:
    """How sure the segmentation is on average, from 0 (any class will do) to 1 (no doubt).

    Parameters
    ----------
    segmented : SegmentedSlices
        The segmentation with its uncertainty.
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``segmentation_confidence``; the note names the class that is least sure.

    Raises
    ------
    NotApplicable
        If there is no uncertainty, or no voxel has a class.
    """
    if segmented.uncertainty is None:
        raise NotApplicable("the segmentation keeps no uncertainty")
    known = segmented.labels < len(segmented.classes)
    if not known.any():
        raise NotApplicable("no voxel has a class")
    doubt, labels = segmented.uncertainty.astype(np.float32), segmented.labels
    by_class = {
        name: float(doubt[labels == number].mean())
        for number, name in enumerate(segmented.classes)
        if (labels == number).any()
    }
    least = max(by_class, key=lambda name: by_class[name])
    return metric(
        "segmentation_confidence",
        1 - float(doubt[known].mean(dtype=np.float64)),
        unit="1",
        source=_CONFIDENCE_SOURCE,
        note=f"least for {least}: {1 - by_class[least]:.2f}",
        limits=limits,
    )


def _contrast(one: tuple[float, float], other: tuple[float, float]) -> float:
    pooled = float(np.sqrt((one[1] + other[1]) / 2))
    apart = abs(float(one[0] - other[0]))
    return apart / pooled if pooled > 0 else float("inf")
