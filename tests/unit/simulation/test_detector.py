from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import ImageKey, SimulationSettings
from apsber_bluesky.simulation import Detector, PhantomSource


def settings(**changes: object) -> SimulationSettings:
    values: dict[str, object] = {"rows": 40, "columns": 60, "seed": 7}
    return SimulationSettings.model_validate(values | changes)


def test_equal_seed_kind_and_number_give_equal_frames() -> None:
    one, other = Detector(settings()), Detector(settings())
    for kind in (ImageKey.FLAT, ImageKey.DARK, ImageKey.PROJECTION):
        # The order in which frames are taken must not matter.
        later = other.expose(kind, 4)
        np.testing.assert_array_equal(other.expose(kind, 3), one.expose(kind, 3))
        np.testing.assert_array_equal(one.expose(kind, 4), later)


@pytest.mark.parametrize(
    ("detector", "kind", "number"),
    [
        (Detector(settings(seed=8)), ImageKey.FLAT, 3),
        (Detector(settings()), ImageKey.PROJECTION, 3),
        (Detector(settings()), ImageKey.FLAT, 4),
    ],
    ids=["seed", "kind", "number"],
)
def test_seed_kind_and_number_each_change_the_noise(
    detector: Detector, kind: ImageKey, number: int
) -> None:
    reference = Detector(settings()).expose(ImageKey.FLAT, 3)
    assert (detector.expose(kind, number) != reference).mean() > 0.9


def test_flats_have_poisson_statistics_on_top_of_the_read_noise() -> None:
    detector = Detector(settings(read_noise_counts=5.0, dead_pixel_fraction=0.0))
    flats = np.stack([detector.expose(ImageKey.FLAT, i) for i in range(300)]).astype(np.float64)
    expected = detector.flat_field + detector.dark_field
    assert np.mean(flats.mean(axis=0) - expected) == pytest.approx(0.0, abs=1.0)
    ratio = flats.var(axis=0, ddof=1) / (detector.flat_field + 5.0**2)
    # The variance of 300 samples scatters by 8 %; over 2400 pixels its mean is good to 0.2 %.
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)


def test_darks_have_the_dark_level_and_the_read_noise() -> None:
    detector = Detector(settings(dark_counts=200.0, read_noise_counts=4.0))
    darks = np.stack([detector.expose(ImageKey.DARK, i) for i in range(200)]).astype(np.float64)
    assert darks.mean() == pytest.approx(200.0, rel=0.05)
    # Rounding to whole counts adds 1/12.
    assert darks.var(axis=0, ddof=1).mean() == pytest.approx(4.0**2 + 1 / 12, rel=0.02)
    assert np.ptp(detector.dark_field) > 10


def test_projections_follow_beer_lambert() -> None:
    detector = Detector(settings(dead_pixel_fraction=0.0))
    integrals = np.linspace(0, 1.8, 40 * 60, dtype=np.float32).reshape(40, 60)
    frames = [detector.expose(ImageKey.PROJECTION, i, integrals) for i in range(200)]
    mean = np.mean(frames, axis=0) - detector.dark_field
    np.testing.assert_allclose(-np.log(mean / detector.flat_field), integrals, atol=6e-3)


def test_dead_pixels_do_not_see_the_beam_and_are_as_many_as_asked() -> None:
    detector = Detector(settings(rows=200, columns=200, dead_pixel_fraction=0.01))
    assert detector.dead.mean() == pytest.approx(0.01, rel=0.2)
    flat = detector.expose(ImageKey.FLAT, 0).astype(np.float64)
    dark = detector.dark_field
    assert np.abs(flat - dark)[detector.dead].max() < 6 * 3.0 + 1
    assert (flat - dark)[~detector.dead].min() > 1000


def test_stripes_stand_in_columns_with_the_asked_strength() -> None:
    plain = Detector(settings(columns=400, stripe_strength=0.0, dead_pixel_fraction=0.0))
    striped = Detector(settings(columns=400, stripe_strength=0.03, dead_pixel_fraction=0.0))
    ratio = striped.flat_field / plain.flat_field
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], ratio.shape), rtol=1e-4)
    np.testing.assert_allclose(ratio[0], striped.column_gains, rtol=1e-4)
    assert ratio[0].std() == pytest.approx(0.03, rel=0.15)


def test_counts_saturate() -> None:
    detector = Detector(settings(flat_counts=200000.0, dead_pixel_fraction=0.0))
    flat = detector.expose(ImageKey.FLAT, 0)
    assert flat.dtype == np.uint16
    assert flat.max() == 65535
    assert (flat == 65535).mean() > 0.9


def test_no_noise_and_no_darks_are_allowed() -> None:
    detector = Detector(settings(dark_counts=0.0, read_noise_counts=0.0))
    assert not detector.expose(ImageKey.DARK, 0).any()


def test_gains_that_changed_since_the_flats_are_in_projections_alone() -> None:
    plain = Detector(settings(columns=400, dead_pixel_fraction=0.0))
    changed = Detector(settings(columns=400, dead_pixel_fraction=0.0, gain_change=0.03))
    still = np.zeros((plain.rows, 400), np.float32)
    np.testing.assert_array_equal(plain.expose(ImageKey.FLAT, 3), changed.expose(ImageKey.FLAT, 3))
    means = [d.expose(ImageKey.PROJECTION, 3, still).mean(axis=0) for d in (plain, changed)]
    assert np.std(means[1] / means[0]) == pytest.approx(0.03, rel=0.2)


def test_the_beam_swings_about_its_mean_with_the_number_of_the_frame() -> None:
    detector = Detector(settings(beam_swing=0.2, dark_counts=0.0, dead_pixel_fraction=0.0))
    means = {n: detector.expose(ImageKey.FLAT, n).mean() for n in (0, 250, 750, 1000)}
    assert means[250] / means[0] == pytest.approx(1.2, rel=0.01)
    assert means[750] / means[0] == pytest.approx(0.8, rel=0.01)
    assert means[1000] == pytest.approx(means[0], rel=0.01)


def test_a_creeping_sample_is_further_off_at_each_angle() -> None:
    plain, creeping = (
        PhantomSource(settings(phantom="disc", columns=200, drift_px=px)) for px in (0.0, 8.0)
    )

    def place(source: PhantomSource, angle_deg: float) -> float:
        image = source.image(
            ImageKey.PROJECTION, number=0, unique_id=1, angle_deg=angle_deg
        ).astype(float)
        shadow = image.max() - image.mean(axis=0)
        return float(shadow @ np.arange(200) / shadow.sum())

    moved = [place(creeping, angle) - place(plain, angle) for angle in (0.0, 90.0)]
    assert moved[0] == 0
    assert moved[1] > 1
