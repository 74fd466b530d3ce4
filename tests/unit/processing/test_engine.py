from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest

from apsber_bluesky.core import InputError, ReconstructionEngine
from apsber_bluesky.processing import (
    FILTER_NAMES,
    create_engine,
    engine_names,
    reconstruct,
    required_bytes,
)

SCANS = {
    "half turn": np.arange(180.0),
    "full turn": np.arange(360.0),
    "odd full turn": np.arange(181) * 360 / 181,
    "end included": np.arange(181.0),
    "few": np.arange(37) * 180 / 37,
    "backwards": -np.arange(150) * 1.2,
    "golden": np.arange(200) * 111.246,
    "random": np.random.default_rng(0).uniform(0, 180, 300),
}


@pytest.fixture(params=["gridding", "finufft"])
def name(request):
    return request.param


def rings(image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:size, :size] - size // 2
    return np.hypot(x, y), image


@pytest.fixture
def small(shepp_logan):
    """Seven different slices of 48 columns and 41 projections about an axis off the middle."""
    angles = np.arange(41) * 180 / 41
    stack = [shepp_logan(18 + k, 0.01 * (k + 1)).sinogram(angles, 48, 24.7) for k in range(7)]
    return np.stack(stack, axis=1), angles, 24.7


@pytest.mark.parametrize("kind", SCANS)
@pytest.mark.parametrize(("columns", "offset"), [(128, 0.0), (201, -7.35)])
def test_a_uniform_disc_reads_its_attenuation(disc, name, kind, columns, offset):
    angles, mu, radius = SCANS[kind], 0.013, 0.3 * columns
    centre = (columns - 1) / 2 + offset
    sinogram = disc(radius, mu).sinogram(angles, columns, centre)
    volume = reconstruct(sinogram[:, None], angles, centre, engine=name)
    distance, image = rings(volume[0], columns)
    flat = image[distance < radius - 6]
    assert flat.mean() == pytest.approx(mu, rel=1e-3)
    if kind not in ("few", "random"):
        for inner in range(4, int(radius) - 10, 4):
            ring = image[(distance >= inner) & (distance < inner + 4)]
            assert ring.mean() == pytest.approx(mu, rel=1e-3)
    outside = image[(distance > radius + 6) & (distance < columns / 2 - abs(offset) - 2)]
    assert abs(outside.mean()) < 1e-3 * mu


@pytest.mark.parametrize(("columns", "projections", "psnr"), [(128, 360, 31.7), (256, 180, 32.8)])
def test_the_phantom_is_recovered(shepp_logan, name, columns, projections, psnr):
    phantom, centre = shepp_logan(0.45 * columns), (columns - 1) / 2 + 3.25
    angles = np.arange(projections) * 180 / projections
    sinogram = phantom.sinogram(angles, columns, centre)[:, None]
    volume = reconstruct(sinogram, angles, centre, engine=name)
    truth = phantom.image(columns)
    distance, image = rings(volume[0], columns)
    error = (image - truth)[distance < 0.95 * columns / 2 - 4]
    assert 20 * np.log10(truth.max() / np.sqrt(np.mean(error**2))) > psnr


def test_x_runs_along_the_columns_and_y_along_the_rows(disc):
    angles = np.arange(180.0)
    sinogram = disc(5.0, 1.0, x0=20.0, y0=-9.0).sinogram(angles, 65, 33.0)
    image = reconstruct(sinogram[:, None], angles, 33.0)[0]
    row, column = np.mgrid[:65, :65]
    weight = np.where(image > 0.5, image, 0)
    assert (weight * (column - 32)).sum() / weight.sum() == pytest.approx(20, abs=0.02)
    assert (weight * (row - 32)).sum() / weight.sum() == pytest.approx(-9, abs=0.02)


def test_slices_of_a_pair_do_not_mix(disc):
    angles = np.arange(90) * 2.0
    bright = disc(20.0, 1.0).sinogram(angles, 64, 31.5)
    volume = reconstruct(np.stack([bright, 0 * bright, bright], axis=1), angles, 31.5)
    assert np.abs(volume[1]).max() < 1e-3
    np.testing.assert_allclose(volume[0], volume[2], atol=2e-4)


def test_bits_do_not_depend_on_threads_chunks_or_order(small, name):
    projections, angles, centre = small
    expected = reconstruct(projections, angles, centre, engine=name, threads=1)
    options = {"rows": 7, "columns": 48, "angles_deg": angles}
    for threads, cuts in ((1, [5, 6, 30]), (2, [1, 17, 40]), (3, [20])):
        engine = create_engine(name, threads=threads, **options)
        bounds = [0, *cuts, 41]
        chunks = list(itertools.pairwise(bounds))
        for start, stop in reversed(chunks):
            engine.accumulate(projections[start:stop], start)
        np.testing.assert_array_equal(engine.finish(slice(None), centre), expected)
        parts = [engine.finish(slice(z, z + 3), centre) for z in (0, 3, 6)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
        np.testing.assert_array_equal(engine.finish(slice(5, 0, -2), centre), expected[5:0:-2])


def test_the_centre_is_only_needed_at_the_end(small, name):
    projections, angles, centre = small
    engine = create_engine(name, rows=7, columns=48, angles_deg=angles)
    engine.accumulate(projections, 0)
    engine.finish(slice(0, 1), 20.0)
    np.testing.assert_array_equal(
        engine.finish(slice(None), centre), reconstruct(projections, angles, centre, engine=name)
    )


def test_the_engine_fulfils_the_protocol_and_counts(small, name):
    projections, angles, _ = small
    engine = create_engine(name, rows=7, columns=48, angles_deg=angles)
    assert isinstance(engine, ReconstructionEngine)
    assert engine.name == name
    assert engine.shape == (7, 48, 48)
    assert engine.accumulated == 0
    engine.accumulate(projections[10:13], 10)
    assert engine.accumulated == 3


def test_a_preview_grows_with_the_projections(disc, name):
    angles = np.arange(120) * 1.5
    sinogram = disc(20.0, 0.03).sinogram(angles, 64, 31.5)[:, None]
    engine = create_engine(name, rows=1, columns=64, angles_deg=angles)
    middle = []
    for first in range(0, 120, 40):
        engine.accumulate(sinogram[first : first + 40], first)
        middle.append(engine.finish(slice(None), 31.5)[0, 28:36, 28:36].mean() / 0.03)
    np.testing.assert_allclose(middle, [1 / 3, 2 / 3, 1], atol=2e-3)


def test_lost_projections_are_given_up_without_losing_attenuation(disc, name):
    angles = np.arange(180.0)
    sinogram = disc(20.0, 0.03).sinogram(angles, 64, 31.5)[:, None]
    engine = create_engine(name, rows=1, columns=64, angles_deg=angles)
    lost = [0, 17, 18, 19, 90, 179]
    for number in set(range(180)) - set(lost):
        engine.accumulate(sinogram[number : number + 1], number)
    assert engine.missing == lost
    centre = (slice(None), slice(28, 36), slice(28, 36))
    before = engine.finish(slice(None), 31.5)[centre].mean()
    assert engine.give_up_missing() == lost
    after = engine.finish(slice(None), 31.5)[centre].mean()
    assert before == pytest.approx(0.03 * 174 / 180, rel=2e-3)
    assert after == pytest.approx(0.03, rel=1e-3)


def test_pixels_out_of_the_field_of_view_are_zero(disc, name):
    angles = np.arange(90) * 2.0
    sinogram = disc(18.0).sinogram(angles, 64, 20.0)[:, None]
    volume = reconstruct(sinogram, angles, 20.0, engine=name)
    distance, image = rings(volume[0], 64)
    assert not image[distance > 20.5].any()
    assert image[distance < 16].mean() == pytest.approx(0.01, rel=2e-3)


@pytest.mark.parametrize("filter_name", FILTER_NAMES)
def test_every_filter_keeps_the_attenuation(disc, filter_name):
    angles = np.arange(180.0)
    sinogram = disc(30.0, 0.02).sinogram(angles, 96, 47.5)[:, None]
    volume = reconstruct(sinogram, angles, 47.5, filter_name=filter_name)
    distance, image = rings(volume[0], 96)
    assert image[distance < 20].mean() == pytest.approx(0.02, rel=1e-3)


def test_smoother_filters_have_less_noise():
    angles = np.arange(90) * 2.0
    noise = np.random.default_rng(0).standard_normal((90, 1, 64)).astype(np.float32)
    spread = [reconstruct(noise, angles, 31.5, filter_name=f).std() for f in FILTER_NAMES]
    assert spread == sorted(spread, reverse=True)


@pytest.mark.parametrize(
    ("projections", "first", "message"),
    [
        (np.zeros((2, 7, 47), np.float32), 0, r"shape \(2, 7, 47\)"),
        (np.zeros((7, 48), np.float32), 0, r"shape \(7, 48\)"),
        (np.zeros((2, 7, 48), np.float32), 40, "projections 40 to 41 do not fit a scan of 41"),
        (np.zeros((2, 7, 48), np.float32), -1, "projections -1 to 0"),
        (np.zeros((3, 7, 48), np.float32), 3, "projection 5 was accumulated before"),
        (np.full((1, 7, 48), np.nan, np.float32), 9, "projection 9 holds NaN"),
        (np.full((1, 7, 48), np.inf, np.float32), 9, "projection 9 holds NaN or inf"),
    ],
)
def test_a_refused_chunk_changes_nothing(small, name, projections, first, message):
    engine = create_engine(name, rows=7, columns=48, angles_deg=small[1])
    engine.accumulate(small[0][5:8], 5)
    before = engine.finish(slice(None), 24.0)
    with pytest.raises(InputError, match=message):
        engine.accumulate(projections, first)
    assert engine.accumulated == 3
    np.testing.assert_array_equal(engine.finish(slice(None), 24.0), before)


@pytest.mark.parametrize("centre", [-0.1, 47.1, np.nan, np.inf])
def test_a_centre_outside_the_frame_is_refused(small, centre):
    with pytest.raises(InputError, match="lies outside the frame of 48 columns"):
        reconstruct(small[0], small[1], centre)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "warp"}, "no reconstruction engine 'warp' here; present: .*gridding.*finufft"),
        ({"filter_name": "sharp"}, "unknown filter 'sharp'; choose one of ramp, shepp"),
        ({"rows": 0}, "0 rows"),
        ({"threads": 0}, "threads is 0"),
        ({"angles_deg": []}, "angles have shape"),
        ({"rows": 10**7, "columns": 10**5}, r"needs \d+\.\d GB, .* are free: use fewer rows"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(options, message):
    given = {"name": "auto", "rows": 4, "columns": 64, "angles_deg": [0.0, 90.0], **options}
    with pytest.raises(InputError, match=message):
        create_engine(given.pop("name"), **given)


def test_giving_up_all_projections_is_refused():
    engine = create_engine(rows=2, columns=32, angles_deg=[0.0, 90.0])
    with pytest.raises(InputError, match="no projection has arrived"):
        engine.give_up_missing()


def test_no_slices_are_refused(small):
    engine = create_engine(rows=7, columns=48, angles_deg=small[1])
    with pytest.raises(InputError, match="no slices"):
        engine.finish(slice(7, 9), 24.0)


def test_angles_must_match_the_projections(small):
    with pytest.raises(InputError, match="41 projections, but 40 angles"):
        reconstruct(small[0], small[1][:-1], 24.0)


def test_the_memory_estimate_grows_with_the_scan(name):
    small = required_bytes(16, 256, 180, name=name, threads=1)
    assert required_bytes(32, 256, 180, name=name, threads=1) > small
    assert required_bytes(16, 256, 360, name=name, threads=1) > small
    assert required_bytes(16, 256, 180, name=name, threads=2) > small


def test_the_engine_stays_within_its_memory_estimate(name):
    angles = np.arange(90) * 2.0
    projections = np.zeros((90, 32, 128), dtype=np.float32)
    # What is loaded or compiled once is no memory of the scan.
    reconstruct(projections[:1, :1], angles[:1], 60.0, engine=name)
    tracemalloc.start()
    engine = create_engine(name, rows=32, columns=128, angles_deg=angles, threads=1)
    engine.accumulate(projections, 0)
    volume = engine.finish(slice(None), 63.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - volume.nbytes < 1.05 * required_bytes(32, 128, 90, name=name, threads=1)


def test_auto_takes_the_best_present():
    assert engine_names()[0] == create_engine(rows=1, columns=16, angles_deg=[0.0]).name


def test_the_processor_engines_are_ranked_by_speed():
    names = engine_names()
    assert names.index("gridding") < names.index("finufft")


def test_a_held_centre_is_checked_by_every_engine(small, name):
    engine = create_engine(name, rows=7, columns=48, angles_deg=small[1])
    with pytest.raises(InputError, match="lies outside the frame"):
        engine.hold_centre(48.0)
    engine.hold_centre(24.0)
    engine.accumulate(small[0], 0)
    expected = reconstruct(small[0], small[1], 24.0, engine=name)
    np.testing.assert_allclose(
        engine.finish(slice(None), 24.0), expected, atol=1e-5 * expected.max()
    )
