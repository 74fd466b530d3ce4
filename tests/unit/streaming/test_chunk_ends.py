"""Where frames end in their file: the same as HDF5 says, but not searched for each."""

from __future__ import annotations

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from apsber_bluesky.streaming._chunk_ends import ChunkEnds

FRAMES = 400
SHAPE = (4, 6)


def write(dataset, indices):
    for index in indices:
        # Of various sizes, as compressed frames are.
        dataset.id.write_direct_chunk((index, 0, 0), bytes(20 + index))


def make(file, frames=FRAMES):
    return file.create_dataset(
        "d", (frames, *SHAPE), "<u2", chunks=(1, *SHAPE), maxshape=(None, *SHAPE), compression=1
    )


def searched(dataset, index):
    chunk = dataset.id.get_chunk_info_by_coord((index, 0, 0))
    return None if chunk.byte_offset is None else chunk.byte_offset + chunk.size


class Counting:
    """A dataset that counts the searches for a single chunk, and those for all."""

    def __init__(self, dataset):
        self._dataset = dataset
        self.file, self.single, self.all = dataset.file, 0, 0
        self.id = SimpleNamespace(get_chunk_info_by_coord=self._one, chunk_iter=self._every)

    @property
    def shape(self):
        return self._dataset.shape

    def _one(self, coordinates):
        self.single += 1
        return self._dataset.id.get_chunk_info_by_coord(coordinates)

    def _every(self, note):
        self.all += 1
        self._dataset.id.chunk_iter(note)


@pytest.mark.parametrize("lost", [[], [0, 7, 200, FRAMES - 1], range(3, FRAMES)], ids=str)
def test_ends_are_those_that_hdf5_finds_with_few_searches(tmp_path, lost):
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        dataset = make(file)
        write(dataset, sorted(set(range(FRAMES)) - set(lost)))
        wanted = [searched(dataset, index) for index in range(FRAMES)]
        assert [index for index, end in enumerate(wanted) if end is None] == list(lost)
        counting, ends = Counting(dataset), ChunkEnds()
        for _ in range(2):
            assert [ends.end_of(counting, index) for index in range(FRAMES)] == wanted
    assert (counting.single, counting.all) == (28, 1)


def test_frames_that_come_later_are_found_in_a_file_that_grows(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver="latest") as file:
        writer = make(file)
        file.swmr_mode = True
        with h5py.File(path, "r", libver="latest", swmr=True) as same:
            reader, ends = Counting(same["d"]), ChunkEnds()
            for first in range(0, FRAMES, 100):
                indices = range(first, first + 100)
                assert ends.end_of(reader, first) is None
                write(writer, indices)
                writer.flush()
                same["d"].refresh()
                found = [ends.end_of(reader, index) for index in indices]
                assert found == [searched(writer, index) for index in indices]
                assert None not in found
            writer.resize(FRAMES + 60, axis=0)
            write(writer, range(FRAMES, FRAMES + 60))
            writer.flush()
            same["d"].refresh()
            for index in [*range(FRAMES + 60), *np.arange(FRAMES + 60)]:
                assert ends.end_of(reader, index) == searched(writer, index)
    assert reader.single < FRAMES / 2
