"""What a scan's parts tell about noise, and what a training begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned import (
    ExampleFolder,
    average_the_others,
    begin_with,
    denoiser_recipe,
    independence,
    segmenter_recipe,
    self_supervised_recipe,
)

NOISE = 0.2


def noisy_parts(count: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth object, and parts of it with independent noise."""
    random = np.random.default_rng(seed)
    rows = np.arange(64, dtype=np.float32) / 64
    truth = np.broadcast_to(rows[:, None] + rows[None, :], (12, 64, 64))
    noise = random.standard_normal((count, *truth.shape), np.float32)
    return truth, truth + np.float32(NOISE) * noise


def test_what_goes_in_has_nothing_of_the_part_that_should_come_out() -> None:
    _, parts = noisy_parts(3)
    inputs = average_the_others(parts)
    np.testing.assert_allclose(inputs[1], (parts[0] + parts[2]) / 2, rtol=1e-5, atol=1e-7)
    parts[1] += 1000
    np.testing.assert_allclose(average_the_others(parts)[1], inputs[1], atol=1e-3)
    with pytest.raises(InputError, match="split it into 2 or more"):
        average_the_others(parts[:1])


def test_streaks_that_cancel_between_parts_are_told_from_noise() -> None:
    _, parts = noisy_parts()
    assert independence(parts) == pytest.approx(1, abs=0.03)
    streak = np.random.default_rng(5).standard_normal(parts.shape[1:], np.float32) * NOISE
    streaky = parts + np.array([1, 1, -1, -1], np.float32)[:, None, None, None] * streak
    assert independence(streaky) < 0.6
    assert independence(parts[:2]) is None
    assert independence(parts[:3]) is None


def test_errors_are_told_without_the_truth(tmp_path: Path) -> None:
    truth, parts = noisy_parts()
    folder = ExampleFolder.create(tmp_path, "test", [])
    folder.add(average_the_others(parts), targets=parts)
    recipe = self_supervised_recipe(steps=1, learning_rate=1e-3)
    network = recipe.network()
    figures = recipe.figures(network, folder).values
    assert figures["held_out_part_noise"] == pytest.approx(NOISE, rel=0.03)
    # Untrained, the network answers with what went in.
    assert figures["held_out_rms_before"] == pytest.approx(NOISE / 3**0.5, rel=0.05)
    assert figures["held_out_gain_db"] == pytest.approx(0, abs=1e-3)
    perfect = ExampleFolder.create(tmp_path / "perfect", "test", [])
    perfect.add(np.broadcast_to(truth, parts.shape), targets=parts)
    figures = recipe.figures(network, perfect).values
    assert figures.get("held_out_rms_after", 0.0) < 0.2 * NOISE


def test_a_training_begins_with_the_weights_of_a_model(make_model, tmp_path: Path) -> None:
    card = make_model(widths=(8, 12))
    recipe, network = begin_with(denoiser_recipe(steps=1), card, tmp_path)
    assert recipe.shape == card.network
    assert recipe.network().state_dict().keys() == network.state_dict().keys()
    assert network.last.weight.std() > 0.1  # of new ones it would be 0


def test_a_segmenter_of_other_classes_keeps_all_but_the_last_layer(make_model, tmp_path) -> None:
    card = make_model("segment", widths=(8, 12))
    _, old = begin_with(segmenter_recipe(3, steps=1), card, tmp_path)
    recipe, new = begin_with(segmenter_recipe(5, steps=1), card, tmp_path)
    assert (recipe.shape.outputs, recipe.shape.widths) == (5, [8, 12])
    for name, value in new.state_dict().items():
        if name.startswith("last."):
            assert len(value) == 4 * 5
        else:
            torch.testing.assert_close(value, old.state_dict()[name])


def test_a_model_that_cannot_be_begun_with_is_refused(make_model, tmp_path: Path) -> None:
    card = make_model("segment")
    with pytest.raises(InputError, match="is one to segment, not to denoise"):
        begin_with(denoiser_recipe(steps=1), card, tmp_path)
    other = make_model("denoise", input={"unit": "1/pixel"})
    with pytest.raises(InputError, match="begin with one that takes level"):
        begin_with(denoiser_recipe(steps=1), other, tmp_path)
