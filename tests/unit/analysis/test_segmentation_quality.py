from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.analysis import (
    NotApplicable,
    SegmentedSlices,
    class_contrast,
    segmentation_confidence,
)
from apsber_bluesky.core import InputError, Verdict

CLASSES = ("air", "root", "soil")


def segmented(uncertainty: float = 0.1) -> tuple[np.ndarray, SegmentedSlices]:
    labels = np.repeat(np.arange(3, dtype=np.uint8), 20)[None, :, None].repeat(60, 2).repeat(2, 0)
    noise = 0.1 * np.random.default_rng(0).standard_normal(labels.shape)
    values = np.array([0.0, 1.0, 1.3])[labels] + noise
    doubt = np.full(labels.shape, uncertainty, np.float16)
    doubt[labels == 1] *= 2
    return values, SegmentedSlices(CLASSES, labels, doubt)


def test_the_two_classes_that_are_closest_are_named():
    values, own = segmented()
    found = class_contrast(values, own)
    assert found.value == pytest.approx(3.0, rel=0.05)
    assert found.note == "root and soil"


def test_the_confidence_is_what_is_left_of_the_doubt():
    _, own = segmented(0.15)
    found = segmentation_confidence(own)
    assert found.value == pytest.approx(1 - 0.2, abs=0.002)
    assert found.note == "least for root: 0.70"
    assert segmentation_confidence(segmented(0.4)[1]).verdict is Verdict.FAIL


def test_unknown_voxels_do_not_count():
    values, own = segmented()
    own.labels[:, :5] = 255
    assert segmentation_confidence(own).value > 0.8
    assert class_contrast(values, own).note == "root and soil"


def test_what_does_not_apply_says_why():
    values, own = segmented()
    with pytest.raises(NotApplicable, match="keeps no uncertainty"):
        segmentation_confidence(SegmentedSlices(CLASSES, own.labels))
    unknown = np.full_like(own.labels, 255)
    with pytest.raises(NotApplicable, match="no voxel"):
        segmentation_confidence(SegmentedSlices(CLASSES, unknown, own.uncertainty))
    with pytest.raises(NotApplicable, match="fewer than two"):
        class_contrast(values, SegmentedSlices(CLASSES, unknown))
    with pytest.raises(InputError, match="labels have shape"):
        class_contrast(values[:1], own)
