"""A run is denoised and segmented while it is reconstructed, slab by slab as if at once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from apsber_bluesky.core import (
    DenoiseSettings,
    InputError,
    ProcessingSettings,
    RunLedger,
    SegmentSettings,
)
from apsber_bluesky.pipeline import (
    DenoisePass,
    FindCentre,
    Quantify,
    Reconstruct,
    VolumeAhead,
    learned_followers,
    scan_memory_bytes,
    volume_bytes,
)
from apsber_bluesky.storage import VolumeWriter, content_of, open_volume, read_volume_info

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")
VOXEL_M = 5e-6


@pytest.fixture
def learned_run(make_run, make_pipeline, random_models, log, storage_parts):
    """Send a run through reconstruction and the models."""

    def send(slab_slices=4, models=random_models, more=(), cancel_at="", **settings):
        processing = ProcessingSettings(
            engine="finufft", slab_slices=slab_slices, models=models, **settings
        )
        followers, stages = learned_followers(processing, storage_parts.product)
        reconstruct = Reconstruct(processing, storage_parts.volume, followers)
        pipeline = make_pipeline(only=[FindCentre(processing), reconstruct, *stages, *more])
        log.on_stage = {cancel_at: pipeline.cancel}
        run = make_run()
        run.send_through(pipeline)
        return run

    return send


def both(**segment):
    return {
        "denoise": {"model": "random-denoiser", "device": "cpu"},
        "segment": {"model": "random-segmenter", "device": "cpu", **segment},
    }


def stages_of(run):
    with RunLedger(run.folder.ledger) as ledger:
        return {stage.name: stage for stage in ledger.stages}


def test_products_are_those_of_the_whole_volume_at_once(learned_run, random_models, log):
    from apsber_bluesky.processing.learned import Denoiser, Segmenter, find_model, load_model

    run = learned_run(slab_slices=3, **both(probabilities=True))
    assert log.summary(run.uid)["state"] == "complete"
    parameters = stages_of(run)["segment"].record["processes"][0]["parameters"]
    level = parameters["level_per_pixel"]
    volume = (open_volume(run.folder.volume)[:] * np.float32(VOXEL_M)).astype(np.float32)

    def model(name, settings):
        return load_model(*find_model(name, random_models), settings)

    denoiser = Denoiser(model("random-denoiser", DenoiseSettings(device="cpu")))
    stream = denoiser.slabs(volume.shape, level, pixel_size_um=5.0)
    expected = np.concatenate([answer for _, answer in stream.run(volume, 10)])
    denoised = open_volume(run.folder.denoised)
    assert denoised.attrs["unit"] == "1/m"
    assert np.allclose(denoised[:] * VOXEL_M, expected, rtol=1e-4, atol=1e-5 * level)
    assert np.abs(expected - volume).max() > 0.01 * level
    # Labels are of denoised slices.
    segmenter = Segmenter(model("random-segmenter", SegmentSettings(device="cpu")))
    stream = segmenter.slabs(volume.shape, level, pixel_size_um=5.0, probabilities=True)
    answers = [answer for _, answer in stream.run(expected, 10)]
    labels = np.concatenate([answer.labels for answer in answers])
    assert len(np.unique(labels)) > 1
    assert np.mean(open_volume(run.folder.labels)[:] == labels) > 0.999
    for name, axis in (("uncertainty", 0), ("probabilities", 1)):
        expected = np.concatenate([getattr(answer, name) for answer in answers], axis)
        assert np.allclose(open_volume(run.folder.product(name))[:], expected, atol=2e-3)


def test_the_cut_into_slabs_does_not_matter(learned_run):
    checksums = []
    for slab_slices in (1, 4, 10):
        run = learned_run(slab_slices=slab_slices, **both())
        checksums.append([read_volume_info(run.folder.product(p)).checksum
                          for p in ("volume", "denoised", "labels", "uncertainty")])  # fmt: skip
    assert checksums[0] == checksums[1] == checksums[2]


def test_the_chain_names_models_levels_and_checksums(learned_run, storage_parts):
    run = learned_run(more=[storage_parts.record], **both())
    stages = stages_of(run)
    assert [*stages][-4:] == ["reconstruct", "denoise", "segment", "record"]
    assert {stage.state for stage in stages.values()} == {"done"}
    denoise, segment = (stages[name].record["processes"][0] for name in ("denoise", "segment"))
    infos = {name: read_volume_info(run.folder.product(name)) for name in ("volume", "denoised")}
    assert denoise["inputs"]["volume.zarr"] == infos["volume"].checksum
    assert denoise["outputs"] == {"denoised.zarr": infos["denoised"].checksum}
    assert segment["inputs"]["denoised.zarr"] == infos["denoised"].checksum
    assert set(segment["outputs"]) == {"labels.zarr", "uncertainty.zarr"}
    for record, name in ((denoise, "random-denoiser"), (segment, "random-segmenter")):
        own = record["parameters"]
        assert (own["model"], own["model_version"], own["device"]) == (name, "1", "cpu")
        assert own["model_sha256"] == record["inputs"][f"model {name}"]
        assert own["precision"] == "float32"
        assert 0.001 < own["level_per_pixel"] < 1
    assert denoise["sequence_index"] + 1 == segment["sequence_index"]


def test_the_nexus_record_shows_the_products(learned_run, storage_parts):
    import h5py

    run = learned_run(more=[storage_parts.record], **both())
    with h5py.File(run.folder.nexus) as file:
        results = file["entry/results"]
        assert results.attrs["default"] == "labels"
        labels = results["labels"]
        assert labels.attrs["NX_class"] == "NXdata"
        stored = open_volume(run.folder.labels)
        assert np.array_equal(labels["data"][:], stored[5])
        assert [name.decode() for name in labels["classes"]] == ["air", "soil", "stone"]
        assert labels["checksum"].asstr()[()] == read_volume_info(run.folder.labels).checksum
        assert results["denoised/data"].attrs["units"] == "1/m"
        assert any("segment" in name for name in file["entry"])


def wants_other_pixels(folder, models):
    import yaml

    card = yaml.safe_load((models / "random-denoiser.yaml").read_text())
    card["input"]["pixel_size_um"] = [100.0, 200.0]
    (folder / "random-denoiser.yaml").write_text(yaml.safe_dump(card))
    (folder / card["file"]).write_bytes((models / card["file"]).read_bytes())
    return r"trained on pixels of 100 to 200 um"


def is_damaged(folder, models):
    for name in ("random-denoiser.yaml", "random-denoiser.safetensors"):
        (folder / name).write_bytes((models / name).read_bytes())
    (folder / "random-denoiser.safetensors").write_bytes(b"other weights")
    return "damaged or another model's"


def is_missing(folder, models):
    return "there is no model 'random-denoiser'"


@pytest.mark.parametrize("spoil", [wants_other_pixels, is_damaged, is_missing])
def test_a_model_that_cannot_run_costs_its_products_and_no_more(
    learned_run, log, tmp_path, random_models, spoil, storage_parts
):
    import h5py

    folder = tmp_path / "models"
    folder.mkdir()
    told = spoil(folder, random_models)
    run = learned_run(models=folder, more=[storage_parts.record], **both())
    assert log.summary(run.uid)["state"] == "complete"
    warnings = {d["stage"]: d["message"] for _, event, d in log.messages if event == "warning"}
    assert told in warnings["denoise"]
    assert "denoise failed" in warnings["segment"]
    states = {name: stage.state for name, stage in stages_of(run).items()}
    assert (states["reconstruct"], states["denoise"], states["segment"]) == (
        "done", "failed", "failed",
    )  # fmt: skip
    assert sorted(p.name for p in run.folder.path.glob("*.zarr*")) == ["volume.zarr"]
    with h5py.File(run.folder.nexus) as file:
        assert told in file["entry/note_1/description"].asstr()[()]


@pytest.mark.parametrize("stage", ["reconstruct", "denoise", "segment"])
def test_a_cancelled_run_keeps_no_product_half_made(learned_run, log, stage):
    run = learned_run(cancel_at=stage, **both())
    assert log.summary(run.uid)["state"] == "aborted"
    names = {path.name for path in run.folder.path.glob("*.zarr*")}
    assert names <= {"volume.zarr", "denoised.zarr"}
    assert not list(run.folder.path.glob("*.partial"))


def test_nan_in_a_volume_is_refused_and_nothing_is_left(tmp_path, random_models):
    work = DenoisePass(DenoiseSettings(model="random-denoiser", device="cpu"), random_models)
    ahead = VolumeAhead((6, 16, 16), 5.0, lambda: 0.01)

    def open_here(product, shape, voxel_size_um):
        content = content_of(product.kind, **product.about)
        path = tmp_path / f"{product.name}.zarr"
        return VolumeWriter(path, shape, voxel_size_um=voxel_size_um, content=content)

    slab = np.full((3, 16, 16), 0.01, np.float32)
    work.begin(ahead, open_here)
    work.take(slab)
    assert (tmp_path / "denoised.zarr.partial").is_dir()
    slab = slab.copy()
    slab[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="the first in slice 4"):
        work.take(slab)
    work.abandon()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no volume was begun"):
        work.take(slab)


def test_without_torch_the_stage_says_what_to_install(run_python, random_models):
    code = f"""
import sys
from pathlib import Path
sys.modules["torch"] = None
from apsber_bluesky.core import ConfigurationError, DenoiseSettings
from apsber_bluesky.pipeline import DenoisePass, VolumeAhead
work = DenoisePass(DenoiseSettings(model="random-denoiser"), Path({str(random_models)!r}))
try:
    work.begin(VolumeAhead((4, 8, 8), None, lambda: 1.0), None)
except ConfigurationError as error:
    print(error)
"""
    done = run_python(code)
    assert "install apsber_bluesky[ml]" in done.stdout, done.stderr


def test_memory_and_disk_of_models_are_counted(make_run, random_models):
    scan = make_run().description.scan
    plain = ProcessingSettings(engine="finufft", models=random_models)
    full = plain.model_copy(
        update={
            "denoise": DenoiseSettings(model="random-denoiser"),
            "segment": SegmentSettings(model="random-segmenter", probabilities=True),
        }
    )
    # Waiting slabs, the level's slices, torch and both models.
    assert scan_memory_bytes(scan, full) > scan_memory_bytes(scan, plain) + (300 << 20)
    # float32 twice, a label, its uncertainty and three probabilities instead of one float32.
    ratio = volume_bytes(scan, full) / volume_bytes(scan, plain)
    assert ratio == pytest.approx((8 + 1 + 2 + 6) / 4, rel=1e-3)
    unknown = plain.model_copy(update={"denoise": DenoiseSettings(model="nobody")})
    assert scan_memory_bytes(scan, unknown) == scan_memory_bytes(scan, plain)


def test_labels_are_measured_and_the_numbers_kept(learned_run, log):
    def count(labels, classes, voxel_size_um):
        values = np.asarray(labels[:])
        return {"voxels": {name: int((values == n).sum()) for n, name in enumerate(classes)},
                "voxel_size_um": voxel_size_um}  # fmt: skip

    run = learned_run(more=[Quantify(count, open_volume)], **both())
    found = json.loads(run.folder.quantities.read_text())
    assert sum(found["voxels"].values()) == 10 * 40 * 40
    assert list(found["voxels"]) == ["air", "soil", "stone"]
    assert found["voxel_size_um"] == 5.0
