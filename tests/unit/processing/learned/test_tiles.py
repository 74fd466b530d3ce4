"""Tiles and padding: an image's answer does not depend on how it was cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apsber_bluesky.core import DenoiseSettings
from apsber_bluesky.processing.learned import learned_bytes, load_model
from apsber_bluesky.processing.learned._memory import reach_of
from apsber_bluesky.processing.learned._tiles import cut, mirrored


@pytest.mark.parametrize("length", [64, 72, 200, 1000, 1024, 4096])
@pytest.mark.parametrize(("tile", "overlap"), [(64, 0), (64, 32), (128, 48), (512, 208), (64, 900)])
@pytest.mark.parametrize("reach", [0, 23, 4096])
def test_tiles_cover_an_axis_and_their_weights_sum_to_one(length, tile, overlap, reach):
    tiling = cut(length, tile, overlap, 8, reach)
    total, touched = np.zeros(length), np.zeros(length)
    for start, weight in zip(tiling.starts, tiling.weights, strict=True):
        assert start % 8 == 0
        assert weight.shape == (tiling.size,)
        assert weight.min() >= 0
        total[start : start + tiling.size] += weight
        touched[start : start + tiling.size] += 1
    assert tiling.size <= tile
    assert tiling.size % 8 == 0
    assert touched.min() >= 1
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_nothing_counts_that_a_cut_could_have_changed():
    tiling = cut(1000, 256, 96, 8, 47)
    for number, weight in enumerate(tiling.weights):
        assert number == 0 or not weight[:47].any()
        assert number == len(tiling.starts) - 1 or not weight[-47:].any()


def test_mirrored_places_do_not_repeat_the_outermost():
    assert mirrored(-2, 6, 4).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]
    assert mirrored(-3, 3, 2).tolist() == [1, 0, 1, 0, 1, 0]
    assert mirrored(-2, 3, 1).tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8)])
def test_the_reach_is_where_the_network_stops_looking(make_model, network, widths):
    card = make_model(widths=widths)
    size = 8 * 2 ** len(widths) * len(widths)
    images = torch.rand(1, 5, size, size, requires_grad=True)
    answer = network(widths=widths)(images)
    middle, reach = size // 2, reach_of(card.network)
    looked_at = []
    # Pixels of one cell of the coarsest level look in different directions.
    for place in range(middle, middle + 2 ** len(widths)):
        (gradient,) = torch.autograd.grad(answer[0, 0, place, middle], images, retain_graph=True)
        rows = torch.nonzero(gradient.abs().sum((0, 1, 3)))[:, 0] - place
        looked_at += [-int(rows.min()), int(rows.max())]
    assert max(looked_at) <= reach
    # Not much more than needed is shared by tiles either.
    assert max(looked_at) >= 0.7 * reach


@pytest.mark.parametrize("shape", [(3, 5), (64, 64), (150, 201)])
def test_an_answer_has_the_size_of_its_image_and_repeats(make_model, tmp_path, shape):
    card = make_model()
    images = np.random.default_rng(0).normal(size=(2, 5, *shape)).astype(np.float32)
    model = load_model(card, tmp_path, DenoiseSettings(device="cpu"))
    answer = model.apply(images)
    assert answer.shape == (2, 1, *shape)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(model.apply(images), answer)


@pytest.mark.parametrize("tile", [200, 129, 96])
def test_an_image_in_tiles_is_answered_as_a_whole_one(make_model, tmp_path, tile):
    card = make_model()
    images = np.random.default_rng(0).normal(size=(1, 5, 301, 150)).astype(np.float32)
    whole = load_model(card, tmp_path, DenoiseSettings(device="cpu")).apply(images)
    tiles = load_model(card, tmp_path, DenoiseSettings(device="cpu", tile=tile)).apply(images)
    np.testing.assert_allclose(tiles, whole, atol=2e-6 * np.abs(whole).max())


def test_with_less_overlap_than_needed_seams_are_small_and_smaller_with_more(make_model, tmp_path):
    card = make_model()
    images = np.random.default_rng(0).normal(size=(1, 5, 300, 64)).astype(np.float32)

    def answer(**settings):
        model = load_model(card, tmp_path, DenoiseSettings(device="cpu", **settings))
        return model.apply(images)

    whole = answer()
    worst = [np.abs(answer(tile=96, overlap=n) - whole).max() for n in (0, 8, 16)]
    assert worst[0] > worst[1] > worst[2] > 0


def test_memory_grows_with_what_is_worked_on_at_once(make_model):
    card = make_model()

    def needed(rows=1024, columns=1024, slices=8, **settings):
        return learned_bytes(card, rows, columns, slices, DenoiseSettings(**settings))

    assert needed() > needed(tile=256) > needed(tile=256, slices=1)
    assert needed(rows=2048) > 1.9 * needed()
    with pytest.raises(ValueError, match="0 slices of 1024 x 1024"):
        needed(slices=0)
