from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.optimize

from apsber_bluesky.core import InputError, RunCancelled
from apsber_bluesky.processing import (
    ITERATIVE_METHODS,
    IterativeSettings,
    Projector,
    iterative_bytes,
    reconstruct,
    reconstruct_iteratively,
)

SIZE = 128
CENTRE = (SIZE - 1) / 2 + 1.7


@pytest.fixture
def head(shepp_logan):
    """Makes the projections of a head, and tells how well a slice shows it [dB]."""

    class Head:
        phantom = shepp_logan(0.45 * SIZE, 0.026)
        truth = phantom.image(SIZE)

        def projections(self, angles, noise=0.0):
            lines = self.phantom.sinogram(angles, SIZE, CENTRE)
            lines = lines + noise * np.random.default_rng(4).standard_normal(lines.shape)
            return lines[:, None].astype(np.float32)

        def psnr(self, volume):
            y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
            error = (volume[0] - self.truth)[x**2 + y**2 < (0.95 * SIZE / 2) ** 2]
            return 20 * np.log10(self.truth.max() / np.sqrt(np.mean(error**2)))

    return Head()


def iterate(projections, angles, centre=CENTRE, **options):
    return reconstruct_iteratively(
        projections, angles, centre, settings=IterativeSettings(**options), threads=1
    )


def matrix(projector):
    """The projector, written out in double precision."""
    size = projector.columns
    units = np.eye(size * size, dtype=np.float32).reshape(-1, size, size)
    columns = [projector.project(unit[None])[:, 0].ravel() for unit in units]
    return np.array(columns, dtype=np.float64).T


@pytest.mark.parametrize(
    ("options", "gain"),
    [
        ({"method": "cgls"}, 4),
        ({"method": "cgls", "iterations": 40, "non_negative": True}, 14),
        ({"method": "sirt"}, 9),
        ({"method": "tv", "regularisation": 3e-6, "iterations": 60}, 15),
    ],
)
def test_few_projections_give_a_better_slice_than_by_filtered_back_projection(head, options, gain):
    angles = np.arange(24) * 7.5
    projections = head.projections(angles)
    filtered = head.psnr(reconstruct(projections, angles, CENTRE))
    assert head.psnr(iterate(projections, angles, **options).volume) > filtered + gain


@pytest.mark.parametrize(
    ("options", "gain"),
    [
        ({"method": "cgls", "noise": 0.05}, 3.5),
        ({"method": "sirt", "noise": 0.05}, 4),
        ({"method": "tv", "regularisation": 2.5e-5, "iterations": 40}, 8),
    ],
)
def test_noisy_projections_give_a_better_slice_than_by_filtered_back_projection(
    head, options, gain
):
    angles = np.arange(180.0)
    projections = head.projections(angles, noise=0.05)
    filtered = head.psnr(reconstruct(projections, angles, CENTRE))
    assert head.psnr(iterate(projections, angles, **options).volume) > filtered + gain


def test_a_missing_wedge_of_60_degrees_hurts_less_with_total_variation(head):
    angles = np.arange(60) * 2.0
    projections = head.projections(angles)
    filtered = head.psnr(reconstruct(projections, angles, CENTRE))
    done = iterate(projections, angles, method="tv", regularisation=2e-6, iterations=80)
    assert head.psnr(done.volume) > filtered + 4


@pytest.mark.parametrize("method", ITERATIVE_METHODS)
def test_the_discrepancy_principle_ends_the_iterations_at_the_noise(head, method):
    angles, noise = np.arange(60) * 3.0, 0.04
    projections = head.projections(angles, noise)
    settings = IterativeSettings(method=method, noise=noise, regularisation=1e-6)
    done = reconstruct_iteratively(projections, angles, CENTRE, settings=settings, threads=1)
    assert 1 < done.iterations[0] < settings.most_iterations
    assert (done.residuals[:, 0] > noise).all()
    remaining = projections - Projector(SIZE, angles, CENTRE).project(done.volume)
    # One step of conjugate gradients is a long one.
    assert 0.6 * noise < np.sqrt(np.mean(remaining**2)) <= noise


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("cgls", {"iterations": 12}),
        ("cgls", {"iterations": 24, "non_negative": True}),
        ("sirt", {"iterations": 200}),
        ("tv", {"iterations": 50, "regularisation": 1e-6}),
    ],
)
@pytest.mark.parametrize("offset", [0.0, 4.25])
def test_the_attenuation_of_a_disc_is_right(disc, method, options, offset):
    size, mu, angles = 96, 0.013, np.arange(90) * 2.0
    centre = (size - 1) / 2 + offset
    projections = disc(28.0, mu, x0=4.0, y0=-6.0).sinogram(angles, size, centre)[:, None]
    volume = iterate(projections, angles, centre, method=method, **options).volume
    y, x = np.mgrid[:size, :size] - size // 2
    flat = volume[0][(x - 4) ** 2 + (y + 6) ** 2 < 20**2]
    assert flat.mean() == pytest.approx(mu, rel=2e-3)
    assert np.sqrt(np.mean((flat / mu - 1) ** 2)) < 0.02


@pytest.mark.parametrize("method", ITERATIVE_METHODS)
def test_negative_attenuation_is_forbidden_or_allowed(head, method):
    angles = np.arange(24) * 7.5
    projections = head.projections(angles, noise=0.03)
    kept = iterate(projections, angles, method=method, non_negative=True, iterations=15)
    free = iterate(projections, angles, method=method, non_negative=False, iterations=15)
    assert kept.volume.min() == 0
    assert free.volume.min() < 0


def test_conjugate_gradients_find_the_least_squares_solution():
    angles, random = np.arange(36) * 5.0, np.random.default_rng(6)
    projector = Projector(12, angles, 5.5)
    system = matrix(projector)
    measured = random.standard_normal((36, 1, 12)).astype(np.float32)
    done = iterate(measured, angles, 5.5, method="cgls", iterations=80)
    expected = np.linalg.lstsq(system, measured.ravel(), rcond=1e-3)[0]
    best = np.linalg.norm(measured.ravel() - system @ expected)
    found = np.linalg.norm(measured.ravel() - system @ done.volume.ravel())
    assert found == pytest.approx(best, rel=3e-3)


def test_conjugate_gradients_without_negative_values_find_the_constrained_solution():
    angles, random = np.arange(9) * 20.0, np.random.default_rng(7)
    projector = Projector(12, angles, 5.5)
    system = matrix(projector)
    measured = random.standard_normal((9, 1, 12)).astype(np.float32)
    _, best = scipy.optimize.nnls(system, measured.ravel().astype(np.float64))
    options = {"method": "cgls", "non_negative": True, "iterations": 400}
    done = iterate(measured, angles, 5.5, **options)
    found = np.linalg.norm(measured.ravel() - system @ done.volume.ravel())
    assert found == pytest.approx(best, rel=2e-3)
    starts = done.residuals[::8, 0]
    assert (np.diff(starts) < 1e-6 * starts[0]).all()


def test_sirt_takes_the_step_that_is_documented():
    angles, random = np.arange(9) * 20.0, np.random.default_rng(8)
    projector = Projector(16, angles, 7.5)
    system = matrix(projector)
    measured = random.random((9, 1, 16)).astype(np.float32) + 1
    rays = 1 / np.maximum(system.sum(axis=1), 1)
    pixels = 1 / np.maximum(system.sum(axis=0), 0.9)
    expected = np.zeros(256)
    for _ in range(4):
        expected += 0.8 * pixels * (system.T @ (rays * (measured.ravel() - system @ expected)))
        expected = np.maximum(expected, 0)
    done = iterate(measured, angles, 7.5, method="sirt", iterations=4, relaxation=0.8)
    np.testing.assert_allclose(done.volume.ravel(), expected, atol=2e-3 * expected.max())


def test_total_variation_makes_its_own_sum_smallest(head):
    angles, weight = np.arange(24) * 7.5, 1e-5
    projections = head.projections(angles, noise=0.02)
    projector = Projector(SIZE, angles, CENTRE)

    def total(volume):
        image = volume[0].astype(np.float64)
        right = np.diff(image, axis=1, append=image[:, -1:])
        below = np.diff(image, axis=0, append=image[-1:])
        residual = projections - projector.project(volume)
        return np.mean(residual**2) / 2 + weight * np.hypot(right, below).sum()

    done = iterate(projections, angles, method="tv", regularisation=weight, iterations=150).volume
    best = total(done)
    random = np.random.default_rng(1)
    others = [
        head.truth[None].astype(np.float32),
        iterate(projections, angles, method="sirt").volume,
        iterate(projections, angles, method="tv", regularisation=2 * weight).volume,
        iterate(projections, angles, method="tv", regularisation=weight / 2).volume,
        done * np.float32(1.01),
        done * np.float32(0.99),
        np.maximum(done + 1e-4 * random.standard_normal(done.shape).astype(np.float32), 0),
    ]
    assert all(total(other) > best for other in others)


def test_the_weight_of_total_variation_does_not_depend_on_the_size(disc):
    lost = []
    for size in (48, 96):
        angles, radius, mu = np.arange(40) * 4.5, 0.3 * size, 1.0 / size
        projections = disc(radius, mu).sinogram(angles, size, (size - 1) / 2)[:, None]
        options = {"method": "tv", "regularisation": 5e-3, "iterations": 60}
        volume = iterate(projections, angles, (size - 1) / 2, **options).volume
        y, x = np.mgrid[:size, :size] - size // 2
        lost.append(1 - volume[0][x**2 + y**2 < (0.7 * radius) ** 2].mean() / mu)
    assert lost[0] > 0.05
    # Four times the pixels; the edge of the smaller disc is a larger part of it.
    assert lost[1] == pytest.approx(lost[0], rel=0.12)


@pytest.mark.parametrize(
    "options",
    [*({"method": name} for name in ITERATIVE_METHODS), {"method": "cgls", "non_negative": True}],
)
def test_bits_do_not_depend_on_threads(shepp_logan, options):
    angles = np.arange(70) * 2.5
    lines = shepp_logan(14.0).sinogram(angles, 32, 15.0)
    scale = np.linspace(0.5, 2, 35, dtype=np.float32)
    projections = lines[:, None] * scale[:, None]
    settings = IterativeSettings(iterations=10, **options)
    one, three = (
        reconstruct_iteratively(projections, angles, 15.0, settings=settings, threads=threads)
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(one.volume, three.volume)
    np.testing.assert_array_equal(one.residuals, three.residuals)


@pytest.mark.parametrize(
    "options",
    [*({"method": name} for name in ITERATIVE_METHODS), {"method": "cgls", "non_negative": True}],
)
def test_slices_stop_one_by_one_and_do_not_disturb_each_other(shepp_logan, options):
    angles = np.arange(30) * 6.0
    lines = shepp_logan(14.0).sinogram(angles, 32, 15.0)
    projections = np.stack([lines, 0 * lines, 3 * lines], axis=1)
    settings = {"iterations": 40, "noise": 0.012, "regularisation": 1e-6, **options}
    together = iterate(projections, angles, 15.0, **settings)
    first, empty, third = together.iterations
    assert empty == 0
    # Without negative values, slices stop at the end of a cycle only.
    assert 0 < first <= third if "non_negative" in options else 0 < first < third
    assert not together.volume[1].any()
    for number in (0, 2):
        alone = iterate(projections[:, [number]], angles, 15.0, **settings)
        assert alone.iterations[0] == together.iterations[number]
        peak = alone.volume.max()
        np.testing.assert_allclose(together.volume[number], alone.volume[0], atol=1e-3 * peak)


@pytest.mark.parametrize("method", ITERATIVE_METHODS)
def test_an_initial_volume_saves_iterations(head, method):
    angles = np.arange(30) * 6.0
    projections = head.projections(angles)
    settings = IterativeSettings(method=method, iterations=30, regularisation=1e-6)
    first = reconstruct_iteratively(projections, angles, CENTRE, settings=settings, threads=1)
    again = reconstruct_iteratively(
        projections, angles, CENTRE, settings=settings, initial=first.volume, threads=1
    )
    assert again.residuals[0, 0] < 0.1 * first.residuals[0, 0]
    assert again.residuals[-1, 0] < first.residuals[-1, 0]


@pytest.mark.parametrize("method", ITERATIVE_METHODS)
def test_slices_that_hardly_change_stop(head, method):
    angles = np.arange(30) * 6.0
    done = iterate(head.projections(angles), angles, method=method, tolerance=0.02)
    assert 2 < done.iterations[0] < IterativeSettings(method=method).most_iterations


def test_progress_is_told_and_cancelling_ends(head):
    angles = np.arange(12) * 15.0
    projections = np.repeat(head.projections(angles), 20, axis=1)
    told = []

    class Cancelled:
        def is_set(self):
            return len(told) == 7

    with pytest.raises(RunCancelled, match="after 7 iterations"):
        reconstruct_iteratively(
            projections, angles, CENTRE, threads=1, progress=told.append, cancelled=Cancelled()
        )
    assert [report.iteration for report in told] == [1, 2, 3, 4, 5, 6, 7]
    assert {report.first_slice for report in told} == {0}
    assert told[0].residuals == pytest.approx([np.sqrt(np.mean(projections**2))] * 16, rel=1e-5)
    assert told[-1].residuals[3] < told[0].residuals[3]


@pytest.mark.parametrize(
    "options",
    [*({"method": name} for name in ITERATIVE_METHODS), {"method": "cgls", "non_negative": True}],
)
def test_the_estimate_of_memory_is_right(options):
    angles = np.arange(80) * 2.25
    projections = np.random.default_rng(0).random((80, 32, 96)).astype(np.float32)
    settings = IterativeSettings(iterations=2, **options)
    reconstruct_iteratively(projections, angles, 47.5, settings=settings, threads=1)
    tracemalloc.start()
    try:
        done = reconstruct_iteratively(projections, angles, 47.5, settings=settings, threads=1)
        peak = tracemalloc.get_traced_memory()[1] - done.volume.nbytes
    finally:
        tracemalloc.stop()
    expected = iterative_bytes(settings, 32, 96, 80)
    assert 0.8 * expected < peak < 1.1 * expected


@pytest.mark.parametrize(
    "options",
    [*({"method": name} for name in ITERATIVE_METHODS), {"method": "cgls", "non_negative": True}],
)
@pytest.mark.parametrize(("columns", "centre"), [(2, 0.5), (3, 1.0), (5, 0.0), (31, 4.0)])
def test_the_smallest_frames_and_the_axis_at_the_edge_give_finite_slices(options, columns, centre):
    projections = np.random.default_rng(3).random((1, 1, columns))[:, :, ::-1]
    settings = {"iterations": 12, "regularisation": 1e-12, **options}
    volume = iterate(projections, [17.0], centre, **settings).volume
    assert np.isfinite(volume).all()
    assert volume.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "art"}, "no iterative method 'art'"),
        ({"iterations": 0}, "0 iterations"),
        ({"relaxation": 2.0}, "relaxation is 2.0"),
        ({"regularisation": 0.0}, "regularisation is 0.0; give at least 1e-12"),
        ({"regularisation": np.nan}, "regularisation is nan"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"tolerance": np.inf}, "tolerance is inf"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        IterativeSettings(**options)


def test_input_that_makes_no_sense_is_refused(monkeypatch):
    good, angles = np.ones((3, 2, 8), np.float32), [0.0, 60.0, 120.0]
    with pytest.raises(InputError, match=r"give \(n, rows, columns\)"):
        reconstruct_iteratively(good[0], angles, 3.5)
    with pytest.raises(InputError, match=r"= \(2, rows, 8\)"):
        reconstruct_iteratively(good, angles[:2], 3.5)
    with pytest.raises(InputError, match="centre 8 lies outside"):
        reconstruct_iteratively(good, angles, 8)
    with pytest.raises(InputError, match="threads is 0"):
        reconstruct_iteratively(good, angles, 3.5, threads=0)
    with pytest.raises(InputError, match=r"initial volume has shape \(2, 8\)"):
        reconstruct_iteratively(good, angles, 3.5, initial=good[0])
    with pytest.raises(InputError, match="initial volume holds NaN"):
        reconstruct_iteratively(
            good, angles, 3.5, initial=np.full((2, 8, 8), np.nan, dtype=np.float32)
        )
    bad = good.copy()
    bad[1, 0, 3] = np.nan
    with pytest.raises(InputError, match="projection 1 holds NaN"):
        reconstruct_iteratively(bad, angles, 3.5)
    path = "apsber_bluesky.processing.iterative._reconstruct.free_memory"
    monkeypatch.setattr(path, lambda: 1000)
    with pytest.raises(InputError, match=r"0\.0 GB are free"):
        reconstruct_iteratively(good, angles, 3.5)
