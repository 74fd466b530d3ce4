"""Models of the beamline's own run on volumes, and on the three central slices."""

from __future__ import annotations

import json
import warnings

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import AnalysisSettings, ModelInput, ProcessingSettings, RunLedger
from apsber_bluesky.pipeline import FindCentre, Reconstruct, inference_stages
from apsber_bluesky.storage import open_volume, read_volume_info

torch = pytest.importorskip("torch")
VOXEL_M = 5e-6


class Doubles(torch.nn.Module):
    """Twice the middle of three slices, and the mean of the outer ones."""

    def forward(self, images):
        outer = (images[:, 0:1] + images[:, 2:3]) / 2
        return torch.cat([2 * images[:, 1:2], outer], 1)


class IsBright(torch.nn.Module):
    """Dark or bright, by the mean."""

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


def write_script(folder, name, module, **card):
    from apsber_bluesky.core import ModelCard, file_checksum

    path = folder / f"{name}.pt"
    with warnings.catch_warnings():
        # Deprecated in torch, and yet what many have.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    made = ModelCard(
        name=name, version="2", description="for a test", file=path.name,
        sha256=file_checksum(path), format="torchscript", **card,
    )  # fmt: skip
    (folder / f"{name}.yaml").write_text(json.dumps(made.model_dump(mode="json")))


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    three = ModelInput(slices=3, unit="1/pixel", minimum=-1.0, maximum=1.0)
    one = ModelInput(slices=1, unit="1/m", minimum=-1e6, maximum=1e6)
    write_script(folder, "doubles", Doubles(), task="transform", input=three, output_unit="1/pixel")
    write_script(
        folder, "bright", IsBright(), task="classify", input=one, classes=["dark", "bright"]
    )
    write_script(folder, "volume", IsBright(), task="classify", input=one, classes=["a", "b"])
    return folder


@pytest.fixture
def inferred(make_run, make_pipeline, models, storage_parts):
    """Run some models on a run, and give it back."""

    def send(*inference):
        processing = ProcessingSettings(engine="finufft", slab_slices=4, models=models)
        own = [{"device": "cpu", **each} for each in inference]
        followers, stages = inference_stages(
            AnalysisSettings(inference=own), models, storage_parts.product, open_volume
        )
        reconstruct = Reconstruct(processing, storage_parts.volume, followers)
        run = make_run()
        run.send_through(make_pipeline(only=[FindCentre(processing), reconstruct, *stages]))
        return run

    return send


def test_images_of_a_volume_are_a_volume_with_channels(inferred):
    run = inferred({"model": "doubles", "on": "volume"})
    volume = open_volume(run.folder.volume)[:] * np.float32(VOXEL_M)
    made = open_volume(run.folder.product("doubles"))
    assert made.shape == (2, *volume.shape)
    assert np.allclose(made[0], 2 * volume, rtol=1e-5, atol=1e-9)
    assert np.allclose(made[1, 4], (volume[3] + volume[5]) / 2, rtol=1e-4, atol=1e-8)
    # Beyond the end stands the mirrored slice.
    assert np.allclose(made[1, 0], volume[1], rtol=1e-4, atol=1e-8)
    assert read_volume_info(run.folder.product("doubles")).unit == "1/pixel"
    assert not run.folder.inference.exists()


def test_images_of_the_central_slices_are_kept_in_one_file(inferred):
    run = inferred({"model": "doubles", "on": "slices"})
    volume = open_volume(run.folder.volume)[:] * np.float32(VOXEL_M)
    with h5py.File(run.folder.path / "doubles_slices.h5") as file:
        for plane, axis in (("xy", 0), ("xz", 1), ("yz", 2)):
            middle = volume.shape[axis] // 2
            expected = 2 * np.take(volume, middle, axis)
            assert np.allclose(file[plane][0], expected, rtol=1e-5, atol=1e-9), plane
            outer = np.take(volume, [middle - 1, middle + 1], axis).mean(axis)
            assert np.allclose(file[plane][1], outer, rtol=1e-4, atol=1e-8), plane


def test_classes_are_told_of_slices_and_of_the_volume(inferred):
    run = inferred({"model": "bright", "on": "volume"}, {"model": "bright", "on": "slices"})
    volume = open_volume(run.folder.volume)[:]
    found = json.loads(run.folder.inference.read_text())["models"]
    of_slices = found["bright on slices"]
    assert of_slices["classes"] == ["dark", "bright"]
    of_volume = found["bright on volume"]["slices"]
    mean = volume.mean((1, 2))
    assert np.argmax(of_volume, 1).tolist() == (mean > 0).astype(int).tolist()
    assert np.allclose(np.sum(of_volume, 1), 1)
    assert np.argmax(of_slices["xz"]) == int(volume[:, 20].mean() > 0)


def test_a_model_may_not_write_over_what_the_run_has(inferred, log):
    run = inferred({"model": "volume", "on": "volume"})
    (warning,) = [d for _, event, d in log.messages if event == "warning"]
    assert "would write over the run's own" in warning["message"]
    with RunLedger(run.folder.ledger) as ledger:
        states = {stage.name: stage.state for stage in ledger.stages}
    assert states["infer volume on volume"] == "failed"
    assert states["reconstruct"] == "done"
    assert read_volume_info(run.folder.volume).quantity == "linear attenuation coefficient"
