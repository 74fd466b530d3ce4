from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import angular_weights


@pytest.mark.parametrize(
    "angles", [np.arange(180.0), np.arange(181) * 360 / 181, np.arange(90) * 4]
)
def test_even_scans_have_even_weights(angles):
    weights = angular_weights(angles)
    np.testing.assert_allclose(weights, np.pi / len(angles), rtol=1e-6)


def test_a_ray_measured_twice_counts_half():
    weights = angular_weights(np.arange(181.0))
    np.testing.assert_allclose(weights[1:-1], np.pi / 180, rtol=1e-6)
    np.testing.assert_allclose(weights[[0, -1]], np.pi / 360, rtol=1e-6)


def test_uneven_angles_weigh_by_their_gaps():
    weights = angular_weights([0, 10, 40, 60, 90, 120, 150])
    expected = np.array([20, 20, 25, 25, 30, 30, 30]) * np.pi / 180
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_a_missing_wedge_is_shared_by_all():
    np.testing.assert_allclose(angular_weights(np.arange(120.0)), np.pi / 120, rtol=1e-6)


def test_a_direction_just_below_180_is_that_of_zero():
    np.testing.assert_allclose(
        angular_weights([0, 180 - 1e-12, 90]), [np.pi / 4, np.pi / 4, np.pi / 2]
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-720, 720), min_size=1, max_size=60), st.randoms())
def test_weights_add_up_to_pi_in_any_order(angles, random):
    weights = angular_weights(angles)
    assert weights.sum() == pytest.approx(np.pi)
    assert (weights > 0).all()
    order = list(range(len(angles)))
    random.shuffle(order)
    np.testing.assert_allclose(angular_weights(np.array(angles)[order]), weights[order])


@pytest.mark.parametrize("angles", [[], [[1.0, 2.0]], [0.0, np.nan]])
def test_angles_that_are_none_are_refused(angles):
    with pytest.raises(InputError, match="angle"):
        angular_weights(angles)
