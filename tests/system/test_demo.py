"""The main job: one command, one curated dataset."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import ArrayDigest, RunFolder
from apsber_bluesky.simulation import make_phantom
from apsber_bluesky.storage import Receipt, open_volume, read_volume_info, verify_copy

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "data"


@pytest.fixture(scope="module")
def demo(apsber, data_root):
    """The default demonstration."""
    outcome = apsber("demo", "--data-root", data_root, "--json")
    assert outcome.status == 0, outcome.stderr
    return outcome


@pytest.fixture(scope="module")
def summary(demo):
    return demo.json


@pytest.fixture(scope="module")
def folder(summary):
    return RunFolder(Path(summary["folder"]))


def test_default_scan_is_complete_and_every_frame_is_in_the_books(summary):
    assert summary["state"] == "complete"
    assert summary["volume_shape"] == [256, 256, 256]
    assert summary["frames"] == {"expected": 200, "received": 200, "written": 200, "used": 200}
    assert summary["warnings"] == []
    assert summary["verdict"] == "pass"
    assert set(summary["seconds"]["stages"]) == {
        "accumulate",
        "centre",
        "reconstruct",
        "quality",
        "figures",
        "record",
        "archive",
        "publish",
    }


def test_centre_is_that_of_the_simulated_beamline(summary):
    assert summary["centre_px"] == pytest.approx(255 / 2 + 3.25, abs=0.05)


def test_volume_is_true_to_the_phantom(folder):
    info = read_volume_info(folder.volume)
    volume = np.asarray(open_volume(folder.volume)[:]) * (info.voxel_size_um * 1e-6)
    truth = make_phantom("shepp_logan").volume(256, 256)
    y, x = np.mgrid[:256, :256] - 128
    inside = np.broadcast_to(x**2 + y**2 < 115**2, volume.shape)
    error = np.sqrt(np.mean((volume - truth)[inside] ** 2))
    assert 20 * np.log10(truth.max() / error) > 32
    grey = np.abs(truth - np.median(truth[truth > 0])) < 1e-6
    assert volume[grey].mean() / truth[grey].mean() == pytest.approx(1, abs=0.01)


def test_stored_volume_is_the_one_that_was_summed(folder, summary):
    volume = open_volume(folder.volume)[:]
    digest = ArrayDigest(volume.dtype, volume.shape)
    digest.update(volume)
    assert digest.checksum() == summary["volume_checksum"]


def test_progress_of_every_part_was_shown(demo):
    for part in ("projections", "reconstruct", "quality", "NeXus record", "verified second copy"):
        assert part in demo.stderr


def test_second_copy_is_verified_and_has_a_receipt(folder, summary):
    receipt = Receipt.read(Path(summary["products"]["receipt"]))
    assert verify_copy(receipt) == []
    copied = {file.path for file in receipt.files}
    assert {"raw.h5", "run.nxs", "quality.json", "figures/ortho_slices.png"} <= copied
    assert any(path.startswith("volume.zarr/") for path in copied)


def test_catalogue_served_what_was_made(summary):
    served = summary["catalogue"]
    assert served["volume_shape"] == [256, 256, 256]
    assert served["raw_keys"] == ["camera_image"]
    assert served["middle_slice_mean"] > 0


def test_quality_numbers_have_verdicts_and_sources(folder):
    quality = json.loads(folder.quality.read_text())
    for metric in quality["metrics"]:
        assert metric["verdict"] == "pass"
        assert metric["source"]
        assert metric["unit"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["pynx", "validate"], "is valid according to the `NXtomo` application definition"),
        (["nxvalidate", "-e", "-a"], "Total number of errors: 0"),
    ],
)
def test_nexus_record_passes_the_validators(folder, command, words):
    program = Path(sys.executable).with_name(command[0])
    # nxvalidate's -a takes an optional value, so the file must come before it.
    done = subprocess.run(
        [program, *command[1:-1], folder.nexus, command[-1]]
        if command[0] == "nxvalidate"
        else [program, *command[1:], folder.nexus],
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert words in text


def test_nexus_record_opens_with_nxtomo_and_has_a_default_plot(folder, run_python):
    code = f"""
import warnings; warnings.simplefilter("ignore")
from nxtomo.application.nxtomo import NXtomo
import silx.io
from silx.io.nxdata import get_default
record = NXtomo().load({str(folder.nexus)!r}, "/entry", detector_data_as="as_data_url")
keys = [k.value for k in record.instrument.detector.image_key_control]
assert keys == [2] * 10 + [1] * 10 + [0] * 180, keys
assert abs(float(record.sample.rotation_angle[-1].magnitude) - 179) < 1e-6
with silx.io.open({str(folder.nexus)!r}) as file:
    plot = get_default(file)
    assert plot is not None and plot.is_valid, plot
    assert plot.signal.shape == (200, 256, 256)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_dxchange_view_shows_the_same_bytes(folder):
    with h5py.File(folder.nexus) as record, h5py.File(folder.raw) as raw:
        np.testing.assert_array_equal(record["exchange/data"][7], raw["entry/primary/data"][7])
        np.testing.assert_array_equal(record["exchange/data_dark"][:], raw["entry/darks/data"][:])
        np.testing.assert_array_equal(record["exchange/data_white"][3], raw["entry/flats/data"][3])
        np.testing.assert_allclose(record["exchange/theta"][:], np.arange(180.0))


def test_record_names_every_step_with_its_checksums(folder, summary):
    with h5py.File(folder.nexus) as record:
        steps = [n for n in record["entry"] if n.startswith("process_")]
        assert [name.split("_", 2)[2] for name in sorted(steps)] == [
            "normalise",
            "centre",
            "reconstruct",
            "quality",
        ]
        last = record["entry/process_3_reconstruct/provenance/record"][()]
    outputs = json.loads(last)["outputs"]
    assert outputs == {"volume.zarr": summary["volume_checksum"]}


def test_copied_folder_is_whole_on_its_own(folder, tmp_path):
    shutil.copytree(folder.path, tmp_path / "elsewhere")
    with h5py.File(tmp_path / "elsewhere" / "run.nxs") as record:
        assert record["entry/instrument/detector/data"][150].any()


def test_status_and_show_find_the_run(apsber, data_root, summary, tmp_path):
    listed = apsber("status", "--data-root", data_root, "--json").json["runs"]
    assert summary["uid"] in [run["uid"] for run in listed]
    one = apsber("status", summary["uid"][:8], "--data-root", data_root, "--json").json
    assert one["state"] == "complete"
    assert {stage["state"] for stage in one["stages"]} == {"done"}
    picture = tmp_path / "slices.png"
    shown = apsber("show", summary["uid"], "-o", picture, "--data-root", data_root)
    assert shown.status == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def small_checksum(apsber, tmp_path_factory):
    """Volume checksum of a small scan, by seed."""

    def run(seed: int) -> str:
        small = ["--size", 48, "--projections", 140, "--seed", seed]
        folder = tmp_path_factory.mktemp("small")
        checksum: str = apsber("demo", *small, "--json", "--data-root", folder).json[
            "volume_checksum"
        ]
        return checksum

    return run


def test_equal_seeds_give_equal_volumes_and_other_seeds_do_not(small_checksum):
    first = small_checksum(5)
    assert small_checksum(5) == first
    assert small_checksum(6) != first


def test_recorded_tooth_is_reconstructed_about_its_axis(apsber, tooth, tmp_path):
    outcome = apsber("demo", "--data", tooth, "--data-root", tmp_path, "--json")
    summary = outcome.json
    assert summary["state"] == "complete"
    assert summary["centre_px"] == pytest.approx(296, abs=1)
    volume = open_volume(Path(summary["folder"]) / "volume.zarr")[0]
    # Dentine and enamel around the pulp, air outside: the tooth fills the middle of the field.
    y, x = np.mgrid[:640, :640] - 320
    radius = np.hypot(x, y)
    assert volume[radius < 120].mean() > 10 * abs(volume[(radius > 200) & (radius < 280)].mean())
    assert Path(summary["products"]["figure"]).stat().st_size > 50_000
