"""``apsber reconstruct --denoise --segment``: models that follow a reconstruction from disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from apsber_bluesky.core import DenoiseSettings, SegmentSettings
from apsber_bluesky.storage import open_volume, read_volume_info

pytest.importorskip("torch")

ENGINE = ("--engine", "finufft", "--centre", 30.4, "--jobs", 1)
MODELS = ("--denoise", "random-denoiser", "--segment", "random-segmenter", "--device", "cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def test_products_lie_beside_the_volume_and_tell_how_they_came_about(
    apsber_command, scan_maker, tmp_path, random_models
):
    from apsber_bluesky.processing.learned import Denoiser, Segmenter, find_model, load_model

    scan = scan_maker.nxtomo()
    words = ("reconstruct", scan, "-o", "v.zarr", *ENGINE, *MODELS, "--models", random_models)
    status, out, err = apsber_command(*words, "--json")
    assert status == 0, err
    value = json.loads(out)
    assert set(value["products"]) == {"denoised", "labels", "uncertainty"}
    infos = {name: read_volume_info(tmp_path / f"v_{name}.zarr") for name in value["products"]}
    assert all(info.voxel_size_um == pytest.approx(2.5) for info in infos.values())
    assert infos["labels"].classes == ("air", "soil", "stone")
    attributes = zarr.open_group(tmp_path / "v_labels.zarr", mode="r").attrs
    processes = attributes["apsber_bluesky"]["processes"]
    assert [one["name"] for one in processes][-3:] == ["reconstruct", "denoise", "segment"]
    level = processes[-1]["parameters"]["level_per_pixel"]
    assert level == pytest.approx(0.02, rel=0.05)
    assert processes[-2]["inputs"]["v.zarr"] == value["checksum"]
    assert processes[-1]["inputs"]["v_denoised.zarr"] == infos["denoised"].checksum
    # The same as the models say of the whole volume at once.
    per_pixel = np.float32(2.5e-6)
    volume = open_volume(tmp_path / "v.zarr")[:] * per_pixel
    how = {"device": "cpu"}
    denoiser = Denoiser(
        load_model(*find_model("random-denoiser", random_models), DenoiseSettings(**how))
    )
    stream = denoiser.slabs(volume.shape, level, pixel_size_um=2.5)
    denoised = np.concatenate([answer for _, answer in stream.run(volume, 40)])
    stored = open_volume(tmp_path / "v_denoised.zarr")[:] * per_pixel
    assert np.allclose(stored, denoised, rtol=1e-4, atol=1e-5 * level)
    segmenter = Segmenter(
        load_model(*find_model("random-segmenter", random_models), SegmentSettings(**how))
    )
    answers = segmenter.slabs(volume.shape, level, pixel_size_um=2.5).run(denoised, 40)
    labels = np.concatenate([answer.labels for _, answer in answers])
    assert np.mean(open_volume(tmp_path / "v_labels.zarr")[:] == labels) > 0.999


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--denoise", "nobody"), "there is no model 'nobody'"),
        (("--segment", "random-denoiser"), "is one to denoise, not to segment"),
        (("--denoise", "random-denoiser", "-o", "v.tif"), "end 'v.tif' in .zarr"),
        (("--denoise", "random-denoiser", "--pixel-size", 400), "0.5 to 50 um"),
        (("--denoise", "random-denoiser", "--device", "abacus"), "abacus"),
        (("--denoise", "random-denoiser", "--try-centres", "30:31:1"), "not for --try-centres"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(
    apsber_command, scan_maker, tmp_path, random_models, options, told
):
    scan = scan_maker.dxchange()
    words = ("reconstruct", scan, *ENGINE, "--models", random_models, *options)
    status, _, err = apsber_command(*words)
    assert status != 0
    assert told in " ".join(err.split())
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*partial"))


def test_an_estimate_counts_the_models(apsber_command, scan_maker, tmp_path, random_models):
    scan = scan_maker.dxchange()
    words = ("estimate", scan, *ENGINE, *MODELS, "--models", random_models, "--json")
    status, out, err = apsber_command(*words)
    assert status == 0, err
    value = json.loads(out)
    assert value["models_seconds"] > 0
    assert value["models_bytes"] > 300e6
    assert not list(tmp_path.glob(".apsber*"))
