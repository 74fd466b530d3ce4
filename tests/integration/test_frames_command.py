"""``apsber frames``: every frame of a run that ended, runs, or died with its receiver."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import FrameState, RunFolder, RunLedger, RunState, SeriesBooks

WRITTEN = FrameState.SEEN | FrameState.WRITTEN

# What a receiver does in a run, up to the instant at which it is killed: it has entered the books
# of the flats, and some projections are on disk.
RECEIVER = """
import os, signal, sys
from pathlib import Path
import numpy as np, xxhash
from apsber_bluesky.core import FrameState, RunLedger, RunState, SeriesBooks, SeriesRequest
from apsber_bluesky.streaming import Frame
from apsber_bluesky.streaming._spool import Spool

folder, end = Path(sys.argv[1]), sys.argv[2]
ledger = RunLedger(folder / "ledger.sqlite", create=True)
ledger.set_state(RunState.ACQUIRING)
spool = Spool(folder / "raw.h5", SeriesRequest("run-1", "flats", 4, 8, 16, "<u2"))

def write(stream, numbers):
    for number in numbers:
        pixels = memoryview(np.full(128, 100 + number, "<u2")).cast("B")
        checksum = xxhash.xxh3_64_intdigest(pixels)
        frame = Frame(1, number, 1e9 + number, 0.5 * number, checksum, pixels)
        spool.write(stream, number, frame)
    spool.flush()

spool.extend("flats", 4)
write("flats", [0, 1, 3])
ledger.set_books("flats", SeriesBooks(4, 4, 3, duplicated=1, missing=[2]))
ledger.mark_frames("flats", FrameState.SEEN | FrameState.WRITTEN, [0, 1, 3])
spool.extend("primary", 30)
write("primary", [*range(12), 14, 20])
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
print("writing", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path):
    return RunFolder.of(tmp_path / "data", "p", "run-1").create()


@pytest.fixture
def frames(tmp_path):
    """Run ``apsber frames``; gives its JSON object and what people read."""

    def run(*words: str) -> tuple[dict, str]:
        command = [sys.executable, "-m", "apsber_bluesky.cli", "frames", "--json", *words]
        options = ["--data-root", str(tmp_path / "data")]
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    return run


def columns(told: str) -> dict[str, dict[str, int]]:
    """The table by stream and count."""
    lines = [line.split() for line in told.splitlines()]
    begin = next(n for n, line in enumerate(lines) if line[:1] == ["frames"])
    streams = lines[begin][1:]
    body = {line[0]: list(map(int, line[1:])) for line in lines[begin + 1 : begin + 11]}
    return {s: {name: row[n] for name, row in body.items()} for n, s in enumerate(streams)}


COUNTS = (
    "expected", "received", "written", "decoded", "used", "recovered", "duplicated", "refused",
    "missing", "incomplete",
)  # fmt: skip


def counts(*numbers: int) -> dict[str, int]:
    return dict(zip(COUNTS, numbers, strict=True))


@pytest.fixture
def killed(folder):
    done = subprocess.run([sys.executable, "-c", RECEIVER, folder.path, "killed"], check=False)
    assert done.returncode == -9
    return folder


def assert_told(value, told):
    primary = value["streams"]["primary"]
    assert value["open_streams"] == ["primary"]
    assert (primary["expected"], primary["received"], primary["written"]) == (30, 14, 14)
    assert primary["missing"] == "12-13, 15-19, 21-29"
    assert value["streams"]["flats"]["missing"] == "2"
    assert (value["expected"], value["written"], value["num_missing"]) == (34, 17, 17)
    assert value["complete"] is False
    assert "acquiring 17 of 34 frames are missing" in told
    assert "primary: the series has not ended, or its receiver died" in told
    assert columns(told) == {
        "flats": counts(4, 4, 3, 0, 0, 0, 1, 0, 1, 0),
        "primary": counts(30, 14, 14, 0, 0, 0, 0, 0, 16, 0),
        "total": counts(34, 18, 17, 0, 0, 0, 1, 0, 17, 0),
    }
    assert "missing in flats: 2\n" in told
    assert "missing in primary: 12-13, 15-19, 21-29\n" in told


def test_a_run_whose_receiver_was_killed_has_books_too(killed, frames):
    before = killed.raw.read_bytes()
    assert_told(*frames())
    assert killed.raw.read_bytes() == before


def test_a_frame_that_was_torn_is_missing_unless_one_does_not_look(killed, frames):
    content = bytearray(killed.raw.read_bytes())
    content[content.index(np.full(128, 107, "<u2").tobytes()) + 9] ^= 1
    killed.raw.write_bytes(content)
    assert frames()[0]["streams"]["primary"]["missing"] == "7, 12-13, 15-19, 21-29"
    believed, _ = frames("--no-checksums")
    assert believed["streams"]["primary"]["missing"] == "12-13, 15-19, 21-29"
    lines = {
        line["index"]: line for line in frames("--each")[0]["each"] if line["stream"] == "primary"
    }
    assert lines[7]["states"] == ["missing"]
    assert lines[8]["states"] == ["seen", "written"]


def test_a_run_that_is_being_taken_can_be_looked_at(folder, frames):
    with subprocess.Popen(
        [sys.executable, "-c", RECEIVER, folder.path, "lives"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as receiver:
        try:
            assert receiver.stdout.readline() == b"writing\n"
            assert_told(*frames())
        finally:
            receiver.kill()


@pytest.fixture
def ended(folder):
    """A run that was taken and reconstructed, but for the frames that it lacks."""
    with RunLedger(folder.ledger, create=True) as ledger:
        ledger.set_state(RunState.INCOMPLETE, "2 of 9 frames are missing")
        books = SeriesBooks(6, 5, 4, 3, 1, missing=[1, 4], decoded=4, recovered=2, incomplete=[5])
        ledger.set_books("primary", books)
        ledger.mark_frames("primary", WRITTEN | FrameState.DECODED, [0, 2, 3, 5])
        ledger.mark_frames("primary", FrameState.RECOVERED, [0, 2])
        ledger.mark_frames("primary", FrameState.INCOMPLETE, [5])
        ledger.mark_frames("primary", FrameState.USED, [0, 2, 3])
        ledger.set_books("darks", SeriesBooks(3, 3, 3, 3))
    with h5py.File(folder.raw, "w", libver="latest") as file:
        for stream, numbers in (("primary", [0, -1, 2, 3, -1, 5]), ("darks", [0, 1, 2])):
            group = file.create_group(f"entry/{stream}")
            group["frame_number"] = np.array(numbers)
            group["timestamp"] = 1e9 + np.array(numbers, float)
            angles = np.full(len(numbers), np.nan)
            group["angle"] = 0.25 * np.arange(6) if stream == "primary" else angles
            group["checksum"] = np.arange(len(numbers), dtype="u8") + 2**63
            group.create_dataset("data", (len(numbers), 2, 3), "<u2", chunks=(1, 2, 3))
    return folder


def test_every_number_stands_in_the_table_and_for_all_streams(ended, frames):
    value, told = frames()
    assert "run run-1  incomplete 2 of 9 frames are missing, 1 of 9 frames are incomplete" in told
    assert columns(told) == {
        "darks": counts(3, 3, 3, 0, 3, 0, 0, 0, 0, 0),
        "primary": counts(6, 5, 4, 4, 3, 2, 1, 0, 2, 1),
        "total": counts(9, 8, 7, 4, 6, 2, 1, 0, 2, 1),
    }
    assert "missing in primary: 1, 4\nincomplete in primary: 5\n" in told
    assert (value["decoded"], value["recovered"], value["num_incomplete"]) == (4, 2, 1)
    assert (value["state"], value["open_streams"]) == ("incomplete", [])
    assert value["problem"] is None
    assert "each" not in value


def test_each_frame_has_a_line(ended, frames):
    value, told = frames("--each")
    lines = {(line["stream"], line["index"]): line for line in value["each"]}
    assert len(lines) == 9
    assert lines["primary", 2] == {
        "stream": "primary",
        "index": 2,
        "states": ["seen", "written", "decoded", "used", "recovered"],
        "angle_deg": 0.5,
        "timestamp_s": 1e9 + 2,
        "checksum": "8000000000000002",
    }
    assert lines["primary", 5]["states"] == ["seen", "written", "decoded", "incomplete"]
    nothing = dict.fromkeys(("angle_deg", "timestamp_s", "checksum"))
    missing = {"stream": "primary", "index": 4, "states": ["missing"], **nothing}
    assert lines["primary", 4] == missing
    # Nobody marked the darks, but the books say that they are there.
    assert lines["darks", 1]["states"] == ["seen", "written"]
    assert lines["darks", 1]["angle_deg"] is None
    printed = [line.split() for line in told.splitlines()]
    assert ["primary", "4", "-", "-", "-", "missing"] in printed
    first = ["primary", "0", "0.0000", "1000000000.000000", "8000000000000000"]
    assert [*first, "seen", "written", "decoded", "used", "recovered"] in printed
    head = ["stream", "index", "angle_deg", "timestamp_s", "checksum", "states"]
    assert printed.count(head) == 1


def test_a_run_without_frames_or_of_an_older_version_is_told(folder, frames):
    with RunLedger(folder.ledger, create=True) as ledger:
        old = {"expected": 3, "received": 2, "written": 2, "used": 2, "missing": [1]}
        ledger._connection.execute("DROP TABLE frames")
        ledger._connection.execute("INSERT INTO series VALUES ('flats', ?)", [json.dumps(old)])
        ledger._connection.commit()
    value, _ = frames("--each")
    assert value["streams"]["flats"]["missing"] == "1"
    states = [line["states"] for line in value["each"]]
    assert states == [["seen", "written"], ["missing"], ["seen", "written"]]


def test_books_are_told_although_the_frames_cannot_be_read(ended, frames):
    ended.raw.write_text("not HDF5")
    value, told = frames("--each")
    assert value["num_missing"] == 2
    assert "cannot read the frame spool" in value["problem"]
    assert f"warning: {value['problem']}" in told
    states = [line["states"] for line in value["each"] if line["stream"] == "primary"]
    assert states[:2] == [["seen", "written", "decoded", "used", "recovered"], ["missing"]]
