"""Volumes slab by slab: what comes out does not depend on how they were cut."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from apsber_bluesky.core import DenoiseSettings, InputError, SegmentSettings
from apsber_bluesky.processing.learned import (
    Denoiser,
    Segmenter,
    Transformer,
    load_model,
    object_level,
)

LEVEL = 0.02


@pytest.fixture
def volume():
    """Eleven slices of noise around the level, in 1/pixel."""
    values = np.random.default_rng(3).normal(LEVEL, LEVEL / 2, (11, 40, 51))
    return values.astype(np.float32)


@pytest.fixture
def denoiser(make_model, tmp_path):
    return Denoiser(load_model(make_model(), tmp_path, DenoiseSettings(device="cpu")))


@pytest.fixture
def segmenter(make_model, tmp_path):
    card = make_model("segment", temperature=0.1)
    return Segmenter(load_model(card, tmp_path, SegmentSettings(device="cpu")))


def joined(answers):
    """Answers in one piece, once it is sure that they follow each other."""
    parts, place = [], 0
    for first, part in answers:
        assert first == place
        place += len(part)
        parts.append(part)
    return np.concatenate(parts)


@pytest.mark.parametrize("slab", [1, 2, 3, 7])
def test_a_denoised_volume_does_not_depend_on_its_slabs(denoiser, volume, slab):
    whole = joined(denoiser.slabs(volume.shape, LEVEL).run(volume, 11))
    assert whole.shape == volume.shape
    assert np.abs(whole - volume).max() > 0.1 * LEVEL
    cut = joined(denoiser.slabs(volume.shape, LEVEL).run(volume, slab))
    np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_ends_of_a_volume_and_volumes_thinner_than_the_network_are_mirrored(
    denoiser, volume, depth
):
    thin = volume[:depth]
    answer = joined(denoiser.slabs(thin.shape, LEVEL).run(thin, 2))
    wide = np.pad(thin, ((2, 2), (0, 0), (0, 0)), "reflect" if depth > 1 else "edge")
    windows = np.stack([wide[z : z + 5] for z in range(depth)]) / np.float32(LEVEL)
    expected = LEVEL * denoiser.model.apply(windows)[:, 0]
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-7)


def test_slabs_may_be_reused_once_they_were_handed_over(denoiser, volume):
    whole = joined(denoiser.slabs(volume.shape, LEVEL).run(volume, 11))
    stream, answers, buffer = denoiser.slabs(volume.shape, LEVEL), [], np.empty((1, 40, 51), "f4")
    for image in volume:
        buffer[0] = image
        answers += stream.push(buffer)
        buffer[:] = 1e3
    np.testing.assert_array_equal(joined([*answers, *stream.finish()]), whole)


def test_a_denoiser_knows_no_unit(denoiser, volume):
    """Without biases the network is homogeneous; units are the volume's."""
    pixel_um = 0.65
    per_metre = volume / (1e-6 * pixel_um)
    first = joined(denoiser.slabs(volume.shape, LEVEL).run(volume))
    second = joined(
        denoiser.slabs(
            volume.shape, LEVEL / (1e-6 * pixel_um), unit="1/m", pixel_size_um=pixel_um
        ).run(per_metre)
    )
    np.testing.assert_allclose(second * 1e-6 * pixel_um, first, atol=1e-5 * LEVEL)


def test_a_volume_on_disk_is_read_a_few_slices_at_a_time(denoiser, volume, tmp_path):
    class OnDisk:
        """A mapped file that remembers how much of it was wanted at once."""

        def __init__(self, path):
            np.save(path, volume)
            self.mapped, self.most = np.load(path, mmap_mode="r"), 0
            self.shape = self.mapped.shape

        def __getitem__(self, key):
            part = self.mapped[key]
            self.most = max(self.most, len(part))
            return part

    disk = OnDisk(tmp_path / "volume.npy")
    read = joined(denoiser.slabs(disk.shape, LEVEL).run(disk, 4))
    assert disk.most == 4
    np.testing.assert_array_equal(read, joined(denoiser.slabs(disk.shape, LEVEL).run(volume)))


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "<u2"])
def test_slabs_of_any_real_dtype_are_taken_as_float32(denoiser, dtype):
    values = np.random.default_rng(1).integers(1, 30, (3, 16, 16)).astype(dtype)
    expected = joined(denoiser.slabs((3, 16, 16), 15.0).run(values.astype(np.float32)))
    np.testing.assert_array_equal(joined(denoiser.slabs((3, 16, 16), 15.0).run(values)), expected)


def test_tensors_go_in_and_come_out_as_tensors(denoiser, volume):
    (answer,) = denoiser.slabs((1, 40, 51), LEVEL).run(torch.from_numpy(volume[:1]))
    assert isinstance(answer[1], torch.Tensor)
    np.testing.assert_array_equal(
        answer[1].numpy(), joined(denoiser.slabs((1, 40, 51), LEVEL).run(volume[:1]))
    )


def test_labels_probabilities_and_uncertainty_belong_together(segmenter, volume):
    stream = segmenter.slabs(volume.shape, LEVEL, probabilities=True)
    answers = list(stream.run(volume, 4))
    labels = joined((first, answer.labels) for first, answer in answers)
    unsure = joined((first, answer.uncertainty) for first, answer in answers)
    likely = np.concatenate([answer.probabilities for _, answer in answers], axis=1)
    assert (labels.dtype, unsure.dtype, likely.dtype) == (np.uint8, np.float16, np.float16)
    assert labels.shape == unsure.shape == volume.shape
    assert likely.shape == (3, *volume.shape)
    assert set(np.unique(labels)) == {0, 1, 2}
    exact = likely.astype(np.float64)
    np.testing.assert_allclose(exact.sum(0), 1, atol=2e-3)
    # Where two are equal in float16 either may be named.
    chosen = np.take_along_axis(exact, labels[None].astype(int), 0)[0]
    np.testing.assert_array_equal(chosen, exact.max(0))
    entropy = -(exact * np.log(np.maximum(exact, 1e-9))).sum(0) / np.log(3)
    np.testing.assert_allclose(unsure, entropy, atol=4e-3)


def test_temperature_changes_how_sure_a_segmenter_is_and_not_what_it_says(
    make_model, tmp_path, volume
):
    def answer(temperature):
        card = make_model("segment", temperature=temperature)
        model = load_model(card, tmp_path, SegmentSettings(device="cpu"))
        (only, _) = Segmenter(model).slabs(volume.shape, LEVEL).run(volume, 11)
        return only[1]

    sharp, flat = answer(0.05), answer(0.2)
    np.testing.assert_array_equal(sharp.labels, flat.labels)
    assert flat.uncertainty.mean() > sharp.uncertainty.mean() + 0.05


def test_what_nobody_wants_is_not_made(segmenter, volume):
    (answer, *_) = segmenter.slabs(volume.shape, LEVEL, uncertainty=False).run(volume, 11)
    assert (answer[1].uncertainty, answer[1].probabilities) == (None, None)


def test_any_model_can_be_run_for_its_raw_answers(segmenter, volume):
    raw = joined(Transformer(segmenter.model).slabs(volume.shape, LEVEL).run(volume, 5))
    assert raw.shape == (11, 3, 40, 51)
    (answer, *_) = segmenter.slabs(volume.shape, LEVEL).run(volume, 11)
    np.testing.assert_array_equal(raw[:9].argmax(1), answer[1].labels)


def test_the_level_of_an_object_comes_from_its_slices(denoiser):
    block = np.full((3, 64, 64), 0.001, np.float32)
    block[:, 16:48, 16:48] = LEVEL
    block += np.random.default_rng(0).normal(0, LEVEL / 10, block.shape)
    assert object_level(block) == pytest.approx(LEVEL, rel=0.03)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 40, 50), "does not fit"), ((12, 40, 51), "does not fit"), ((40, 51), "does not fit")],
)
def test_a_slab_of_another_shape_is_refused(denoiser, volume, shape, message):
    with pytest.raises(InputError, match=message):
        denoiser.slabs(volume.shape, LEVEL).push(np.zeros(shape, np.float32))


def test_a_volume_that_ends_early_is_not_called_finished(denoiser, volume):
    stream = denoiser.slabs(volume.shape, LEVEL)
    stream.push(volume[:4])
    with pytest.raises(InputError, match="4 of 11 slices"):
        stream.finish()


def test_nan_is_refused_with_its_place_in_the_volume(denoiser, volume):
    volume[7, 3, 4:6] = np.nan
    volume[9, 0, 0] = np.inf
    with pytest.raises(InputError, match=r"3 NaN or infinite .* the first in slice 7"):
        list(denoiser.slabs(volume.shape, LEVEL).run(volume, 5 + 6))


def test_another_unit_is_refused_and_a_little_too_far_is_warned_of(denoiser, volume, caplog):
    with pytest.raises(InputError, match=r"far beyond .* -3 to 4 level .* is the unit right"):
        list(denoiser.slabs(volume.shape, LEVEL / 50).run(volume))
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        list(denoiser.slabs(volume.shape, LEVEL / 3).run(volume, 3))
    (warning,) = caplog.records
    assert "beyond what model test-denoise was trained on" in warning.message


@pytest.mark.parametrize("level", [None, 0.0, -1.0, float("nan")])
def test_a_level_must_be_a_positive_number(denoiser, level):
    with pytest.raises(InputError, match="needs the level of the object"):
        denoiser.slabs((3, 8, 8), level)


def test_another_pixel_size_is_refused_and_an_unknown_one_warned_of(make_model, tmp_path, caplog):
    card = make_model(input={"pixel_size_um": (0.5, 2.0)})
    denoiser = Denoiser(load_model(card, tmp_path, DenoiseSettings(device="cpu")))
    with pytest.raises(InputError, match=r"pixels of 0.5 to 2 um, those of the volume have 5 um"):
        denoiser.slabs((3, 8, 8), 1.0, pixel_size_um=5.0)
    assert not caplog.records
    denoiser.slabs((3, 8, 8), 1.0, pixel_size_um=1.0)
    assert not caplog.records
    denoiser.slabs((3, 8, 8), 1.0)
    assert "pixels of 0.5 to 2 um; those of the volume are not known" in caplog.text


@pytest.mark.parametrize("unit", ["1/pixel", "1/m"])
def test_models_of_a_physical_unit_get_it_from_either_unit(make_model, tmp_path, unit):
    other = "1/m" if unit == "1/pixel" else "1/pixel"
    card = make_model(input={"unit": unit, "minimum": -1e9, "maximum": 1e9})
    denoiser = Denoiser(load_model(card, tmp_path, DenoiseSettings(device="cpu")))
    values = np.random.default_rng(0).normal(5, 1, (3, 16, 16)).astype(np.float32)
    factor = 1e-6 if unit == "1/pixel" else 1e6
    own = joined(denoiser.slabs(values.shape, unit=unit).run(values))
    scaled = denoiser.slabs(values.shape, unit=other, pixel_size_um=1.0).run(values / factor)
    np.testing.assert_allclose(joined(scaled) * factor, own, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="the pixel size is not known"):
        denoiser.slabs(values.shape, unit=other)


def test_a_model_of_frames_takes_no_volume_and_tasks_are_not_mixed(make_model, tmp_path):
    card = make_model(input={"unit": "counts", "maximum": 1e5})
    model = load_model(card, tmp_path, DenoiseSettings(device="cpu"))
    with pytest.raises(InputError, match=r"takes raw frames"):
        Denoiser(model).slabs((3, 8, 8), 1.0)
    with pytest.raises(InputError, match="is one to denoise, not to segment"):
        Segmenter(model)
