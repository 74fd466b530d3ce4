"""``apsber reconstruct`` and ``apsber estimate`` on scan files of every layout."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from matplotlib.image import imread

from apsber_bluesky.core import array_checksum
from apsber_bluesky.storage import open_volume, read_volume_info

CENTRE, MU = 30.4, 0.02
ENGINE = ("--engine", "finufft")


def result_of(outcome) -> dict:
    status, out, err = outcome
    assert status == 0, err
    return json.loads(out)


def read_volume(path: Path) -> np.ndarray:
    if path.suffix == ".zarr":
        return open_volume(path)[:]
    if path.suffix in (".h5", ".nxs"):
        with h5py.File(path, "r") as file:
            return file["entry/data/data"][:]
    if path.is_dir():
        return np.stack([tifffile.imread(file) for file in sorted(path.glob("*.tif"))])
    return tifffile.imread(path)


def inside(volume: np.ndarray, row: int = 0) -> float:
    """Mean attenuation of a slice within the large cylinder."""
    size = volume.shape[1]
    y, x = np.mgrid[:size, :size] - size // 2
    return float(volume[row][(x - 8) ** 2 + (y + 6) ** 2 < 5**2].mean())


@pytest.mark.parametrize("name", ["v.zarr", "v.h5", "v.nxs", "v.tif", "v"])
def test_every_format_holds_the_same_volume(apsber_command, scan_maker, tmp_path, name):
    scan = scan_maker.dxchange()
    value = result_of(apsber_command("reconstruct", scan, "-o", name, *ENGINE, "--json"))
    volume = read_volume(tmp_path / name)
    assert value["volume_shape"] == [40, 64, 64] == list(volume.shape)
    assert volume.dtype == np.float32
    assert value["checksum"] == array_checksum(volume)
    assert abs(value["centre_px"] - CENTRE) < 0.1
    assert inside(volume) == pytest.approx(MU, abs=3e-4)
    assert value["unit"] == "1/pixel"
    assert {p.name for p in tmp_path.iterdir()} - {scan.name, name} <= {f"{name}.json"}


def test_every_layout_gives_the_same_bits(apsber_command, scan_maker, tmp_path):
    files = [
        scan_maker.dxchange(),
        scan_maker.dxchange("packed.h5", compression="gzip"),
        scan_maker.nxtomo(),
    ]
    for number, file in enumerate(files):
        words = ("reconstruct", file, "-o", f"{number}.zarr", *ENGINE, "--centre", CENTRE)
        value = result_of(apsber_command(*words, "--json"))
        assert value["layout"] == ("NXtomo" if number == 2 else "DXchange")
        # The angle in radians differs in its last bits.
        volume = read_volume(tmp_path / f"{number}.zarr")
        per_pixel = volume * 2.5e-6 if number == 2 else volume
        if number == 0:
            first = per_pixel
        assert np.allclose(per_pixel, first, atol=1e-6)
    info = read_volume_info(tmp_path / "2.zarr")
    assert (info.unit, info.voxel_size_um) == ("1/m", pytest.approx(2.5))


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("gridding", ["--jobs", 2]),
        ("gridding", ["--jobs", 1, "--slab-slices", 16]),
        ("finufft", ["--jobs", 1, "--slab-slices", 16]),
        ("finufft", ["--jobs", 2, "--slab-slices", 16]),
        ("finufft", ["--jobs", 1, "--slab-slices", 20]),
        (
            "finufft",
            ["--executor", "concurrent.futures:ThreadPoolExecutor", "--slab-slices", 16],
        ),
    ],
)
def test_the_volume_does_not_depend_on_how_it_is_cut(
    apsber_command, scan_maker, tmp_path, engine, options
):
    scan = scan_maker.dxchange()
    words = ("reconstruct", scan, "--engine", engine, "--centre", CENTRE, "--tilt", 0.8, "--json")
    one = result_of(apsber_command(*words, "-o", "one.zarr", "--jobs", 1))
    cut = result_of(apsber_command(*words, "-o", "cut.zarr", *options))
    assert cut["plan"]["slabs"] > one["plan"]["slabs"] == 1
    assert cut["checksum"] == one["checksum"] == array_checksum(read_volume(tmp_path / "cut.zarr"))


def test_a_part_of_the_slices_and_of_each_slice(apsber_command, scan_maker, tmp_path):
    scan = scan_maker.dxchange()
    words = ("reconstruct", scan, *ENGINE, "--centre", CENTRE)
    result_of(apsber_command(*words, "-o", "all.h5", "--json"))
    options = ("--slices", "16:24", "--roi", "10:40,20:60")
    result_of(apsber_command(*words, "-o", "part.h5", *options, "--json"))
    whole, part = read_volume(tmp_path / "all.h5"), read_volume(tmp_path / "part.h5")
    assert np.array_equal(part, whole[16:24, 20:60, 10:40])
    with h5py.File(tmp_path / "part.h5") as file:
        data = file["entry/data"]
        assert (data["z"][0], data["y"][0], data["x"][0]) == (16, 20 - 32, 10 - 32)
        assert list(data.attrs["axes"]) == ["z", "y", "x"]


def test_bins_make_larger_voxels(apsber_command, scan_maker, tmp_path):
    scan = scan_maker.dxchange()
    words = ("reconstruct", scan, *ENGINE, "--bin", 2, "--pixel-size", 1.5)
    value = result_of(apsber_command(*words, "-o", "b.zarr", "--json"))
    assert value["volume_shape"] == [20, 32, 32]
    assert value["voxel_size_um"] == 3.0
    volume = read_volume(tmp_path / "b.zarr")
    y, x = np.mgrid[:32, :32] - 16
    middle = (x - 4) ** 2 + (y + 3) ** 2 < 2.5**2
    assert volume[0][middle].mean() == pytest.approx(MU / 1.5e-6, rel=0.02)


@pytest.mark.parametrize("stitch", ["auto", 17.8])
def test_an_off_axis_scan_shows_twice_the_width(apsber_command, scan_maker, tmp_path, stitch):
    angles = np.arange(240) * 1.5
    scan = scan_maker.dxchange(angles=angles, columns=64, centre=54.6)
    words = ("reconstruct", scan, *ENGINE, "--stitch", stitch, "--slices", "0:16", "--json")
    value = result_of(apsber_command(*words, "-o", "wide.zarr"))
    assert value["volume_shape"] == [16, 110, 110]
    assert abs(value["centre_px"] - 54.6) < 0.2
    assert inside(read_volume(tmp_path / "wide.zarr")) == pytest.approx(MU, abs=4e-4)


def test_angles_may_come_in_any_order_and_twice(apsber_command, scan_maker, tmp_path):
    order = np.random.default_rng(2).permutation(np.r_[0:90, 3, 40])
    scan = scan_maker.dxchange(angles=order * 2.0)
    result_of(apsber_command("reconstruct", scan, *ENGINE, "-o", "v.tif", "--json"))
    assert inside(read_volume(tmp_path / "v.tif")) == pytest.approx(MU, abs=4e-4)


def test_angles_can_be_given_where_the_file_has_none(apsber_command, scan_maker, tmp_path):
    scan = scan_maker.dxchange(change=lambda frames: frames.pop("theta"))
    status, _, err = apsber_command("reconstruct", scan, *ENGINE)
    assert (status, "has no angles; give them with --angles" in err) == (1, True)
    (tmp_path / "angles.txt").write_text("\n".join(str(n * 2.0) for n in range(90)))
    sums = set()
    for angles in ("0:180", "angles.txt"):
        words = ("reconstruct", scan, *ENGINE, "--angles", angles, "--overwrite", "--json")
        sums.add(result_of(apsber_command(*words))["checksum"])
    assert len(sums) == 1


def test_invalid_and_left_out_frames_do_not_dim_the_volume(apsber_command, scan_maker, tmp_path):
    scan = scan_maker.nxtomo(invalid=(5, 6, 70))
    words = ("reconstruct", scan, *ENGINE, "--leave-out", "20-21", "--json")
    value = result_of(apsber_command(*words, "-o", "v.h5"))
    assert value["projections"] == 85
    assert value["notes"] == ["3 frames are marked invalid and left out"]
    assert inside(read_volume(tmp_path / "v.h5")) * 2.5e-6 == pytest.approx(MU, abs=5e-4)


def test_the_volume_tells_how_it_came_about(apsber_command, scan_maker, tmp_path):
    scan = scan_maker.dxchange()
    for name in ("v.zarr", "v.h5", "v"):
        result_of(apsber_command("reconstruct", scan, *ENGINE, "-o", name, "--json"))
    import zarr

    kept = zarr.open_group(tmp_path / "v.zarr", mode="r").attrs["apsber_bluesky"]["processes"]
    assert [record["name"] for record in kept] == ["centre", "normalise", "reconstruct"]
    assert [record["sequence_index"] for record in kept] == [1, 2, 3]
    last = kept[-1]
    assert last["parameters"]["engine"] == "finufft"
    assert last["parameters"]["centre_px"] == kept[0]["parameters"]["centre_px"]
    raw = scan_maker.frames()["data"]
    parts = {k: v for k, v in last["inputs"].items() if k.startswith("scan.h5 projections, rows")}
    for name, checksum in parts.items():
        first, stop = map(int, name.rsplit(" ", 1)[1].split("-"))
        assert checksum == array_checksum(raw[:, first : stop + 1])
    assert last["outputs"] == {"v.zarr": read_volume_info(tmp_path / "v.zarr").checksum}
    with h5py.File(tmp_path / "v.h5") as file:
        assert file["entry/definition"].asstr()[()] == "NXtomoproc"
        assert json.loads(file["entry/process_3_reconstruct/provenance/record"][()])["outputs"]
        assert file["entry/reconstruction/parameters/engine"].asstr()[()] == "finufft"
        assert file["entry/data/data"].attrs["units"] == "1/pixel"
    assert json.loads((tmp_path / "v/volume.json").read_text())["processes"][2]["outputs"]


def test_pictures_are_labelled_with_the_centre_that_was_used(apsber_command, scan_maker, tmp_path):
    scan = scan_maker.dxchange()
    words = ("reconstruct", scan, *ENGINE, "--try-centres", "29.4:31.4:0.5", "--json")
    value = result_of(apsber_command(*words, "-o", "tried"))
    centres = [picture["centre_px"] for picture in value["pictures"]]
    assert centres == pytest.approx([29.4, 29.9, 30.4, 30.9, 31.4])
    files = sorted((tmp_path / "tried").iterdir())
    assert [file.name for file in files] == [picture["file"] for picture in value["pictures"]]
    assert files[2].name == "centre_000030.400.png"
    pictures = [imread(file)[..., 0] * 255 for file in files]
    # Each label is another one, and each picture is the slice that the volume has for this centre.
    assert len({picture[:36].tobytes() for picture in pictures}) == 5
    for centre, picture in zip(centres, pictures, strict=True):
        made = ("reconstruct", scan, *ENGINE, "--centre", centre, "--slices", "20:21")
        result_of(apsber_command(*made, "-o", "one.tif", "--overwrite", "--json"))
        slice_ = read_volume(tmp_path / "one.tif").reshape(64, 64)
        zoom = (picture.shape[0] - 36) // 64
        shown = picture[36 + zoom // 2 :: zoom, zoom // 2 :: zoom]
        unclipped = (shown > 5) & (shown < 250)
        assert np.corrcoef(shown[unclipped], slice_[unclipped])[0, 1] > 0.999


def test_an_estimate_tells_what_it_takes_and_leaves_nothing(apsber_command, scan_maker, tmp_path):
    scan = scan_maker.dxchange()
    value = result_of(apsber_command("estimate", scan, *ENGINE, "--jobs", 2, "--json"))
    assert value["volume_shape"] == [40, 64, 64]
    assert value["volume_bytes"] == 40 * 64 * 64 * 4
    assert value["read_bytes"] == 90 * 40 * 64 * 2
    assert value["plan"]["workers"] == 2
    assert value["seconds"] > value["write_seconds"] > 0
    assert value["plan"]["memory_bytes"] < value["plan"]["free_bytes"]
    assert [file.name for file in tmp_path.iterdir()] == ["scan.h5"]


def test_people_read_a_plan_and_where_the_volume_is(apsber_command, scan_maker):
    status, out, _ = apsber_command("reconstruct", scan_maker.dxchange(), *ENGINE)
    assert status == 0
    for words in ("slabs", "memory    up to", "angular consistency", "scan_rec.zarr [1/pixel]"):
        assert words in out


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (
            ["cgls", "--non-negative", "--iterations", 16],
            {"iterations": 16, "non_negative": True},
        ),
        (
            ["sirt", "--noise", 0.01],
            {"iterations": 100, "noise": 0.01, "non_negative": True, "relaxation": 1.0},
        ),
        (
            ["tv", "--regularisation", 3e-6, "--iterations", 40, "--any-sign"],
            {"iterations": 40, "regularisation": 3e-6, "non_negative": False},
        ),
    ],
)
def test_few_projections_are_reconstructed_iteratively(
    apsber_command, scan_maker, tmp_path, options, parameters
):
    scan = scan_maker.dxchange(angles=np.arange(24) * 7.5)
    words = ("reconstruct", scan, "--centre", CENTRE, "--slices", "0:20", "--json")
    streaks = result_of(apsber_command(*words, "-o", "fbp.zarr", *ENGINE))
    words = (*words, "--method", *options)
    value = result_of(apsber_command(*words, "-o", "one.zarr", "--jobs", 1))
    cut = result_of(apsber_command(*words, "-o", "cut.h5", "--jobs", 2, "--slab-slices", 16))
    assert value["engine"] == options[0]
    assert value["plan"]["memory_bytes"] > streaks["plan"]["memory_bytes"]
    assert cut["plan"]["slabs"] == 2
    assert cut["checksum"] == value["checksum"]
    volume, filtered = read_volume(tmp_path / "one.zarr"), read_volume(tmp_path / "fbp.zarr")
    assert inside(volume) == pytest.approx(MU, rel=0.05)
    y, x = np.mgrid[:64, :64] - 32
    air = x**2 + y**2 < 29**2
    air &= filtered[0] < 0.25 * MU
    assert np.std(volume[0][air]) < 0.7 * np.std(filtered[0][air])
    with h5py.File(tmp_path / "cut.h5") as file:
        record = json.loads(file["entry/process_2_reconstruct/provenance/record"][()])
    assert parameters.items() <= record["parameters"].items()
    assert "filter" not in record["parameters"]


def test_an_estimate_counts_the_iterations(apsber_command, scan_maker):
    scan = scan_maker.dxchange()
    words = ("estimate", scan, "--centre", CENTRE, "--method", "sirt", "--json", "--iterations")
    few, many = (result_of(apsber_command(*words, count)) for count in (1, 100000))
    assert few["engine"] == many["engine"] == "sirt"
    assert many["make_seconds"] > 100 * few["make_seconds"]
