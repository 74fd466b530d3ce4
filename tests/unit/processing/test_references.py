from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import average_reference, bad_pixels, find_bad_references


def test_the_average_is_the_mean_in_float32():
    frames = np.array([[[1, 65535]], [[2, 65535]], [[4, 65534]]], dtype=np.uint16)
    mean = average_reference(frames, what="darks")
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, [[7 / 3, 65534 + 2 / 3]], rtol=1e-7)


def test_many_bright_frames_do_not_lose_precision():
    frames = np.full((5000, 1, 2), 60001, dtype=np.uint16)
    assert (average_reference(frames, what="flats") == 60001).all()


@pytest.mark.parametrize(
    ("frames", "what", "message"),
    [
        (np.zeros((0, 4, 4)), "darks", r"darks have shape \(0, 4, 4\)"),
        (np.zeros((4, 4)), "flats", r"flats have shape \(4, 4\)"),
        (np.full((2, 3, 3), np.nan), "darks", "darks hold NaN or infinite counts in 9 of 9"),
        (np.array([[[np.inf, 1]], [[-np.inf, 1]]]), "flats", "flats hold NaN .* in 1 of 2"),
        (np.zeros((3, 2, 2), dtype=np.uint16), "flats", "all 3 flats are zero"),
    ],
)
def test_unusable_references_are_refused_by_name(frames, what, message):
    with pytest.raises(InputError, match=message):
        average_reference(frames, what=what)


def test_darks_may_be_zero():
    assert not average_reference(np.zeros((2, 3, 3), dtype=np.uint16), what="darks").any()


def test_dead_hot_and_weak_pixels_are_found_and_stripes_are_not():
    rng = np.random.default_rng(3)
    dark = rng.normal(100, 3, (40, 60))
    flat = 100 + 30000 * rng.normal(1, 0.02, (1, 60)) * np.linspace(0.6, 1, 40)[:, None]
    flat[:, 30] *= 0.8
    planted = np.zeros((40, 60), dtype=bool)
    planted[[3, 17, 39, 0], [5, 59, 0, 0]] = True
    flat[3, 5] = dark[3, 5]
    flat[17, 59] = dark[17, 59] - 2
    dark[39, 0] = flat[39, 0] = 65535
    flat[0, 0] = 100 + 3000
    np.testing.assert_array_equal(bad_pixels(dark, flat), planted)


def test_a_dead_module_wider_than_the_neighbourhood_is_found():
    rng = np.random.default_rng(4)
    dark = rng.normal(100, 1, (32, 64))
    flat = dark + 20000
    flat[:, 20:40] = rng.normal(101, 1, (32, 20))
    bad = bad_pixels(dark, flat)
    assert bad[:, 20:40].all()
    assert not bad[:, :20].any()
    assert not bad[:, 40:].any()


@pytest.mark.parametrize(
    ("dark", "flat", "message"),
    [
        (np.full((3, 4), 9.0), np.full((3, 4), 9.0), "nowhere brighter"),
        (np.zeros((3, 4)), np.ones((4, 3)), "of one camera"),
        (np.zeros((3, 4)), np.full((3, 4), np.nan), "mean flat holds NaN"),
        (np.zeros(4), np.ones(4), r"mean dark has shape \(4,\)"),
    ],
)
def test_references_that_do_not_fit_are_refused(dark, flat, message):
    with pytest.raises(InputError, match=message):
        bad_pixels(dark, flat)


def series(count: int, level: float, seed: int = 0) -> np.ndarray:
    """Frames of a detector with structure and noise."""
    rng = np.random.default_rng(seed)
    structure = 1 + 0.2 * rng.standard_normal((40, 60)) + np.linspace(-0.3, 0.3, 60)
    return rng.poisson(np.maximum(level * structure, 1), (count, 40, 60)).astype(np.uint16)


def half_shut(flats):
    flats[3, :8] = 100


def dumped(flats):
    flats[0] = flats[7] = 90


def dim(flats):
    flats[5] = flats[5] // 2


def lit(darks):
    darks[2] += 400


def lit_at_an_edge(darks):
    darks[9, :, 55:] += 200


@pytest.mark.parametrize(
    ("what", "level", "spoil", "bad"),
    [
        ("flats", 20000, half_shut, {3: "lit differently"}),
        ("flats", 20000, dumped, {0: "0% of the brightness", 7: "0% of the brightness"}),
        ("flats", 20000, dim, {5: "50% of the brightness"}),
        ("darks", 100, lit, {2: "brighter"}),
        ("darks", 100, lit_at_an_edge, {9: "brighter"}),
        ("flats", 20000, lambda _: None, {}),
        ("darks", 100, lambda _: None, {}),
        ("darks", 0, lambda _: None, {}),
        ("flats", 20, lambda _: None, {}),
    ],
)
def test_references_unlike_the_others_are_found_and_named(what, level, spoil, bad):
    frames = series(10, level)
    spoil(frames)
    found = find_bad_references(frames, what=what)
    assert found.keys() == bad.keys()
    for number, said in bad.items():
        assert said in found[number]


def test_flats_from_before_and_after_a_beam_that_decays_are_all_good():
    frames = np.concatenate([series(8, 20000), series(8, 17000, seed=0)])
    assert find_bad_references(frames, what="flats") == {}


def test_a_reference_with_nan_is_found():
    frames = series(5, 1000).astype(np.float32)
    frames[4, 3, 3] = np.nan
    assert find_bad_references(frames, what="darks") == {4: "holds NaN or infinite counts"}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_few_flats_the_dark_one_is_bad_and_one_alone_is_good(count):
    frames = series(count, 20000)
    assert find_bad_references(frames, what="flats") == {}
    if count > 1:
        frames[0] = 80
        assert list(find_bad_references(frames, what="flats")) == [0]


def test_flats_that_are_all_zero_are_left_to_the_average():
    frames = np.zeros((4, 8, 8), np.uint16)
    assert find_bad_references(frames, what="flats") == {}


def test_ignored_references_do_not_count():
    frames = np.array([[[10]], [[999]], [[20]]], np.uint16)
    assert average_reference(frames, what="flats", ignore=[1])[0, 0] == 15
    with pytest.raises(InputError, match="all 3 flats are ignored"):
        average_reference(frames, what="flats", ignore=[0, 1, 2])


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 3, 100), (4, 9, 5)])
def test_frames_of_any_size_are_judged(shape):
    assert find_bad_references(np.full(shape, 50, np.uint16), what="flats") == {}
