"""Reading frames by reference, without a ring: detectors that only write files, and replays."""

from __future__ import annotations

import h5py
import hdf5plugin
import numpy as np
import pytest

from apsber_bluesky.core import DataFileError, FrameRange
from apsber_bluesky.streaming import RingOrFileSource, path_of_uri

FRAMES = np.arange(5 * 3 * 4, dtype="<u2").reshape(5, 3, 4)


@pytest.fixture
def source():
    source = RingOrFileSource()
    yield source
    source.close()


@pytest.fixture
def make_file(tmp_path):
    def make(frames=FRAMES, name="frames.h5", libver=None, **options):
        path = tmp_path / name
        with h5py.File(path, "w", libver=libver) as file:
            file.create_dataset("entry/data/data", data=frames, **options)
        return path

    return make


def frames_of(path, start=0, stop=5, dataset="entry/data/data", uri=None):
    return FrameRange("run", "primary", start, stop, uri or path.as_uri(), dataset)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"libver": "latest"},
        {"chunks": (1, 3, 4), "compression": "gzip"},
        {"chunks": (2, 3, 4), **hdf5plugin.Bitshuffle()},
        {"chunks": (1, 3, 4), **hdf5plugin.LZ4()},
        {"chunks": (1, 3, 4), **hdf5plugin.Bitshuffle(cname="lz4")},
        {"chunks": (1, 3, 4), **hdf5plugin.Bitshuffle(cname="zstd")},
        {"chunks": (1, 3, 4), **hdf5plugin.Bitshuffle(cname="none")},
        {"chunks": (1, 3, 4), "shuffle": True, **hdf5plugin.LZ4()},
    ],
)
def test_a_file_that_another_program_wrote_is_read(source, make_file, options):
    path = make_file(**options)
    got = source.read(frames_of(path, 1, 4))
    np.testing.assert_array_equal(got, FRAMES[1:4])
    assert got.dtype == FRAMES.dtype
    assert (source.from_ring, source.from_file) == (0, 3)


@pytest.mark.parametrize("name", ["with space.h5", "per%20cent.h5", "hash#1.h5", "ü?.h5"])
def test_any_file_name_can_be_read(source, make_file, name):
    np.testing.assert_array_equal(source.read(frames_of(make_file(name=name))), FRAMES)


def test_a_file_that_was_closed_can_be_read_again(source, make_file):
    path = make_file()
    source.read(frames_of(path))
    source.close()
    np.testing.assert_array_equal(source.read(frames_of(path)), FRAMES)


def test_a_file_with_fewer_frames_than_were_announced_is_truncated(source, make_file):
    with pytest.raises(DataFileError, match=r"holds 5 frames, documents announced 6.*truncated"):
        source.read(frames_of(make_file(), 3, 6))


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize("kept", [0, 5, 100, 0.3, 0.7])
def test_a_file_that_was_cut_short_is_named(source, make_file, kept, libver):
    path = make_file(frames=np.ones((50, 40, 40)), libver=libver)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(DataFileError, match=r"frames\.h5"):
        source.read(frames_of(path, 0, 50))


def test_a_spool_that_was_cut_short_after_a_crash_is_named(source, tmp_path):
    path = tmp_path / "raw.h5"
    # As a power cut leaves it: never closed, and the end of the file lost.
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset("d", (9, 30, 40), "<u2", chunks=(1, 30, 40))
        file.swmr_mode = True
        data[:] = 7
        data[8] = 7
        file.flush()
        content = path.read_bytes()
        last = data.id.get_chunk_info_by_coord((8, 0, 0)).byte_offset
    path.write_bytes(content[: last + 100])
    got = source.read(frames_of(path, 0, 8, dataset="d"))
    assert (got == 7).all()
    with pytest.raises(DataFileError, match="ends before frame 8 of /d; the file is truncated"):
        source.read(frames_of(path, 0, 9, dataset="d"))


def test_a_damaged_frame_is_named(source, make_file):
    path = make_file(chunks=(1, 3, 4), compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        chunk = file["entry/data/data"].id.get_chunk_info(2)
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * chunk.size)
    np.testing.assert_array_equal(source.read(frames_of(path, 0, 2)), FRAMES[:2])
    with pytest.raises(DataFileError, match=r"frame.* of .*entry/data/data"):
        source.read(frames_of(path, 2, 3))


@pytest.mark.parametrize(
    "options", [hdf5plugin.LZ4(), hdf5plugin.Bitshuffle(cname="lz4")], ids=["lz4", "bslz4"]
)
def test_a_damaged_compressed_frame_is_named_and_one_that_was_lost_is_zero(
    source, make_file, options
):
    path = make_file(chunks=(1, 3, 4), maxshape=(None, 3, 4), **options)
    with h5py.File(path, "r+") as file:
        dataset = file["entry/data/data"]
        dataset.resize(7, axis=0)
        # The detector sent one frame as it was.
        dataset.id.write_direct_chunk((6, 0, 0), FRAMES[1].tobytes(), filter_mask=1)
        chunk = dataset.id.get_chunk_info(2)
    np.testing.assert_array_equal(source.read(frames_of(path, 4, 7))[[0, 2]], FRAMES[[4, 1]])
    assert not source.read(frames_of(path, 5, 6)).any()
    source.close()
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * chunk.size)
    with pytest.raises(DataFileError, match=r"frame.* of .*entry/data/data"):
        source.read(frames_of(path, 2, 3))


def test_a_missing_file_dataset_or_something_else_under_its_name_is_named(
    source, make_file, tmp_path
):
    path = make_file()
    with pytest.raises(DataFileError, match=r"nowhere\.h5.*is it still there"):
        source.read(frames_of(tmp_path / "nowhere.h5"))
    with pytest.raises(DataFileError, match="entry/data/other"):
        source.read(frames_of(path, dataset="entry/data/other"))
    with pytest.raises(DataFileError, match=r"has shape None; frames are \(n, rows, columns\)"):
        source.read(frames_of(path, dataset="entry/data"))
    flat = make_file(FRAMES.ravel(), name="flat.h5")
    with pytest.raises(DataFileError, match=r"has shape \(60,\)"):
        source.read(frames_of(flat))


@pytest.mark.parametrize(
    "uri",
    ["http://localhost/x.h5", "s3://bucket/x.h5", "file://elsewhere/x.h5", "/plain/path.h5", ""],
)
def test_what_is_no_local_file_is_refused(source, uri):
    with pytest.raises(DataFileError, match="not a local file"):
        source.read(FrameRange("run", "primary", 0, 1, uri, "d"))


@pytest.mark.parametrize("uri", ["file:///a%20b/c.h5", "file://localhost/a%20b/c.h5"])
def test_a_local_uri_names_its_path(uri):
    assert str(path_of_uri(uri)) == "/a b/c.h5"
