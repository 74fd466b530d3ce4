from __future__ import annotations

import itertools

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation import PHANTOMS, Ellipsoid, Phantom, make_phantom

ROWS, COLUMNS = 24, 96
CENTRE = (COLUMNS - 1) / 2 + 3.25
UNIT = 0.44 * COLUMNS


def project(phantom: Phantom, angle_deg: float, centre: float = CENTRE) -> np.ndarray:
    return phantom.project(angle_deg, rows=ROWS, columns=COLUMNS, centre_px=centre)


@pytest.mark.parametrize("angle_deg", [0.0, 17.0, 90.0, 233.3])
def test_projection_of_a_disc_is_its_chord_averaged_over_each_pixel(angle_deg: float) -> None:
    radius, x, y, density = 0.4, 0.3, -0.2, 1.5
    disc = Phantom("disc", (Ellipsoid(density, (radius, radius, np.inf), (x, y, 0.0)),))
    theta = np.deg2rad(angle_deg)
    axis = CENTRE + (x * np.cos(theta) + y * np.sin(theta)) * UNIT
    # Independent of the closed form: the chord, sampled densely within each pixel.
    fine = np.arange(COLUMNS)[:, None] - 0.5 + (np.arange(4000) + 0.5) / 4000 - axis
    chord = 2 * np.sqrt(np.maximum((radius * UNIT) ** 2 - fine**2, 0.0))
    expected = (density / UNIT * chord).mean(axis=1)
    image = project(disc, angle_deg)
    np.testing.assert_allclose(image, np.broadcast_to(expected, image.shape), atol=2e-5)


def test_projection_of_a_turned_ellipsoid_is_the_projection_turned() -> None:
    ellipse = Ellipsoid(1.0, (0.6, 0.2, 0.5), (0.0, 0.0, 0.0), turn_deg=35.0)
    straight = Ellipsoid(1.0, (0.6, 0.2, 0.5))
    turned = project(Phantom("turned", (ellipse,)), 50.0)
    np.testing.assert_allclose(turned, project(Phantom("straight", (straight,)), 15.0), atol=1e-6)


def test_rows_of_a_ball_are_averaged_over_the_height_of_a_pixel() -> None:
    radius = 0.2
    ball = Phantom("ball", (Ellipsoid(1.0, (radius, radius, radius)),))
    image = project(ball, 0.0).astype(np.float64)
    volume = 4 / 3 * np.pi * radius**3
    # The sum over a projection is the volume times the density, in object units.
    assert image.sum() / UNIT**2 == pytest.approx(volume, rel=2e-3)
    np.testing.assert_allclose(image, image[::-1], atol=1e-6)


@pytest.mark.parametrize("name", PHANTOMS)
def test_mass_is_the_same_at_every_angle_and_nothing_leaves_the_frame(name: str) -> None:
    phantom = make_phantom(name)
    images = [project(phantom, angle) for angle in np.arange(0.0, 360.0, 22.5)]
    masses = np.array([image.sum(dtype=np.float64) for image in images])
    np.testing.assert_allclose(masses, masses[0], rtol=1e-5)
    assert max(image[:, [0, -1]].max() for image in images) < 1e-6


@pytest.mark.parametrize("name", PHANTOMS)
def test_opposite_projections_mirror_each_other(name: str) -> None:
    middle = (COLUMNS - 1) / 2
    phantom = make_phantom(name)
    np.testing.assert_allclose(
        project(phantom, 40.0, middle), project(phantom, 220.0, middle)[:, ::-1], atol=1e-4
    )


@pytest.mark.parametrize("name", PHANTOMS)
def test_largest_line_integral_suits_a_camera(name: str) -> None:
    phantom = make_phantom(name)
    largest = max(
        phantom.project(angle, rows=96, columns=COLUMNS, centre_px=CENTRE).max()
        for angle in range(0, 180, 15)
    )
    assert 1.4 < largest < 2.0


@pytest.mark.parametrize("name", PHANTOMS)
@pytest.mark.parametrize(("angle_deg", "axis"), [(0.0, 1), (90.0, 2)])
def test_volume_summed_along_the_beam_is_the_projection(
    name: str, angle_deg: float, axis: int
) -> None:
    phantom = make_phantom(name)
    rows, size = 32, 64
    image = phantom.project(angle_deg, rows=rows, columns=size, centre_px=size // 2)
    difference = phantom.volume(rows, size).sum(axis=axis) - image
    assert np.sqrt(np.mean(difference**2)) < 0.006
    assert abs(difference.mean()) < 5e-4


def test_volume_of_the_disc_holds_its_attenuation_and_area() -> None:
    size = 64
    volume = make_phantom("disc").volume(2, size)
    shape = make_phantom("disc").shapes[0]
    unit = 0.44 * size
    assert volume.max() == pytest.approx(shape.density / unit, rel=1e-6)
    area = volume[0].sum() / volume.max()
    assert area == pytest.approx(np.pi * (shape.semi_axes[0] * unit) ** 2, rel=2e-3)


def test_volumes_hold_no_negative_attenuation() -> None:
    assert min(make_phantom(name).volume(16, 48).min() for name in PHANTOMS) > -1e-6


def test_soil_has_many_parts_and_is_always_the_same() -> None:
    first, second = make_phantom("soil"), make_phantom("soil")
    assert len(first.shapes) >= 30
    assert first == second


def test_phantoms_differ() -> None:
    images = [project(make_phantom(name), 30.0) for name in PHANTOMS]
    for one, other in itertools.combinations(images, 2):
        assert np.abs(one - other).max() > 0.1


def test_unknown_phantom_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'banana'.*disc.*shepp_logan.*soil"):
        make_phantom("banana")
