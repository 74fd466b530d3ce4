"""Devices, precision, repeatable bits, and too little memory."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from apsber_bluesky.core import ConfigurationError, DenoiseSettings, InputError
from apsber_bluesky.processing.learned import Model, load_model
from apsber_bluesky.processing.learned._arrays import as_tensor, like
from apsber_bluesky.processing.learned._placement import numerics


@pytest.fixture
def images():
    return np.random.default_rng(2).normal(size=(3, 5, 96, 80)).astype(np.float32)


def answer(card, folder, images, **settings):
    return load_model(card, folder, DenoiseSettings(device="cpu", **settings)).apply(images)


def test_bfloat16_is_close_to_float32_and_not_the_same(make_model, tmp_path, images):
    card = make_model()
    exact = answer(card, tmp_path, images)
    rounded = answer(card, tmp_path, images, precision="bfloat16")
    assert rounded.dtype == np.float32
    difference = np.abs(rounded - exact)
    assert 0 < difference.max() < 0.03 * np.abs(exact).max()


def test_auto_is_float32_on_a_processor(make_model, tmp_path):
    model = load_model(make_model(), tmp_path, DenoiseSettings(device="cpu"))
    assert (model.device, model.precision) == ("cpu", "float32")


def test_equal_bits_for_any_number_of_threads_when_asked_for(make_model, tmp_path, images):
    card = make_model(widths=(32, 64))
    answers = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        answers.append(answer(card, tmp_path, images, deterministic=True))
        assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(answers[0], answers[1])


@pytest.mark.parametrize("before", [True, False])
def test_what_is_changed_in_torch_is_put_back_even_after_a_failure(make_model, tmp_path, before):
    card = make_model()
    asked = DenoiseSettings(device="cpu", deterministic=True, precision="bfloat16")
    seen = []

    class Watching(torch.nn.Module):
        def forward(self, images):
            seen.append((torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()))
            raise RuntimeError("no such thing")

    model = Model(card, Watching(), asked, torch.device("cpu"), "bfloat16")
    torch.use_deterministic_algorithms(before, warn_only=before)
    try:
        with pytest.raises(InputError, match=r"fails on images .* no such thing"):
            model.apply(np.zeros((1, 5, 8, 8), np.float32))
        assert seen == [(True, False)]
        assert torch.are_deterministic_algorithms_enabled() is before
        assert torch.is_deterministic_algorithms_warn_only_enabled() is before
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("deterministic", [False, True])
def test_on_a_gpu_float32_is_not_rounded_to_tf32(deterministic):
    """The switches of cuDNN are there without a GPU, too."""
    switches = torch.backends.cudnn
    before = switches.allow_tf32, switches.benchmark, switches.deterministic
    with numerics(torch.device("cuda"), "float32", deterministic=deterministic):
        assert not switches.allow_tf32
        assert (switches.benchmark, switches.deterministic) == (not deterministic, deterministic)
    assert (switches.allow_tf32, switches.benchmark, switches.deterministic) == before


def test_two_models_at_once_leave_torch_as_it_was(make_model, network, images):
    """Each waits for the other to put back what it has changed."""
    card, asked = make_model(), DenoiseSettings(device="cpu", deterministic=True)
    begun, seen = threading.Event(), []

    class Watching(torch.nn.Module):
        def __init__(self, wait):
            super().__init__()
            self.inner, self.wait = network(), wait

        def forward(self, images):
            begun.set()
            # Long enough for the other to meddle, if it could.
            time.sleep(self.wait)
            seen.append(torch.are_deterministic_algorithms_enabled())
            return self.inner(images)

    def run(wait):
        model = Model(card, Watching(wait), asked, torch.device("cpu"), "float32")
        return model.apply(images[:1])

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(run, 0.2)
        assert begun.wait(60)
        second = threads.submit(run, 0.0)
        np.testing.assert_array_equal(first.result(), second.result())
    assert seen == [True, True]
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:97", r"device 'cuda:97' was asked for, but torch .* finds \d+ cuda devices"),
        ("tpu", "'tpu' is none that torch knows"),
        ("meta", "'meta' is not supported"),
    ],
)
def test_a_device_that_is_not_there_is_named(make_model, tmp_path, name, message):
    with pytest.raises(ConfigurationError, match=message):
        load_model(make_model(), tmp_path, DenoiseSettings(device=name))


@pytest.mark.skipif(torch.cuda.is_available() or torch.xpu.is_available(), reason="there is a GPU")
def test_auto_is_the_processor_where_there_is_no_gpu(make_model, tmp_path):
    assert load_model(make_model(), tmp_path, DenoiseSettings()).device == "cpu"


class SmallMemory(torch.nn.Module):
    """The network on a device that has room for so many pixels, as torch says it."""

    def __init__(self, network, pixels):
        super().__init__()
        self.network, self.pixels, self.asked = network, pixels, []

    def forward(self, images):
        self.asked.append(tuple(images.shape))
        if images.shape[0] * images.shape[2] * images.shape[3] > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return self.network(images)


def small_model(card, network, pixels, **settings):
    device = torch.device("cpu")
    asked = DenoiseSettings(device="cpu", **settings)
    model = Model(card, SmallMemory(network(), pixels), asked, device, "float32")
    model._batch_pixels = 1 << 22  # as on a GPU
    return model


def test_with_too_little_memory_fewer_images_and_then_smaller_tiles_are_taken(
    make_model, network, tmp_path, caplog
):
    card = make_model()
    images = np.random.default_rng(2).normal(size=(4, 5, 256, 256)).astype(np.float32)
    expected = answer(card, tmp_path, images)
    model = small_model(card, network, 128 * 128)
    with caplog.at_level(logging.WARNING):
        found = model.apply(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    said = [record.message.rpartition("going on with ")[2] for record in caplog.records]
    assert said == ["batches of 2", "batches of 1", "tiles of 128 pixels"]
    caplog.clear()
    model.apply(images)
    # What was learned of the device is remembered.
    assert not caplog.records


def test_what_does_not_even_fit_as_a_small_tile_is_an_error(make_model, network):
    model = small_model(make_model(), network, 100)
    with pytest.raises(InputError, match=r"does not fit into the memory of cpu .* smaller tile"):
        model.apply(np.zeros((1, 5, 256, 256), np.float32))


def test_repeatable_bits_do_not_depend_on_how_much_memory_was_free(make_model, network):
    model = small_model(make_model(), network, 128 * 128, deterministic=True)
    with pytest.raises(InputError, match="does not fit"):
        model.apply(np.zeros((1, 5, 256, 256), np.float32))


def test_arrays_become_tensors_and_come_back_without_a_copy():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = as_tensor(array)
    assert tensor.data_ptr() == array.ctypes.data
    back = like(tensor, array)
    assert isinstance(back, np.ndarray)
    assert back.ctypes.data == array.ctypes.data
    # Lists, and arrays that torch cannot share, are copied.
    assert as_tensor([[1, 2]]).tolist() == [[1.0, 2.0]]
    array.flags.writeable = False
    assert as_tensor(array[::-1]).tolist() == array[::-1].tolist()


def test_any_library_that_speaks_dlpack_is_taken():
    class Foreign:
        """What CuPy's arrays have, over memory of the processor."""

        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    array = np.arange(4, dtype=np.float32)
    assert as_tensor(Foreign(array)).data_ptr() == array.ctypes.data
