"""What a spool holds, whether it was closed, is being written or was left by a killed receiver."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash

from apsber_bluesky.core import DataFileError, FrameBooks, SeriesBooks, SeriesRequest
from apsber_bluesky.streaming import (
    Frame,
    audit_spool,
    encode,
    read_spool_index,
    reconcile_books,
)
from apsber_bluesky.streaming._spool import Spool

FRAMES, ROWS, COLUMNS = 9, 32, 64
REQUEST = SeriesRequest("run-1", "primary", FRAMES, ROWS, COLUMNS, "<u2")
CODECS = ("none", "bslz4", "lz4")


def frame(number: int, codec: str = "none") -> Frame:
    pixels = np.random.default_rng(number).integers(1, 900, (ROWS, COLUMNS), "<u2")
    stored = memoryview(pixels).cast("B") if codec == "none" else memoryview(encode(pixels, codec))
    checksum = xxhash.xxh3_64_intdigest(stored)
    return Frame(1, number, 10.0 + number, 0.5 * number, checksum, stored, codec)


def fill(path, numbers, codec="none") -> Spool:
    spool = Spool(path, REQUEST, codec=codec)
    spool.extend("primary", FRAMES)
    for number in numbers:
        spool.write("primary", number, frame(number, codec))
    spool.flush()
    return spool


def damage(path, number, codec) -> None:
    """Change one bit of the stored bytes of a frame."""
    stored = bytes(frame(number, codec).pixels)
    content = bytearray(path.read_bytes())
    place = content.find(stored)
    assert place > 0
    content[place + len(stored) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("closed", [True, False])
def test_frames_that_are_there_and_whole_are_told_from_the_others(tmp_path, codec, closed):
    path = tmp_path / "raw.h5"
    spool = fill(path, [0, 1, 2, 4, 5], codec)
    if closed:
        spool.close()
    damage(path, 2, codec)
    whole = audit_spool(path)
    believed = audit_spool(path, checksums=False)
    from_3_on = audit_spool(path, first={"primary": 3})
    if not closed:
        spool.close()
    assert list(whole) == ["primary"]
    assert np.flatnonzero(whole["primary"]).tolist() == [0, 1, 4, 5]
    assert len(whole["primary"]) == FRAMES
    assert np.flatnonzero(believed["primary"]).tolist() == [0, 1, 2, 4, 5]
    assert np.flatnonzero(from_3_on["primary"]).tolist() == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("codec", CODECS)
def test_the_index_is_what_the_detector_said(tmp_path, codec):
    path = tmp_path / "raw.h5"
    fill(path, [0, 3], codec).close()
    index = read_spool_index(path)["primary"]
    assert index["frame_number"].tolist() == [0, -1, -1, 3, -1, -1, -1, -1, -1]
    assert index["timestamp"][[0, 3]].tolist() == [10.0, 13.0]
    assert index["angle"][[0, 3]].tolist() == [0.0, 1.5]
    assert np.isnan(index["angle"][1])
    assert index["checksum"][3] == frame(3, codec).checksum


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_spool_audit import fill
spool = fill(Path(sys.argv[1]), [0, 1, 2, 5], sys.argv[3])
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_killed(path, codec) -> None:
    command = [sys.executable, "-c", KILLED, path, Path(__file__).parent, codec]
    assert subprocess.run(command, check=False).returncode == -9


@pytest.mark.parametrize("codec", CODECS)
def test_what_a_killed_receiver_left_is_found_frame_by_frame(tmp_path, codec):
    path = tmp_path / "raw.h5"
    left_by_killed(path, codec)
    before = path.read_bytes()
    whole = audit_spool(path)
    assert np.flatnonzero(whole["primary"]).tolist() == [0, 1, 2, 5]
    ledger = FrameBooks({"flats": SeriesBooks(expected=4, received=4, written=4, used=4)})
    books = reconcile_books(ledger, whole)
    assert books.streams["primary"] == SeriesBooks(
        expected=FRAMES, received=4, written=4, missing=[3, 4, 6, 7, 8]
    )
    assert books.streams["flats"] == ledger.streams["flats"]
    assert path.read_bytes() == before


def test_frames_of_a_series_that_ended_are_left_to_the_books():
    own = SeriesBooks(4, 5, 3, 3, duplicated=1, missing=[1], decoded=2, incomplete=[2])
    # The spool has room for a second series of the stream; of the first it may say what it likes.
    whole = {"flats": np.array([True, True, True, False, True, False, True])}
    books = reconcile_books(FrameBooks({"flats": own}), whole)
    assert books.streams["flats"] == SeriesBooks(
        7, 7, 5, 3, duplicated=1, missing=[1, 5], decoded=2, incomplete=[2]
    )
    assert own.missing == [1]
    unchanged = reconcile_books(FrameBooks({"flats": own}), {"flats": whole["flats"][:4]})
    assert unchanged.streams["flats"] == own


def test_frames_that_the_pixels_have_no_room_for_are_not_there(tmp_path):
    path = tmp_path / "raw.h5"
    fill(path, range(FRAMES)).close()
    with h5py.File(path, "r+") as file:
        file["entry/primary/data"].resize(5, axis=0)
    for checksums in (True, False):
        whole = audit_spool(path, checksums=checksums)["primary"]
        assert whole.tolist() == [True] * 5 + [False] * 4


@pytest.mark.parametrize("size", [5, 300, 2000, 5000, 40_000])
def test_what_a_killed_receiver_left_and_a_disk_cut_short_is_named_and_not_waited_for(
    tmp_path, size
):
    path = tmp_path / "raw.h5"
    left_by_killed(path, "none")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataFileError, match=r"cannot read the frame spool .*raw\.h5"):
        audit_spool(path)


@pytest.mark.parametrize("what", ["nothing", "text", "half"])
def test_a_spool_that_cannot_be_read_is_named(tmp_path, what):
    path = tmp_path / "raw.h5"
    if what == "text":
        path.write_text("not HDF5")
    elif what == "half":
        fill(path, range(FRAMES)).close()
        path.write_bytes(path.read_bytes()[:2000])
    for read in (audit_spool, read_spool_index):
        with pytest.raises(DataFileError, match=r"cannot read the frame spool .*raw\.h5"):
            read(path)
