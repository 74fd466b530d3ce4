"""Numbers that are measured on sinograms: rings, motion, reprojection."""

from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.analysis import (
    NotApplicable,
    drift,
    fourier_shell_correlation,
    motion,
    reprojection_residual,
    resolution_3d,
    ring_score,
    sample_motion,
)
from apsber_bluesky.core import InputError
from apsber_bluesky.processing import Projector

FULL_TURN = np.arange(0, 360, 2.0)


def moved(taken, shifts):
    """The projections of a sample that was so far off [pixel]."""
    columns = np.arange(taken.sinograms.shape[2])
    lines = [
        [np.interp(columns - shift, columns, row) for row in projection]
        for projection, shift in zip(taken.sinograms, shifts, strict=True)
    ]
    return np.array(lines, np.float32)


@pytest.mark.parametrize("strength", [0.01, 0.04])
def test_the_ring_score_is_the_strength_of_the_stripes(scan, strength):
    taken = scan(flat_counts=1e5)
    stripes = strength * np.random.default_rng(1).standard_normal((1, *taken.sinograms.shape[1:]))
    depth = np.percentile(taken.sinograms.mean(axis=0), 95)
    found = ring_score(taken.sinograms + stripes, taken.angles_deg, taken.centre)
    assert found.value == pytest.approx(strength / depth, rel=0.25)
    clean = ring_score(taken.sinograms, taken.angles_deg, taken.centre)
    assert clean.value < 0.15 * found.value


def test_noise_alone_makes_no_rings(scan):
    noisy, calm = (scan(flat_counts=c) for c in (300, 1e5))
    values = [ring_score(t.sinograms, t.angles_deg, t.centre).value for t in (noisy, calm)]
    assert values[0] < 0.01


def test_a_tube_round_the_axis_is_no_ring(scan):
    taken = scan(flat_counts=1e5, centre=63.5)
    distance = np.abs(np.arange(128) - 63.5)
    chords = [np.sqrt(np.maximum(radius**2 - distance**2, 0)) for radius in (60.0, 57.0)]
    tube = 0.05 * (chords[0] - chords[1])
    plain, inside = (
        ring_score(lines, taken.angles_deg, 63.5).value
        for lines in (taken.sinograms, taken.sinograms + tube)
    )
    assert inside == pytest.approx(plain, abs=0.002)


@pytest.mark.parametrize(
    ("angles", "method", "within"),
    [(np.arange(180.0), "centre of mass", 0.3), (FULL_TURN, "opposite projections", 0.1)],
)
@pytest.mark.parametrize("px", [-3.0, 1.5])
def test_drift_is_seen_by_either_method(scan, angles, method, within, px):
    taken = scan(angles=angles, rows=8)
    lines = moved(taken, np.linspace(0, px, len(angles)))
    found = sample_motion(lines, angles, taken.centre)
    assert found.method == method
    assert found.drift_px == pytest.approx(px, abs=within)
    number = drift(found)
    assert number.value == abs(found.drift_px)
    assert number.unit == "px"
    assert method in number.note


@pytest.mark.parametrize("angles", [np.arange(180.0), FULL_TURN])
def test_jitter_is_told_from_noise_and_from_drift(scan, angles):
    taken = scan(angles=angles, rows=8, flat_counts=3000)
    jitter = 0.5 * np.random.default_rng(2).standard_normal(len(angles))
    still = sample_motion(taken.sinograms, angles, taken.centre)
    shaken = sample_motion(moved(taken, jitter), angles, taken.centre)
    assert motion(still).value < 0.12
    assert motion(shaken).value == pytest.approx(0.5, rel=0.25)


def test_what_reaches_out_of_the_view_or_is_too_short_says_nothing_of_motion(scan):
    taken = scan()
    with pytest.raises(NotApplicable, match="reaches out of the view"):
        sample_motion(taken.sinograms[:, :, 40:90], taken.angles_deg, taken.centre - 40)
    with pytest.raises(NotApplicable, match="too few"):
        sample_motion(taken.sinograms[:9], taken.angles_deg[:9], taken.centre)
    short = scan(angles=np.arange(0, 20, 0.5), flat_counts=500)
    with pytest.raises(NotApplicable, match="too uncertain"):
        drift(sample_motion(short.sinograms, short.angles_deg, short.centre))


def residual(taken, slices, centre) -> float:
    projector = lambda stack, angles: Projector(128, angles, centre).project(stack)  # noqa: E731
    found = reprojection_residual(slices, taken.sinograms, taken.angles_deg, centre, projector)
    return found.value


def test_a_wrong_centre_and_noise_leave_more_unexplained(scan):
    taken, noisy = scan(flat_counts=1e5), scan(flat_counts=300)
    good = residual(taken, taken.slices(), taken.centre)
    assert good < 0.03
    assert residual(taken, taken.slices(taken.centre + 4), taken.centre + 4) > 2 * good
    assert residual(noisy, noisy.slices(), noisy.centre) > 2 * good


def test_slices_that_are_not_those_of_the_sinograms_are_refused(scan):
    taken = scan()
    with pytest.raises(InputError, match="their sinograms"):
        residual(taken, taken.slices()[:2], taken.centre)


def noise(seed: int, slices: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((slices, 64, 64))


@pytest.mark.parametrize("cutoff", [0.15, 0.3])
def test_a_band_that_is_common_in_all_directions_ends_where_it_ends(cutoff):
    steps = (np.fft.fftfreq(n) for n in (48, 64, 64))
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*steps, indexing="ij")))
    band = np.fft.ifftn(np.fft.fftn(noise(0, 48)) * (radius < cutoff)).real
    halves = (band + 0.1 * noise(seed, 48) for seed in (1, 2))
    found = resolution_3d(*halves, pixel_size_um=2.0)
    # The window along the axis blurs frequencies by up to two of its steps.
    assert 1 / found.value == pytest.approx(cutoff, abs=2.5 / 48)
    assert "um" in found.note


def test_equal_blocks_correlate_to_the_pixel_and_strange_ones_hardly():
    assert resolution_3d(noise(0), noise(0)).value == 2.0
    correlation = fourier_shell_correlation(noise(0), noise(1))
    assert np.abs(correlation.correlation[8:]).mean() < 0.1
    with pytest.raises(NotApplicable, match="no block"):
        resolution_3d(noise(0)[:4], noise(1)[:4])
