"""Random soil cores and their scans: what is true of them, and that they repeat."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation.training import (
    SOIL_CLASSES,
    ScanConditions,
    random_sample,
    random_scans,
    simulate_scan,
)

SIZE, SLICES = 96, 3
KINDS = ("grown", "scattered")
# Of sample 0 from seed 1000 on: voxels of each class, and noise of each scan [1/pixel].
COUNTS = [5232, 391, 2316, 243, 10]
NOISE = [0.002249, 0.0008433, 0.0008185, 0.0007169]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_from_their_seed(kind: str) -> None:
    first, again, other = (
        random_sample(kind, seed, slices=SLICES, size=SIZE) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first.labels, again.labels)
    angles = np.array([0.0, 30.0])
    lines = first.line_integrals(angles, 47.5)
    np.testing.assert_array_equal(lines, again.line_integrals(angles, 47.5))
    assert not np.array_equal(first.labels, other.labels)
    assert lines.shape == (2, SLICES, SIZE)
    assert lines.min() >= 0
    # Some light comes through everywhere.
    assert 0.5 < lines.max() < 6


@pytest.mark.parametrize("kind", KINDS)
def test_samples_hold_every_class_somewhere(kind: str) -> None:
    found = np.zeros(len(SOIL_CLASSES), np.int64)
    for seed in range(4):
        labels = random_sample(kind, seed, slices=SLICES, size=SIZE).labels
        found += np.bincount(labels.ravel(), minlength=len(found))
        # The view's corners are air.
        assert not labels[:, 0, 0].any()
    assert (found > 20).all()
    assert found[2] == max(found[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_the_clean_reconstruction_agrees_with_the_labels(kind: str) -> None:
    sample = random_sample(kind, 3, slices=SLICES, size=SIZE)
    (scan,) = simulate_scan(sample, [ScanConditions(1e4, 160)])
    means = {}
    for number, name in enumerate(SOIL_CLASSES):
        mask = binary_erosion(scan.labels == number, np.ones((1, 3, 3)), iterations=1)
        if mask.sum() > 10:
            means[name] = float(scan.clean[mask].mean())
    assert means["soil aggregate"] > 0.3 * 1.7 / (0.8 * SIZE)
    # Outside is air, and around a grown core perhaps a thin tube.
    corners = scan.clean[:, :8, :8]
    assert abs(corners.mean()) < 0.03 * means["soil aggregate"]
    if "mineral" in means:
        assert means["mineral"] > 1.2 * means["soil aggregate"]
    if "pore" in means:
        assert means["pore"] < 0.9 * means["soil aggregate"]


def test_noise_falls_with_the_dose_and_leaves_the_mean() -> None:
    sample = random_sample("grown", 5, slices=SLICES, size=SIZE)
    doses = (400.0, 1600.0, 6400.0)
    scans = simulate_scan(sample, [ScanConditions(dose, 160, seed=2) for dose in doses])
    noise = [float(np.std(scan.noisy - scan.clean)) for scan in scans]
    assert noise[0] / noise[1] == pytest.approx(2, rel=0.15)
    assert noise[1] / noise[2] == pytest.approx(2, rel=0.15)
    inside = scans[0].labels == 2
    for scan in scans[1:]:
        assert scan.noisy[inside].mean() == pytest.approx(scan.clean[inside].mean(), rel=0.02)


def test_stripes_make_rings_and_blur_softens_what_is_clean() -> None:
    sample = random_sample("grown", 6, slices=SLICES, size=SIZE)
    plain, striped, soft = simulate_scan(
        sample,
        [
            ScanConditions(4e4, 160),
            ScanConditions(4e4, 160, stripe_strength=0.01),
            ScanConditions(4e4, 160, blur_px=0.8),
        ],
    )
    np.testing.assert_array_equal(plain.clean, striped.clean)
    rings = striped.noisy - plain.noisy
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius = np.hypot(x, y).astype(int)
    around = [rings[1][radius == r].mean() for r in range(8, 40)]
    alone = [(plain.noisy - plain.clean)[1][radius == r].mean() for r in range(8, 40)]
    assert np.std(around) > 3 * np.std(alone)
    steps = [float(np.abs(np.diff(scan.clean, axis=2)).max()) for scan in (plain, soft)]
    assert steps[1] < 0.9 * steps[0]


def test_random_scans_repeat_and_cover_what_they_promise() -> None:
    first, again = (random_scans(3, 1000, slices=2, size=64) for _ in range(2))
    assert len(first) == 4
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.noisy, other.noisy)
        np.testing.assert_array_equal(one.clean, first[0].clean)
        assert not np.array_equal(one.noisy, one.clean)
    # Number 3 from seed 1000 on is number 3 - 1000 + 1003 from any other, but for the family.
    same_seed = random_scans(0, 1003, slices=2, size=64)
    assert not np.array_equal(same_seed[0].labels, first[0].labels)


def test_random_scans_are_those_that_the_shipped_models_were_trained_on() -> None:
    scans = random_scans(0, 1000, slices=2, size=64)
    counts = np.bincount(scans[0].labels.ravel(), minlength=5)
    noise = [float(np.std(scan.noisy - scan.clean)) for scan in scans]
    assert counts.tolist() == COUNTS
    np.testing.assert_allclose(noise, NOISE, rtol=1e-3)


def test_wrong_samples_and_scans_are_refused() -> None:
    with pytest.raises(InputError, match="unknown kind of sample 'peat'; choose one of grown"):
        random_sample("peat", 1, slices=2, size=64)
    with pytest.raises(InputError, match="2 slices of 32 x 32 pixels show no soil"):
        random_sample("grown", 1, slices=2, size=32)
    sample = random_sample("scattered", 1, slices=1, size=64)
    with pytest.raises(InputError, match="60 projections do not divide 100"):
        simulate_scan(sample, [ScanConditions(1e3, 100), ScanConditions(1e3, 60)])
