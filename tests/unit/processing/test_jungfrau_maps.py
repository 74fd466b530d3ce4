"""Files of pedestals and gains: what is written is read, and what cannot be right is refused."""

from __future__ import annotations

import datetime

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import DataFileError, InputError, StorageError
from apsber_bluesky.processing.jungfrau._maps import (
    JungfrauMap,
    read_jungfrau_map,
    write_jungfrau_map,
)

SHAPE = (3, 8, 10)
TAKEN = "2026-05-04T12:00:00+02:00"
TYPICAL = {"pedestal": (3000, 14000, 14500), "gain": (40, -1.5, -0.1)}


def values_of(kind: str) -> np.ndarray:
    typical = np.array(TYPICAL[kind], dtype=np.float32)[:, None, None]
    return typical * np.linspace(0.9, 1.1, 80, dtype=np.float32).reshape(8, 10)


@pytest.fixture(params=["h5", "npz"])
def write(request, tmp_path):
    """Write any arrays into a file of either format."""

    def write(**arrays):
        path = tmp_path / f"map.{request.param}"
        if request.param == "npz":
            np.savez(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for name, values in arrays.items():
                    file[name] = values
        return path

    return write


@pytest.mark.parametrize("kind", TYPICAL)
def test_a_map_that_was_written_is_read_with_its_gaps(tmp_path, kind):
    values = values_of(kind)
    values[0, 2, 3] = values[1] = np.nan
    path = tmp_path / "new folder" / "map.h5"
    write_jungfrau_map(path, JungfrauMap(kind, values, TAKEN))
    found = read_jungfrau_map(path, kind)
    np.testing.assert_array_equal(found.values, values)
    assert (found.kind, found.taken, found.values.dtype) == (kind, TAKEN, np.float32)
    assert found.checksum == JungfrauMap(kind, values, TAKEN).checksum
    assert [entry.name for entry in path.parent.iterdir()] == ["map.h5"]


@pytest.mark.parametrize("kind", TYPICAL)
def test_files_that_others_wrote_are_read(write, kind):
    path = write(**{kind: values_of(kind), "taken": TAKEN, "more": np.arange(3)})
    found = read_jungfrau_map(path, kind)
    np.testing.assert_array_equal(found.values, values_of(kind))
    assert found.taken == TAKEN


def changed(kind, place, value):
    values = values_of(kind)
    values[place] = value
    return {kind: values, "taken": TAKEN}


TOMORROW = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)).isoformat()


@pytest.mark.parametrize(
    ("kind", "arrays", "words"),
    [
        ("gain", {"pedestal": values_of("pedestal"), "taken": TAKEN}, "has no 'gain'"),
        ("gain", {"gain": values_of("gain")}, "has no 'taken'"),
        ("gain", {"gain": values_of("gain")[:2], "taken": TAKEN}, "must be (3, rows, columns)"),
        ("gain", {"gain": values_of("gain")[0], "taken": TAKEN}, "must be (3, rows, columns)"),
        ("gain", {"gain": np.zeros((3, 0, 4), "f4"), "taken": TAKEN}, "must be (3, rows, columns)"),
        ("gain", {"gain": values_of("gain").astype("f8"), "taken": TAKEN}, "must be float32"),
        ("gain", changed("gain", (1, 3, 3), np.inf), "gain of G1 is infinite in 1 pixels"),
        ("gain", changed("gain", 0, 0), "gain of G0 is there for only 0 of 80 pixels"),
        ("gain", changed("gain", 2, 0.1), "gain of G2 must be negative"),
        ("gain", changed("gain", slice(None), values_of("gain")[::-1]), "gain of G0 must be"),
        ("pedestal", changed("pedestal", (0, 1, 1), -1), "outside 0..16383 ADU in 1 pixels"),
        ("pedestal", changed("pedestal", (2, 1, 1), 16384), "pedestal of G2 is outside"),
        ("pedestal", changed("pedestal", 0, np.nan), "for only 0 of 80 pixels"),
        ("gain", {"gain": values_of("gain"), "taken": "yesterday"}, "'yesterday'"),
        ("gain", {"gain": values_of("gain"), "taken": "2026-05-04T12:00:00"}, "give a time like"),
        ("gain", {"gain": values_of("gain"), "taken": TOMORROW}, "has not come yet"),
        ("gain", {"gain": values_of("gain"), "taken": 5.0}, "'5.0'"),
    ],
    ids=range(17),
)
def test_a_map_that_cannot_be_right_is_refused_with_the_file_and_the_reason(
    write, kind, arrays, words
):
    path = write(**arrays)
    with pytest.raises(DataFileError) as refused:
        read_jungfrau_map(path, kind)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("name", ["map.h5", "map.npz"])
@pytest.mark.parametrize("content", [None, b"", b"no such file at all", b"PK\x03\x04" + bytes(40)])
def test_what_is_no_file_of_maps_is_refused(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataFileError, match=name):
        read_jungfrau_map(path, "gain")


def test_pickles_are_never_loaded(tmp_path):
    path = tmp_path / "map.npz"
    np.savez(path, gain=np.array([{}], dtype=object), taken=TAKEN)
    with pytest.raises(DataFileError, match="allow_pickle"):
        read_jungfrau_map(path, "gain")


def test_a_map_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="write the gain"):
        write_jungfrau_map(
            tmp_path / "file" / "map.h5", JungfrauMap("gain", values_of("gain"), TAKEN)
        )


def test_another_kind_of_map_is_refused():
    with pytest.raises(InputError, match="'noise'"):
        JungfrauMap("noise", values_of("gain"), TAKEN)
