"""A volume appears whole, with levels, units and checksum, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image

from apsber_bluesky.core import DataFileError, InputError, StorageError, array_checksum
from apsber_bluesky.storage import VolumeWriter, open_volume, read_volume_info


def _write(path: Path, values: np.ndarray, starts: list[int], **options: object) -> VolumeWriter:
    ordered = sorted([*starts, len(values)])
    with VolumeWriter(path, values.shape, **options) as writer:
        for start in starts:
            stop = ordered[ordered.index(start) + 1]
            writer.write(start, values[start:stop])
    return writer


@pytest.mark.parametrize(
    "starts",
    [[0], [0, 16], [16, 0], [20, 3, 0, 7, 19], list(range(21)), list(reversed(range(21)))],
    ids=["at once", "slabs", "slabs reversed", "ragged", "slices", "slices reversed"],
)
def test_every_order_of_slabs_gives_the_same_volume(tmp_path, volume_values, starts):
    writer = _write(tmp_path / "v.zarr", volume_values, starts)
    plain = _write(tmp_path / "plain.zarr", volume_values, [0])
    assert np.array_equal(open_volume(writer.path)[:], volume_values)
    assert writer.checksum == plain.checksum == array_checksum(volume_values)
    for level in range(1, len(read_volume_info(writer.path).levels)):
        mine, reference = open_volume(writer.path, level)[:], open_volume(plain.path, level)[:]
        assert np.array_equal(mine, reference)


def test_coarser_levels_average_the_voxels_that_are_there(tmp_path, volume_values):
    _write(tmp_path / "v.zarr", volume_values, [0])
    coarse = open_volume(tmp_path / "v.zarr", 1)
    assert coarse.shape == (11, 66, 75)
    assert coarse[3, 4, 5] == pytest.approx(volume_values[6:8, 8:10, 10:12].mean(), rel=1e-6)
    assert coarse[10, 65, 74] == pytest.approx(volume_values[20, 130, 148:150].mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        ((2, 16, 16), [(2, 16, 16)]),
        ((2, 256, 300), [(2, 256, 300), (1, 128, 150), (1, 64, 75)]),
        ((1, 128, 128), [(1, 128, 128), (1, 64, 64)]),
        ((40, 128, 128), [(40, 128, 128), (20, 64, 64)]),
    ],
)
def test_levels_halve_until_the_slices_are_small(tmp_path, shape, levels):
    _write(tmp_path / "v.zarr", np.ones(shape, np.float32), [0])
    found = [open_volume(tmp_path / "v.zarr", k) for k in range(len(levels))]
    assert [array.shape for array in found] == levels
    assert all((array[:] == 1).all() for array in found)
    with pytest.raises(DataFileError, match=f"no level {len(levels)}"):
        open_volume(tmp_path / "v.zarr", len(levels))


@pytest.mark.parametrize("voxel_size_um", [2.5, None])
def test_metadata_is_valid_ome_zarr(tmp_path, volume_values, voxel_size_um):
    _write(tmp_path / "v.zarr", volume_values, [0], voxel_size_um=voxel_size_um)
    image = Image.from_zarr(zarr.open_group(tmp_path / "v.zarr", mode="r"))
    multiscale = image.ome_attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in multiscale.axes} == {voxel_size_um and "micrometer"}
    size = voxel_size_um or 1.0
    scale, translation = multiscale.datasets[1].coordinateTransformations
    assert scale.scale == [2 * size] * 3
    assert translation.translation == [size / 2] * 3


def test_attenuation_is_stored_per_metre_when_the_voxel_size_is_known(tmp_path, volume_values):
    writer = _write(tmp_path / "v.zarr", volume_values, [0], voxel_size_um=5.0)
    stored = open_volume(writer.path)
    assert stored.attrs["unit"] == writer.unit == "1/m"
    assert np.allclose(stored[:], volume_values / 5e-6, rtol=1e-6)
    info = read_volume_info(writer.path)
    assert (info.unit, info.voxel_size_um, info.shape) == ("1/m", 5.0, volume_values.shape)
    assert info.checksum == writer.checksum == array_checksum(stored[:])


def test_missing_slices_are_named_and_nothing_is_kept(tmp_path, volume_values):
    writer = VolumeWriter(tmp_path / "v.zarr", volume_values.shape)

    def write_some():
        with writer:
            writer.write(2, volume_values[2:4])
            writer.write(5, volume_values[5:17])

    with pytest.raises(StorageError, match=r"misses 7 of 21 slices: 0-1, 4, 17-20"):
        write_some()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError, match="not whole"):
        _ = writer.checksum


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt()])
def test_an_error_in_the_body_leaves_nothing_and_keeps_the_volume_before(
    tmp_path, volume_values, error
):
    path = tmp_path / "v.zarr"
    before = _write(path, volume_values, [0])

    def fail():
        with VolumeWriter(path, volume_values.shape) as writer:
            writer.write(0, volume_values)
            assert (tmp_path / "v.zarr.partial").is_dir()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["v.zarr"]
    assert read_volume_info(path).checksum == before.checksum


@pytest.mark.parametrize(
    ("first", "slab", "message"),
    [
        (0, np.zeros((1, 4, 5), np.float32), r"\(1, 4, 5\) does not fit"),
        (0, np.zeros((1, 4, 4), np.float64), "float64"),
        (2, np.zeros((2, 4, 4), np.float32), "slices 2 to 4 are not in a volume of 3"),
        (-1, np.zeros((1, 4, 4), np.float32), "slices -1 to 0"),
        (0, np.zeros((0, 4, 4), np.float32), "slices 0 to 0"),
        (1, np.zeros((1, 4, 4), np.float32), "1 to 1 were written before"),
    ],
)
def test_slabs_that_do_not_fit_are_refused(tmp_path, first, slab, message):
    with VolumeWriter(tmp_path / "v.zarr", (3, 4, 4)) as writer:
        writer.write(1, np.zeros((1, 4, 4), np.float32))
        with pytest.raises(InputError, match=message):
            writer.write(first, slab)
        for rest in (0, 2):
            writer.write(rest, np.zeros((1, 4, 4), np.float32))
    assert (open_volume(writer.path)[:] == 0).all()


@pytest.mark.parametrize(
    "options",
    [{"shape": (0, 4, 4)}, {"shape": (4, 4)}, {"voxel_size_um": -1.0}, {"chunk": (0, 1, 1)}],
)
def test_impossible_volumes_are_refused(tmp_path, options):
    with pytest.raises(InputError, match="give"):
        VolumeWriter(tmp_path / "v.zarr", **({"shape": (4, 4, 4)} | options))


def test_writing_outside_the_context_is_refused(tmp_path):
    writer = VolumeWriter(tmp_path / "v.zarr", (1, 4, 4))
    with pytest.raises(InputError, match="not open"):
        writer.write(0, np.zeros((1, 4, 4), np.float32))


def test_a_place_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(StorageError, match="cannot write the volume"),
        VolumeWriter(tmp_path / "file" / "v.zarr", (1, 4, 4)),
    ):
        pass


def test_reading_what_is_no_volume_is_explained(tmp_path):
    with pytest.raises(DataFileError, match="no volume at"):
        open_volume(tmp_path / "v.zarr")
    zarr.create_group(tmp_path / "plain.zarr", zarr_format=3)
    with pytest.raises(DataFileError, match="not an OME-Zarr"):
        read_volume_info(tmp_path / "plain.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match="not an OME-Zarr"):
        read_volume_info(tmp_path / "empty")
