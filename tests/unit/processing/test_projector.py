from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import Projector

CASES = {
    "odd": (33, 7, 15.0, 3),
    "even, off centre": (48, 9, 30.1, 16),
    "two chunks of angles": (40, 70, 18.25, 17),
    "far off centre": (64, 13, 12.5, 1),
    "one projection": (32, 1, 15.5, 2),
}


def random_angles(count, seed=3):
    return np.random.default_rng(seed).uniform(-200, 400, count)


def exact(image, angles_deg, centre, projector):
    """The sum that the projector stands for, term by term, in double precision."""
    size, period = len(image), projector.geometry.period
    y, x = np.mgrid[:size, :size] - size // 2
    seen = x**2 + y**2 <= projector.radius**2
    lines = []
    for theta in np.deg2rad(angles_deg):
        place = centre + x[seen] * np.cos(theta) + y[seen] * np.sin(theta)
        frequency = np.fft.fftfreq(period)
        spectrum = np.exp(-2j * np.pi * np.outer(frequency, place)) @ image[seen]
        lines.append(np.fft.ifft(spectrum).real[:size])
    return np.array(lines)


@pytest.mark.parametrize("case", CASES)
def test_back_projection_is_the_transpose_of_projection(case):
    columns, count, centre, rows = CASES[case]
    random = np.random.default_rng(11)
    projector = Projector(columns, random_angles(count), centre)
    volume = random.standard_normal((rows, columns, columns)).astype(np.float32)
    projections = random.standard_normal((count, rows, columns)).astype(np.float32)
    forward = np.vdot(projector.project(volume).astype(np.float64), projections)
    backward = np.vdot(volume.astype(np.float64), projector.back_project(projections))
    assert forward == pytest.approx(backward, rel=1e-5)


def test_the_pair_is_exact_for_each_slice_although_two_share_a_complex_number():
    random = np.random.default_rng(5)
    projector = Projector(32, random_angles(11), 14.5)
    volume = random.standard_normal((16, 32, 32)).astype(np.float32)
    projections = random.standard_normal((11, 16, 32)).astype(np.float32)
    forward, backward = projector.project(volume), projector.back_project(projections)
    for number in range(16):
        one = np.vdot(forward[:, number].astype(np.float64), projections[:, number])
        other = np.vdot(volume[number].astype(np.float64), backward[number])
        # What a slice takes from its partner is an error of the interpolation.
        scale = np.linalg.norm(forward[:, number]) * np.linalg.norm(projections[:, number])
        assert one == pytest.approx(other, abs=3e-4 * float(scale))


@pytest.mark.parametrize("case", CASES)
def test_projections_are_the_sum_that_is_documented(case):
    columns, count, centre, rows = CASES[case]
    volume = np.random.default_rng(2).random((rows, columns, columns)).astype(np.float32)
    angles = random_angles(count)
    projector = Projector(columns, angles, centre)
    projections = projector.project(volume)
    for number in {0, rows - 1}:
        expected = exact(volume[number], angles, centre, projector)
        assert np.abs(projections[:, number] - expected).max() < 4e-4 * np.abs(expected).max()


@pytest.mark.parametrize("offset", [0.0, 6.3])
def test_a_smooth_object_has_its_exact_projections(offset):
    size, width, x0, y0 = 96, 3.0, 11.25, -7.5
    centre, angles = (size - 1) / 2 + offset, random_angles(25)
    y, x = np.mgrid[:size, :size] - size // 2
    image = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * width**2))
    projections = Projector(size, angles, centre).project(image[None].astype(np.float32))
    theta = np.deg2rad(angles)
    middle = centre + x0 * np.cos(theta) + y0 * np.sin(theta)
    s = np.arange(size)[None, :] - middle[:, None]
    expected = width * np.sqrt(2 * np.pi) * np.exp(-(s**2) / (2 * width**2))
    np.testing.assert_allclose(projections[:, 0], expected, atol=2e-4 * expected.max())


def test_a_disc_has_its_exact_projections_but_for_its_edge(disc):
    size, radius, centre = 128, 45.0, 66.0
    phantom = disc(radius, 0.01, x0=3.0, y0=-5.0)
    angles = np.arange(30) * 6.0
    image = phantom.image(size, 8)[None].astype(np.float32)
    projections = Projector(size, angles, centre).project(image)[:, 0]
    expected = phantom.sinogram(angles, size, centre)
    theta = np.deg2rad(angles)[:, None]
    s = np.arange(size) - centre - 3 * np.cos(theta) + 5 * np.sin(theta)
    inside = np.abs(s) < radius - 3
    peak = expected.max()
    assert np.abs(projections - expected)[inside].max() < 0.01 * peak
    assert np.sqrt(np.mean((projections - expected) ** 2)) < 0.003 * peak
    np.testing.assert_allclose(projections.sum(axis=1), image.sum(), rtol=2e-3)


def test_bits_do_not_depend_on_threads_or_the_order_of_angles():
    random = np.random.default_rng(8)
    angles, volume = random_angles(75), random.random((35, 24, 24)).astype(np.float32)
    projector = Projector(24, angles, 11.0)
    projections = projector.project(volume, threads=1)
    np.testing.assert_array_equal(projector.project(volume, threads=3), projections)
    np.testing.assert_array_equal(
        projector.back_project(projections, threads=3), projector.back_project(projections)
    )
    order = random.permutation(75)
    shuffled = Projector(24, angles[order], 11.0)
    np.testing.assert_array_equal(shuffled.project(volume), projections[order])
    np.testing.assert_array_equal(
        shuffled.back_project(projections[order]), projector.back_project(projections)
    )


def test_what_leaves_the_field_of_view_is_neither_seen_nor_made():
    projector = Projector(40, random_angles(6), 12.0)
    y, x = np.mgrid[:40, :40] - 20
    outside = x**2 + y**2 > 12.5**2
    volume = np.random.default_rng(1).random((2, 40, 40)).astype(np.float32)
    cleared = np.where(outside, np.float32(0), volume)
    np.testing.assert_array_equal(projector.project(volume), projector.project(cleared))
    image = projector.back_project(projector.project(volume))
    assert not image[:, outside].any()
    assert image[:, ~outside].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, [0.0], 0.0), "1 columns"),
        ((8, [], 3.5), "angles have shape"),
        ((8, [0.0, np.nan], 3.5), "angle 1 is nan"),
        ((8, [0.0], 7.5), "centre 7.5 lies outside"),
        ((8, [0.0], np.nan), "centre nan lies outside"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Projector(*arguments)


def test_arrays_of_another_shape_are_refused():
    projector = Projector(8, [0.0, 90.0], 3.5)
    with pytest.raises(InputError, match=r"volume has shape \(8, 8\)"):
        projector.project(np.zeros((8, 8), np.float32))
    with pytest.raises(InputError, match=r"\(n, rows, columns\) = \(2, rows, 8\)"):
        projector.back_project(np.zeros((3, 1, 8), np.float32))
