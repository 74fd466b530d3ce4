"""Probabilities that mean what they say, and how that is measured."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned import (
    UNKNOWN,
    calibration_error,
    count_labels,
    dice_coefficients,
    fit_temperature,
)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    random = np.random.default_rng(1)
    true_logits = 3 * random.standard_normal((20_000, 4))
    likely = softmax(true_logits, axis=1)
    labels = (likely.cumsum(axis=1) < random.uniform(size=(20_000, 1))).sum(axis=1).astype(np.uint8)
    logits = (true_logits * temperature).astype(np.float32)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    assert calibration_error(logits, labels, found) < 0.012
    if temperature != 1:
        assert calibration_error(logits, labels, 1.0) > 0.05


def test_the_calibration_error_is_that_which_one_finds_by_hand() -> None:
    # Two voxels that are sure to 0.9 and one of them right, two sure to 0.6 and both right.
    likely = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])
    labels = np.array([0, 1, 1, 0], np.uint8)
    found = calibration_error(np.log(likely).astype(np.float32), labels, 1.0)
    assert found == pytest.approx(0.5 * 0.4 + 0.5 * 0.4, abs=1e-6)


def test_dice_coefficients_leave_out_what_nobody_knows() -> None:
    truth = np.array([[0, 0, 1, 1, UNKNOWN]], np.uint8)
    found = np.array([[0, 1, 1, 1, 2]], np.uint8)
    counts = count_labels(truth, found, 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 2, 0], [0, 0, 0]])
    np.testing.assert_allclose(dice_coefficients(counts), [2 / 3, 4 / 5, np.nan])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, np.uint8), "no labelled voxel"),
        (np.full((2, 3), np.nan), np.zeros(2, np.uint8), "6 logits are NaN"),
        (np.zeros((2, 3)), np.array([0, 3], np.uint8), "label 3 is none of 3 classes"),
        (np.zeros((2, 3)), np.zeros(3, np.uint8), r"shape \(2, 3\), labels \(3,\)"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    logits: np.ndarray, labels: np.ndarray, message: str
) -> None:
    for measure in (fit_temperature, lambda *given: calibration_error(*given, 1.0)):
        with pytest.raises(InputError, match=message):
            measure(logits.astype(np.float32), labels)
