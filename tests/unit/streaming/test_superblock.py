"""A spool whose writer was killed is opened again."""

import struct

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import StorageError
from apsber_bluesky.streaming._superblock import lookup3, release_dead_writer


@pytest.fixture
def abandoned(tmp_path):
    """A file as a SWMR writer leaves it that is killed."""
    path = tmp_path / "file.h5"
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("x", data=np.arange(10), maxshape=(None,), chunks=(4,))
        file.swmr_mode = True
        data.resize(20, axis=0)
        data.flush()
        content = path.read_bytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("text", "value"), [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)]
)
def test_the_checksum_is_that_of_its_author(text, value):
    assert lookup3(text) == value


def test_the_checksum_is_that_of_hdf5(tmp_path):
    for count in range(1, 40, 7):
        with h5py.File(tmp_path / "file.h5", "w", libver="latest") as file:
            file["x"] = np.arange(count)
        block = (tmp_path / "file.h5").read_bytes()[:48]
        assert struct.unpack("<I", block[44:])[0] == lookup3(block[:44])


def test_a_writer_that_is_dead_makes_room_for_another(abandoned):
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(abandoned, "r+")
    assert release_dead_writer(abandoned)
    assert not release_dead_writer(abandoned)
    with h5py.File(abandoned, "r+", libver="latest") as file:
        assert file["x"][:].tolist() == [*range(10), *[0] * 10]
        file.swmr_mode = True
        file["x"][15] = 7


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda block: block[:20], "no HDF5 file"),
        (lambda block: b"x" + block[1:], "no HDF5 file"),
        (lambda block: block[:30] + b"\xff" + block[31:], "damaged superblock"),
        (lambda block: block[:9] + b"\x04" + block[10:], "addresses of 4 and 8 bytes"),
    ],
)
def test_what_is_no_such_file_is_left_as_it_is(abandoned, damage, word):
    abandoned.write_bytes(damage(abandoned.read_bytes()))
    before = abandoned.read_bytes()
    with pytest.raises(StorageError, match=word):
        release_dead_writer(abandoned)
    assert abandoned.read_bytes() == before
