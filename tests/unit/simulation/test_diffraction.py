"""The simulated diffraction pattern, held against what the textbooks say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from apsber_bluesky.core import ImageKey, InputError
from apsber_bluesky.simulation import (
    Crystal,
    Diffraction,
    DiffractionGeometry,
    ScatteringSample,
    sphere_form_factor,
)
from apsber_bluesky.simulation._diffraction import SPHERE_SECOND_MAXIMUM

GEOMETRY = DiffractionGeometry(128, 160, distance_mm=150.0, beam_centre_px=(61.5, 82.25))
SPHERES = ScatteringSample(crystal=None, water_rate=0.0, air_rate=0.0)
SMALL = Crystal(cell_A=(40.0, 50.0, 60.0), b_factor_A2=0.0)
SPOTS = ScatteringSample(crystal=SMALL, sphere_rate=0.0, water_rate=0.0, air_rate=0.0)


def radial_average(image: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    rows, columns = np.indices(image.shape)
    radius = np.rint(np.hypot(rows - centre[0], columns - centre[1])).astype(int).ravel()
    return np.bincount(radius, image.ravel()) / np.maximum(np.bincount(radius), 1)


def test_equal_arguments_give_equal_photons_and_others_do_not():
    first, again = (Diffraction(GEOMETRY, seed=3) for _ in range(2))
    photons = first.photons(12.5, number=4, exposure_s=0.1)
    assert photons.shape == (128, 160)
    assert (photons == again.photons(12.5, number=4, exposure_s=0.1)).all()
    for other in (
        again.photons(12.5, number=5, exposure_s=0.1),
        Diffraction(GEOMETRY, seed=4).photons(12.5, number=4, exposure_s=0.1),
        again.photons(40.0, number=4, exposure_s=0.1),
    ):
        assert (photons != other).any()


def test_photons_follow_the_rate_and_the_exposure_time_with_poisson_noise():
    diffraction = Diffraction(GEOMETRY, SPHERES)
    expected = 0.25 * diffraction.rate(0.0)
    counts = [diffraction.photons(0.0, number=n, exposure_s=0.25) for n in range(50)]
    bright = expected > 20
    spread = (np.mean(counts, axis=0) - expected)[bright] / np.sqrt(expected[bright] / 50)
    assert abs(spread.mean()) < 0.1
    assert spread.std() == pytest.approx(1.0, abs=0.05)
    variance = np.var(counts, axis=0, ddof=1)[bright] / expected[bright]
    assert variance.mean() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("energy_keV", [8.0, 12.398, 20.0])
@pytest.mark.parametrize("radius_A", [60.0, 90.0])
def test_the_second_maximum_of_the_spheres_lies_where_rayleigh_has_it(energy_keV, radius_A):
    geometry = DiffractionGeometry(
        200, 200, distance_mm=200.0, energy_keV=energy_keV, beam_centre_px=(99.0, 101.0)
    )
    sample = ScatteringSample(
        crystal=None, sphere_radius_A=radius_A, water_rate=0.0, air_rate=0.0, beam_stop_mm=0.01
    )
    profile = radial_average(Diffraction(geometry, sample).rate(0.0), (99.0, 101.0))
    # tan x = 3 x / (3 - x^2): where the slope of the form factor is zero beside x = 0.
    slope = brentq(lambda x: (3 - x * x) * math.sin(x) - 3 * x * math.cos(x), 5.0, 7.0)
    assert slope == pytest.approx(SPHERE_SECOND_MAXIMUM, abs=1e-9)
    wavelength_A = 12.398419843 / energy_keV
    two_theta = 2 * math.asin(slope / radius_A * wavelength_A / (4 * math.pi))
    wanted = 200.0 * math.tan(two_theta) / 0.075
    minimum = int(wanted * 4.4934 / slope)
    assert minimum + np.argmax(profile[minimum : int(1.5 * wanted)]) == pytest.approx(wanted, abs=1)
    assert geometry.radius_px(slope / radius_A) == pytest.approx(wanted, rel=1e-6)


def test_the_form_factor_has_guiniers_slope_and_the_first_zero_of_the_sphere():
    small = np.array([0.0, 1e-3, 0.02, 0.1])
    guinier = np.exp(-(small**2) / 5)
    np.testing.assert_allclose(sphere_form_factor(small), guinier, rtol=2e-6)
    assert sphere_form_factor(np.array([4.493409457909064]))[0] < 1e-20


def test_every_spot_obeys_braggs_law():
    diffraction = Diffraction(GEOMETRY, SPOTS, seed=5)
    assert diffraction.reflections is not None
    seen = 0
    for angle in range(180):
        found = diffraction.reflections.at(angle)
        for indices, direction in zip(found.indices, found.directions, strict=True):
            d_A = 1 / math.sqrt(
                sum((h / a) ** 2 for h, a in zip(indices, SMALL.cell_A, strict=True))
            )
            two_theta = 2 * math.asin(GEOMETRY.wavelength_A / (2 * d_A))
            # Mosaic blocks that are turned by up to five widths still shine.
            assert math.acos(direction[2]) == pytest.approx(two_theta, abs=math.radians(5 * 0.25))
            seen += 1
    assert seen > 200


def test_a_spot_lies_where_its_beam_meets_the_detector_with_all_its_photons():
    diffraction = Diffraction(GEOMETRY, SPOTS, seed=5)
    angle, (row, column, _) = max(
        ((angle, spot) for angle in range(0, 180, 3) for spot in diffraction.spots(angle)
         if 12 < spot[0] < 116 and 12 < spot[1] < 148),
        key=lambda found: found[1][2],
    )  # fmt: skip
    patch = diffraction.rate(angle)[int(row) - 4 : int(row) + 6, int(column) - 4 : int(column) + 6]
    rows, columns = np.indices(patch.shape)
    others = sum(
        p for r, c, p in diffraction.spots(angle) if abs(r - row) < 9 and abs(c - column) < 9
    )
    assert patch.sum() == pytest.approx(others, rel=0.02)
    assert (patch * rows).sum() / patch.sum() + int(row) - 4 == pytest.approx(row, abs=0.3)
    assert (patch * columns).sum() / patch.sum() + int(column) - 4 == pytest.approx(column, abs=0.3)


def test_a_reflection_shines_for_as_long_as_its_mosaic_is_wide():
    """The rocking curve of a reflection whose plane of scattering is turned by the axis."""
    widths = []
    for mosaic_deg in (0.2, 0.4):
        crystal = Crystal(cell_A=SMALL.cell_A, mosaic_deg=mosaic_deg, b_factor_A2=0.0)
        sample = ScatteringSample(crystal=crystal, sphere_rate=0.0, water_rate=0.0, air_rate=0.0)
        reflections = Diffraction(GEOMETRY, sample, seed=5).reflections
        assert reflections is not None
        angles = np.arange(0.0, 180.0, 0.05)
        curves: dict[tuple[int, ...], list[float]] = {}
        for angle in angles:
            found = reflections.at(angle)
            for indices, photons in zip(found.indices.tolist(), found.photons_per_s, strict=True):
                curves.setdefault(tuple(indices), []).append(float(photons))
        # How many steps each reflection is above half of its own maximum.
        widths.append({h: sum(p > 0.5 * max(curve) for p in curve) for h, curve in curves.items()})
    common = [h for h in widths[0] if h in widths[1] and 4 < widths[0][h] < 40]
    ratio = np.median([widths[1][h] / widths[0][h] for h in common])
    assert len(common) > 50
    assert ratio == pytest.approx(2.0, rel=0.1)


def test_friedel_mates_are_equally_strong():
    reflections = Diffraction(GEOMETRY, SPOTS, seed=5).reflections
    assert reflections is not None
    strengths = dict(
        zip(map(tuple, reflections.indices.tolist()), reflections._strengths, strict=True)
    )
    assert all(strengths[(-a, -b, -c)] == value for (a, b, c), value in strengths.items())


def test_nothing_comes_with_the_shutter_closed_and_only_air_without_a_sample():
    diffraction = Diffraction(GEOMETRY, ScatteringSample(crystal=SMALL))
    sample, air, dark = (
        diffraction.rate(3.0, kind) for kind in (ImageKey.PROJECTION, ImageKey.FLAT, ImageKey.DARK)
    )
    assert not dark.any()
    assert (air <= sample).all()
    assert 0 < air.sum() < 0.2 * sample.sum()


def test_the_beam_stop_casts_a_shadow():
    diffraction = Diffraction(GEOMETRY)
    rows, columns = np.indices((128, 160))
    distance_mm = 0.075 * np.hypot(rows - 61.5, columns - 82.25)
    shadow = diffraction.rate(3.0)[distance_mm <= diffraction.sample.beam_stop_mm]
    assert shadow.size > 40
    assert not shadow.any()


def test_a_higher_energy_brings_the_pattern_inwards():
    diffraction = Diffraction(GEOMETRY, SPHERES)
    assert diffraction.at_energy(GEOMETRY.energy_keV) is diffraction
    harder = diffraction.at_energy(2 * GEOMETRY.energy_keV)
    q = SPHERE_SECOND_MAXIMUM / SPHERES.sphere_radius_A
    assert harder.geometry.radius_px(q) == pytest.approx(GEOMETRY.radius_px(q) / 2, rel=1e-3)
    assert harder.rate(0.0).sum() < diffraction.rate(0.0).sum()


@pytest.mark.parametrize(
    "make",
    [
        lambda: DiffractionGeometry(0, 10),
        lambda: DiffractionGeometry(10, 10, energy_keV=math.nan),
        lambda: DiffractionGeometry(10, 10, distance_mm=-5),
        lambda: Crystal(cell_A=(0.0, 1.0, 1.0)),
        lambda: Crystal(mosaic_deg=0.0),
        lambda: Diffraction(
            DiffractionGeometry(64, 64, distance_mm=2.0), ScatteringSample(Crystal((900.0,) * 3))
        ),
    ],
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(InputError):
        make()
