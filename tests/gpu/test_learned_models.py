"""Learned models on a GPU, against the processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apsber_bluesky.core import DenoiseSettings, ModelInput, NetworkShape
from apsber_bluesky.processing.learned import Denoiser, SliceNetwork, load_model, write_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def card(tmp_path):
    """A denoiser with weights drawn by chance."""
    torch.manual_seed(7)
    shape = NetworkShape(slices=5, outputs=1, widths=[32, 64, 128], biases=False, residual=True)
    network = SliceNetwork(**shape.model_dump())
    torch.nn.init.normal_(network.last.weight, 0, 0.1)
    about = {
        "name": "test", "version": "1", "description": "Drawn by chance.", "task": "denoise",
        "network": shape,
        "input": ModelInput(slices=5, unit="level", minimum=-4, maximum=4),
    }  # fmt: skip
    return write_model(tmp_path, network, about)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(6, 5, 300, 280)).astype(np.float32)


def answer(card, folder, images, **settings):
    return load_model(card, folder, DenoiseSettings(**settings)).apply(images)


def test_a_gpu_says_what_the_processor_says(card, tmp_path, images):
    expected = answer(card, tmp_path, images, device="cpu")
    exact = answer(card, tmp_path, images, device="cuda", precision="float32")
    np.testing.assert_allclose(exact, expected, atol=1e-4)
    rounded = answer(card, tmp_path, images, device="cuda", precision="bfloat16")
    assert 0 < np.abs(rounded - expected).max() < 0.05 * np.abs(expected).max()


def test_bits_repeat_when_asked_for(card, tmp_path, images):
    first, second = (
        answer(card, tmp_path, images, device="cuda", deterministic=True) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_arrays_of_cupy_stay_on_the_device(card, tmp_path, images):
    cupy = pytest.importorskip("cupy")
    model = load_model(card, tmp_path, DenoiseSettings(device="cuda", precision="float32"))
    given = cupy.asarray(images)
    found = model.apply(given)
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_allclose(found.get(), model.apply(images), atol=1e-5)
    volume = cupy.asarray(images[:, 0])
    for _, part in Denoiser(model).slabs(volume.shape, 1.0).run(volume, 2):
        assert isinstance(part, cupy.ndarray)


def test_with_too_little_memory_smaller_pieces_are_taken(card, tmp_path, caplog):
    images = np.random.default_rng(0).normal(size=(2, 5, 2048, 2048)).astype(np.float32)
    model = load_model(card, tmp_path, DenoiseSettings(device="cuda", precision="float32"))
    expected = model.apply(images)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # Room for the images and part of what the network makes of them.
    torch.cuda.set_per_process_memory_fraction(0.9e9 / total)
    try:
        found = model.apply(images)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "going on with" in caplog.text
    np.testing.assert_allclose(found, expected, atol=1e-4)
