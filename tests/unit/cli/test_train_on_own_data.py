"""``apsber train`` on a scan and on drawn labels, as a user gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml

from apsber_bluesky.core import (
    DenoiseSettings,
    ModelInput,
    NetworkShape,
    SegmentSettings,
    file_checksum,
    read_model_card,
)
from apsber_bluesky.processing.learned import (
    Denoiser,
    Segmenter,
    SliceNetwork,
    find_model,
    load_model,
    write_model,
)
from apsber_bluesky.storage import VolumeWriter, open_volume

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("--batch", "2", "--patch", "32", "--jobs", "1")
SHAPE = (8, 64, 64)


def result_of(outcome: Any) -> dict[str, Any]:
    status, out, err = outcome
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def refused(outcome: Any) -> str:
    status, _, err = outcome
    assert status == 1
    message: str = err.rsplit("error: ", 1)[1]
    return " ".join(message.split())


def test_a_denoiser_learns_from_a_scan_and_then_from_where_it_was(
    apsber_command, scan_maker, tmp_path: Path
) -> None:
    scan = scan_maker.dxchange(rows=6)
    train = ("train", "denoiser", "--run", scan, "--centre", "30.4", *SMALL, "--json")
    value = result_of(apsber_command(*train, "--start", "none", "--steps", "3", "-o", "a"))
    card = read_model_card(tmp_path / "a" / "denoiser-scan.yaml")
    assert value["card"] == str(tmp_path / "a" / "denoiser-scan.yaml")
    assert card.task == "denoise"
    known = card.training
    assert (known["data_file"], known["data_checksum"]) == ("scan.h5", file_checksum(scan))
    assert (known["data_splits"], known["steps"]) == (4, 3)
    assert known["independence"] > 0
    assert card.figures["held_out_part_noise"] > 0

    # The card is one that models are found by, and begun with.
    begun = ("--start", "a/denoiser-scan.yaml", "--steps", "2", "-o", "b", "--name", "mine")
    result_of(apsber_command(*train, *begun))
    second = read_model_card(tmp_path / "b" / "mine.yaml")
    assert second.training["data_start_sha256"] == card.sha256
    stream = Denoiser(
        load_model(*find_model(str(tmp_path / "b" / "mine.yaml")), DenoiseSettings(device="cpu"))
    ).slabs((6, 64, 64), 0.02)
    slices = np.random.default_rng(0).random((6, 64, 64), np.float32) * np.float32(0.02)
    answers = [part for _, part in [*stream.push(slices), *stream.finish()]]
    assert np.isfinite(np.concatenate(answers)).all()

    other = scan_maker.dxchange("other.h5", rows=6, centre=31.0)
    message = refused(apsber_command(*train[:3], other, *train[4:], *begun))
    assert "holds other examples" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run", "gone.h5"), "no run 'gone.h5' below"),
        (("--run", "scan.h5", "--start", "unheard-of"), "there is no model 'unheard-of'"),
        (("--run", "scan.h5", "--start", "none", "--splits", "20"), "give from 2 to 11"),
        (("--run", "scan.h5", "--start", "none", "--patch", "64"), "too small for patches of 64"),
    ],
)
def test_a_scan_that_nothing_can_be_learned_from_is_refused(
    apsber_command, scan_maker, words, message
) -> None:
    scan_maker.dxchange(rows=4)
    more = ("--batch", "2", "--jobs", "1", "--data-root", "runs", "--centre", "30.4", "-o", "m")
    words = words if "--patch" in words else (*words, "--patch", "32")
    assert message in refused(apsber_command("train", "denoiser", *words, *more))


def write_volume(path: Path) -> np.ndarray:
    """Two materials in air, with noise; the truth is given."""
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]] - 32
    truth = np.zeros(SHAPE, np.uint8)
    truth[:, np.hypot(y, x) < 28] = 1
    truth[:, np.hypot(y - 4, x + 6) < 12] = 2
    values = np.array([0.0, 0.01, 0.02], np.float32)[truth]
    values += 0.001 * np.random.default_rng(1).standard_normal(SHAPE, np.float32)
    with VolumeWriter(path, SHAPE) as sink:
        sink.write(0, values)
    return truth


def write_small_model(folder: Path) -> None:
    """A small segmenter of two classes, with weights drawn by chance."""
    shape = NetworkShape(slices=3, outputs=2, widths=[16, 24], biases=True, residual=False)
    torch.manual_seed(4)
    network = SliceNetwork(**shape.model_dump())
    takes = ModelInput(slices=3, unit="level", minimum=-1, maximum=3)
    about = {
        "name": "small", "version": "1", "description": "Chance.", "task": "segment",
        "network": shape, "input": takes, "classes": ["a", "b"],
    }  # fmt: skip
    write_model(folder, network, about)


def test_a_segmenter_learns_a_few_strokes(apsber_command, tmp_path: Path) -> None:
    write_small_model(tmp_path)
    truth = write_volume(tmp_path / "volume.zarr")
    strokes = np.zeros(SHAPE, np.int32)  # as napari has them: 0 is not labelled
    for z in (0, 2, 3, 5, 6):
        strokes[z, 20:44] = truth[z, 20:44] + 1
    tifffile.imwrite(tmp_path / "strokes.tif", strokes)
    value = result_of(
        apsber_command(
            *("train", "segmenter", "--run", "volume.zarr", "--labels", "strokes.tif"),
            *("--classes", "air,soil,root", "--unlabelled", "0", "--steps", "500", "-o", "m"),
            *("--start", "small.yaml"),
            *(*SMALL, "--json"),
        )
    )
    assert value["figures"]["held_out_dice_mean"] > 0.9
    card = yaml.safe_load((tmp_path / "m" / "segmenter.yaml").read_text())
    assert card["classes"] == ["air", "soil", "root"]
    assert card["training"]["data_labels"] == ["strokes.tif"]
    assert card["training"]["held_out_slices"] == "6"
    assert card["temperature"] == pytest.approx(value["temperature"], abs=1e-3)
    model = load_model(*find_model(str(tmp_path / "m" / "segmenter.yaml")),
                       SegmentSettings(device="cpu"))  # fmt: skip
    stream = Segmenter(model).slabs(SHAPE, 0.01)
    slices = np.asarray(open_volume(tmp_path / "volume.zarr")[:])
    found = np.concatenate([part.labels for _, part in [*stream.push(slices), *stream.finish()]])
    assert (found == truth).mean() > 0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run", "volume.zarr"), "--run and --labels belong together"),
        (("--labels", "l.tif"), "--run and --labels belong together"),
        (("--run", "volume.zarr", "--labels", "l.tif"), "name 2 or more with --classes"),
        (
            ("--run", "volume.zarr", "--labels", "l.tif", "--classes", "a,b,c", *SMALL),
            "class c has no voxel",
        ),
        (
            ("--run", "volume.zarr", "--labels", "l.tif", "--labels", "m.tif"),
            "64 voxels are labelled both in l.tif and in m.tif",
        ),
        (("--run", "l.tif", "--labels", "l.tif"), "l.tif is no volume; give a run, or the .zarr"),
    ],
)
def test_labels_that_make_no_sense_are_refused(apsber_command, tmp_path, words, message) -> None:
    write_volume(tmp_path / "volume.zarr")
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, :8, :8] = 1
    tifffile.imwrite(tmp_path / "l.tif", labels)
    labels[2] = 0
    tifffile.imwrite(tmp_path / "m.tif", labels)
    assert message in refused(apsber_command("train", "segmenter", *words, "-o", "models"))
