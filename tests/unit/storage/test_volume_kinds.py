"""Volumes as NeXus and TIFF: whole or not at all, in any order of slabs, with their provenance."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from apsber_bluesky.core import InputError, ProcessRecord, StorageError, array_checksum
from apsber_bluesky.storage import create_volume, open_volume

NAMES = ["v.zarr", "v.h5", "v.tif", "v"]
CHAIN = [ProcessRecord("normalise", 1), ProcessRecord("reconstruct", 2, {"engine": "gridding"})]


def stored(path: Path) -> np.ndarray:
    if path.suffix == ".zarr":
        return open_volume(path)[:]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return file["entry/data/data"][:]
    if path.is_dir():
        return np.stack([tifffile.imread(file) for file in sorted(path.glob("*.tif"))])
    return tifffile.imread(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("starts", [[0], [0, 16], [16, 0], [20, 3, 0, 7, 19]])
def test_every_order_of_slabs_gives_the_same_volume(tmp_path, volume_values, name, starts):
    ordered = sorted([*starts, len(volume_values)])
    with create_volume(tmp_path / name, volume_values.shape, voxel_size_um=2.0) as writer:
        writer.processes = CHAIN
        for start in starts:
            stop = ordered[ordered.index(start) + 1]
            writer.write(start, volume_values[start:stop])
    values = stored(tmp_path / name)
    assert np.array_equal(values, volume_values * np.float32(5e5))
    assert writer.checksum == array_checksum(values)
    assert writer.unit == "1/m"


@pytest.mark.parametrize("name", ["v.zarr", "v"])
def test_another_process_writes_slabs_itself(tmp_path, volume_values, name):
    code = (
        "import pickle, sys; import numpy as np\n"
        "deposit, first, slab = pickle.loads(sys.stdin.buffer.read())\n"
        "deposit.put(first, slab)"
    )
    with create_volume(tmp_path / name, volume_values.shape, voxel_size_um=2.0) as writer:
        for first, stop in ((16, 21), (0, 16)):
            task = pickle.dumps((writer.deposit, first, volume_values[first:stop]))
            subprocess.run([sys.executable, "-c", code], input=task, check=True)
            writer.took(first, stop)
    values = stored(tmp_path / name)
    assert np.array_equal(values, volume_values * np.float32(5e5))
    assert writer.checksum == array_checksum(values)


def test_slabs_that_would_share_a_chunk_are_not_deposited(tmp_path, volume_values):
    def write() -> None:
        with create_volume(tmp_path / "v.zarr", volume_values.shape) as writer:
            writer.deposit.put(8, volume_values[8:21])

    with pytest.raises(InputError, match="slices 8 to 21 do not fill chunks of 16"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_a_volume_with_holes_is_not_kept(tmp_path, volume_values, name, error):
    def write() -> None:
        with create_volume(tmp_path / name, volume_values.shape) as writer:
            writer.write(2, volume_values[2:9])
            if error is not None:
                raise error

    with pytest.raises(type(error) if error else StorageError):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_wrong_slabs_are_refused(tmp_path, volume_values, name):
    shape = volume_values.shape
    with create_volume(tmp_path / name, shape) as writer:
        writer.write(0, volume_values[:4])
        for first, slab in (
            (3, volume_values[3:5]),
            (20, volume_values[:4]),
            (5, volume_values[5:6, 1:]),
            (5, volume_values[5:6].astype("f8")),
        ):
            with pytest.raises(InputError):
                writer.write(first, slab)
        writer.write(4, volume_values[4:])
    assert np.array_equal(stored(tmp_path / name), volume_values)


def test_nexus_names_axes_units_and_steps(tmp_path, volume_values):
    with create_volume(
        tmp_path / "v.h5",
        volume_values.shape,
        voxel_size_um=2.0,
        origin_px=(3, -65, -75),
        sample="tooth",
        raw_file="scan.h5",
    ) as writer:
        writer.processes = CHAIN
        writer.write(0, volume_values)
    with h5py.File(tmp_path / "v.h5") as file:
        entry = file["entry"]
        assert entry["definition"].asstr()[()] == "NXtomoproc"
        data = entry["data"]
        assert list(data.attrs["axes"]) == ["z", "y", "x"]
        assert data["data"].attrs["units"] == "1/m"
        assert [data[axis][0] for axis in "zyx"] == [6, -130, -150]
        assert data["x"].attrs["units"] == "um"
        parameters = entry["reconstruction/parameters"]
        assert parameters["raw_file"].asstr()[()] == "scan.h5"
        assert parameters["engine"].asstr()[()] == "gridding"
        record = json.loads(entry["process_2_reconstruct/provenance/record"][()])
        assert record["outputs"] == {"v.h5": writer.checksum}


def test_pynxtools_complains_of_the_order_of_the_axes_alone(tmp_path, volume_values):
    # NXtomoproc counts x, y, z; the suite, as all programs that write it, stores z, y, x.
    with create_volume(tmp_path / "v.h5", volume_values.shape) as writer:
        writer.write(0, volume_values)
    pynx = Path(sys.executable).with_name("pynx")
    done = subprocess.run(
        [pynx, "validate", tmp_path / "v.h5"], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if "WARNING" in line]
    dimensions = [line for line in complaints if "Inconsistent dimensions" in line]
    assert len(dimensions) == 2
    assert [line for line in complaints if line not in dimensions and "NOT valid" not in line] == []


def test_equal_slices_give_equal_tiff_files(tmp_path, volume_values):
    for name in ("a", "b"):
        with create_volume(tmp_path / name, volume_values.shape, voxel_size_um=1.5) as writer:
            writer.write(0, volume_values)
    for file in sorted((tmp_path / "a").glob("*.tif")):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    with tifffile.TiffFile(tmp_path / "a/slice_00003.tif") as tiff:
        described = json.loads(tiff.pages[0].description)
    assert described == {"axes": "YX", "unit": "1/m", "voxel_size_um": 1.5}
    assert len(list((tmp_path / "a").iterdir())) == 22


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_is_replaced_only_when_told(tmp_path, volume_values, name):
    for number in range(2):
        with create_volume(tmp_path / name, volume_values.shape, overwrite=number == 1) as writer:
            writer.write(0, volume_values + number)
    assert np.array_equal(stored(tmp_path / name), volume_values + 1)
    with pytest.raises(StorageError, match="is there already"):
        create_volume(tmp_path / name, volume_values.shape)


def test_raw_data_are_never_replaced(tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["exchange/data"] = np.zeros((2, 3, 4))
    size = (tmp_path / "raw.h5").stat().st_size
    with pytest.raises(StorageError, match="something else than a volume"):
        create_volume(tmp_path / "raw.h5", (1, 2, 2), overwrite=True)
    assert (tmp_path / "raw.h5").stat().st_size == size


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_told_and_nothing_is_left(full_disk, name):
    out = full_disk(f"""
        import numpy as np
        from apsber_bluesky.core import StorageError
        from apsber_bluesky.storage import create_volume
        try:
            with create_volume(root / {name!r}, (64, 128, 128)) as writer:
                for first in range(0, 64, 16):
                    writer.write(first, np.ones((16, 128, 128), np.float32))
        except StorageError as error:
            print("disk is full" in str(error), [p.name for p in root.iterdir()])
    """)
    assert out.strip() == "True []"
