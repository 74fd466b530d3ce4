"""The spool: a file that is written in one process and followed in another."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import FrameRange, SeriesRequest, StorageError
from apsber_bluesky.streaming import RingOrFileSource
from apsber_bluesky.streaming._codecs import encode
from apsber_bluesky.streaming._series_messages import Frame
from apsber_bluesky.streaming._spool import Spool
from apsber_bluesky.streaming._spool_file import dataset_path

REQUEST = SeriesRequest("run-1", "primary", 6, 4, 5, "<u2")


def frame(number: int) -> Frame:
    pixels = memoryview(np.full(20, 100 + number, "<u2")).cast("B")
    return Frame(1, number, 10.0 + number, 0.5 * number, 1000 + number, pixels)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from apsber_bluesky.core import SeriesRequest
from apsber_bluesky.streaming._spool import Spool
from apsber_bluesky.streaming._series_messages import Frame
spool = Spool(Path(sys.argv[1]), SeriesRequest("run-1", "primary", 6, 4, 5, "<u2"))
spool.extend("primary", 6)
print("open", flush=True)
for line in sys.stdin:
    number = int(line)
    pixels = memoryview(np.full(20, 100 + number, "<u2")).cast("B")
    spool.write("primary", number, Frame(1, number, 10.0, 0.0, 7, pixels))
    spool.flush()
    print("written", flush=True)
# Nothing is closed: the process just ends, as after a power cut.
import os
os._exit(0)
"""


def test_a_reader_follows_a_writer_in_another_process_and_keeps_what_a_crash_left(tmp_path):
    path = tmp_path / "raw.h5"
    uri, dataset = path.as_uri(), dataset_path("primary")
    source = RingOrFileSource()
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        try:
            assert writer.stdout.readline() == "open\n"
            assert not source.read(FrameRange("run-1", "primary", 0, 6, uri, dataset)).any()
            for number in (0, 1, 4):
                writer.stdin.write(f"{number}\n")
                writer.stdin.flush()
                assert writer.stdout.readline() == "written\n"
                frames = FrameRange("run-1", "primary", number, number + 1, uri, dataset)
                assert (source.read(frames) == 100 + number).all()
            writer.stdin.close()
            assert writer.wait() == 0
        finally:
            writer.kill()
            source.close()
    with h5py.File(path, "r", libver="latest", swmr=True) as file:
        values = file[dataset][:, 0, 0].tolist()
        numbers = file["entry/primary/frame_number"][:].tolist()
    assert values == [100, 101, 0, 0, 104, 0]
    assert numbers == [0, 1, -1, -1, 4, -1]


def test_frames_land_at_their_place_and_lost_ones_leave_marks(tmp_path):
    spool = Spool(tmp_path / "raw.h5", REQUEST)
    assert spool.extend("primary", 3) == 0
    assert spool.extend("primary", 2) == 3
    assert spool.extend("flats", 1) == 0
    for number in (4, 0, 2):
        spool.write("primary", number, frame(number))
    spool.close()
    with h5py.File(tmp_path / "raw.h5") as file:
        group = file["entry/primary"]
        assert group["data"].dtype == "<u2"
        assert group["data"].chunks == (1, 4, 5)
        assert group["data"][:, 1, 1].tolist() == [100, 0, 102, 0, 104]
        assert group["frame_number"][:].tolist() == [0, -1, 2, -1, 4]
        np.testing.assert_equal(group["timestamp"][:], [10.0, np.nan, 12.0, np.nan, 14.0])
        np.testing.assert_equal(group["angle"][:], [0.0, np.nan, 1.0, np.nan, 2.0])
        assert group["checksum"][:].tolist() == [1000, 0, 1002, 0, 1004]
        keys = {name: stream.attrs["image_key"] for name, stream in file["entry"].items()}
        assert keys == {"primary": 0, "flats": 1, "darks": 2}
        assert file["entry/darks/data"].shape == (0, 4, 5)
        assert file.attrs["run_uid"] == "run-1"


def test_a_spool_is_never_written_over(tmp_path):
    (tmp_path / "raw.h5").write_text("somebody's frames")
    with pytest.raises(StorageError, match=r"raw\.h5"):
        Spool(tmp_path / "raw.h5", REQUEST)
    assert (tmp_path / "raw.h5").read_text() == "somebody's frames"


def test_a_spool_on_a_file_in_the_path_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        Spool(tmp_path / "file" / "raw.h5", REQUEST)


def test_a_full_disk_is_told_to_the_plan_and_the_next_run_works_when_there_is_room(full_disk):
    """From publisher to client with everything in between, on a disk that really fills up."""
    told = full_disk(
        """
        import threading
        import h5py, numpy as np
        from apsber_bluesky.core import DEFAULT_PROPOSAL, RunFolder, SeriesRequest, StorageError
        from apsber_bluesky.streaming import *

        publisher = FramePublisher()
        ring = FrameRing(create_ring_memory(1_000_000))
        receiver = Receiver(publisher.address, root, ring)
        stop = threading.Event()
        thread = threading.Thread(target=receiver.serve, args=(stop.is_set,))
        thread.start()
        client = ReceiverClient(receiver.control_address)

        def take(uid, fill=0):
            ticket = client.arm(SeriesRequest(uid, "primary", 30, 100, 100, "<u2"))
            (root / "fill").write_bytes(bytes(fill))
            publisher.start_series(
                ticket.series, num_frames=30, rows=100, columns=100, dtype="<u2"
            )
            for number in range(30):
                frame = np.full((100, 100), number + 1, "<u2")
                publisher.send(frame, number=number, timestamp_s=1.0)
            publisher.end_series()
            return client.finish(uid, "primary", timeout_s=5)

        def attempt(what, *arguments):
            try:
                print(what.__name__, what(*arguments))
            except StorageError as error:
                print(what.__name__, "StorageError", error)

        attempt(take, "first", 1_500_000)
        attempt(client.close_run, "first")
        (root / "fill").unlink()
        attempt(take, "second")
        books = client.close_run("second")
        print(books.complete, books.written)
        with h5py.File(RunFolder.of(root, DEFAULT_PROPOSAL, "second").raw) as file:
            print(file["entry/primary/data"][:, 0, 0].tolist() == list(range(1, 31)))
        stop.set()
        thread.join()
        receiver.close()
        """
    ).splitlines()
    assert told[0].startswith("take StorageError cannot write")
    assert "the disk is full; free space or choose another data root" in told[0]
    assert told[1].startswith("close_run")
    assert told[2:] == ["take 30", "True 30", "True"]


@pytest.mark.parametrize("codec", ["none", "bslz4"])
def test_what_was_written_and_never_named_is_blanked(tmp_path, codec):
    """A receiver can be killed between the pixels of a frame and the row that names it."""
    spool = Spool(tmp_path / "raw.h5", REQUEST, codec=codec)
    spool.extend("primary", 3)
    for number in (0, 1):
        pixels = memoryview(encode(np.full((4, 5), 100 + number, "<u2"), codec))
        spool.write("primary", number, Frame(1, number, 1.0, 0.0, 5, pixels, codec))
    del spool._streams["primary"].rows[1]
    spool.flush()
    spool.blank("primary", [1, 2])
    spool.close()
    with h5py.File(tmp_path / "raw.h5") as file:
        assert file["entry/primary/data"][:, 1, 1].tolist() == [100, 0, 0]
        assert file["entry/primary/frame_number"][:].tolist() == [0, -1, -1]


def test_a_spool_grows_with_its_frames_and_not_with_those_that_are_announced(tmp_path):
    """So that a scan which is given up leaves no large empty file behind."""
    request = SeriesRequest("run-1", "primary", 100_000, 1000, 1000, "<u2")
    spool = Spool(tmp_path / "raw.h5", request)
    spool.extend("primary", 100_000)
    pixels = memoryview(np.full((1000, 1000), 7, "<u2")).cast("B")
    for number in (0, 200, 150):
        spool.write("primary", number, Frame(1, number, 1.0, 0.0, 5, pixels))
    spool.close()
    with h5py.File(tmp_path / "raw.h5") as file:
        data, numbers = file["entry/primary/data"], file["entry/primary/frame_number"]
        assert 200 < data.shape[0] < 1000
        assert numbers.shape == (100_000,)
        assert np.flatnonzero(numbers[:] >= 0).tolist() == [0, 150, 200]
        assert (data[150] == 7).all()
        assert not data[151].any()


def test_a_spool_goes_on_after_its_writer_was_killed(tmp_path):
    path = tmp_path / "raw.h5"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout.readline() == "open\n"
        for number in (0, 3):
            writer.stdin.write(f"{number}\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "written\n"
        writer.kill()
    spool = Spool(path, REQUEST, resume=True)
    spool.write("primary", 1, frame(1))
    assert spool.extend("primary", 2) == 6
    spool.write("primary", 6, frame(6))
    spool.close()
    with h5py.File(path) as file:
        assert file["entry/primary/data"][:, 0, 0].tolist() == [100, 101, 0, 103, 0, 0, 106, 0]
        assert file["entry/primary/frame_number"][:].tolist() == [0, 1, -1, 3, -1, -1, 6, -1]
