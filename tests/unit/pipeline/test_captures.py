"""Scans that turn on and on: what becomes of captures, and of references that are taken again."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import zarr

from apsber_bluesky.core import (
    FrameRange,
    ImageKey,
    RunDescription,
    RunFolder,
    RunLedger,
    SeriesBooks,
    SimulationSettings,
    TomographyScan,
)
from apsber_bluesky.simulation import Detector, make_phantom

ROWS, COLUMNS, HALF, FLATS, DARKS = 4, 40, 30, 3, 2
CENTRE = (COLUMNS - 1) / 2


class Turning:
    """Three half turns on disk; the light is half as bright behind the first."""

    def __init__(self, root, uid="turning"):
        settings = SimulationSettings(
            rows=ROWS, columns=COLUMNS, dead_pixel_fraction=0.0, centre_offset_px=0.0
        )
        detector, body = Detector(settings), make_phantom("disc")
        scan = TomographyScan(
            rotation_stop_deg=180.0 / HALF * 200,
            num_projections=200,
            capture_projections=HALF,
            num_flats=FLATS,
            num_darks=DARKS,
            rows=ROWS,
            columns=COLUMNS,
            dtype="<u2",
            exposure_s=0.1,
        )
        self.run = RunDescription(uid=uid, tomography=scan, flat_mode="start")
        self.folder = RunFolder.of(root, self.run.proposal, uid).create()

        def light(late):
            return {"transmission": 0.5 if late else 1.0}

        frames = {
            "darks": [detector.expose(ImageKey.DARK, n) for n in range(DARKS)],
            "flats": [
                detector.expose(ImageKey.FLAT, n, **light(n >= FLATS)) for n in range(2 * FLATS)
            ],
            "primary": [
                detector.expose(
                    ImageKey.PROJECTION,
                    n,
                    body.project(angle, rows=ROWS, columns=COLUMNS, centre_px=CENTRE),
                    **light(n >= HALF),
                )
                for n, angle in enumerate(scan.angles_deg[: 3 * HALF])
            ],
        }
        with h5py.File(self.folder.raw, "w", libver="latest") as file:
            for stream, data in frames.items():
                file.create_dataset(f"entry/{stream}/data", data=np.array(data))
        with RunLedger(self.folder.ledger, create=True) as ledger:
            for stream, data in frames.items():
                ledger.set_books(stream, SeriesBooks(len(data), len(data), len(data)))

    def frames(self, stream, start, stop):
        uri = self.folder.raw.as_uri()
        return FrameRange(self.run.uid, stream, start, stop, uri, f"/entry/{stream}/data")

    def begin(self, pipeline):
        """Up to the end of the first half turn."""
        pipeline.begin_run(self.run)
        pipeline.frames(self.frames("darks", 0, DARKS))
        pipeline.frames(self.frames("flats", 0, FLATS))
        pipeline.frames(self.frames("primary", 0, HALF))

    def go_on(self, pipeline):
        """Flats again, and two more half turns."""
        pipeline.frames(self.frames("flats", FLATS, FLATS + 1))
        pipeline.frames(self.frames("flats", FLATS + 1, 2 * FLATS))
        for start in range(HALF, 3 * HALF, 7):
            stop = min(start + 7, 3 * HALF)
            pipeline.frames(self.frames("primary", start, stop))

    def volume(self, name=""):
        return zarr.open_array(self.folder.path / name / "volume.zarr" / "0", mode="r")[:]

    def used(self):
        with RunLedger(self.folder.ledger) as ledger:
            return {name: own.used for name, own in ledger.books.streams.items()}


@pytest.fixture
def turning(tmp_path):
    return Turning(tmp_path)


@pytest.fixture
def pipeline(make_pipeline):
    return make_pipeline(centre=CENTRE, chunk_projections=8, judged=True)


def alike(one, other):
    inside = np.hypot(*np.mgrid[:COLUMNS, :COLUMNS] - COLUMNS // 2) < COLUMNS // 2 - 2
    return np.abs(one[1:3, inside] - other[1:3, inside]).mean() / np.abs(other[1:3, inside]).mean()


def test_each_capture_is_a_volume_made_with_the_flats_of_its_time(turning, pipeline, log):
    turning.begin(pipeline)
    pipeline.capture("turning", 0, HALF)
    # Nobody knows yet that it is not the last one.
    assert not (turning.folder.path / "captures").exists()
    turning.go_on(pipeline)
    pipeline.capture("turning", HALF + 5, 2 * HALF + 5)
    assert (turning.folder.path / "captures" / "0001" / "volume.zarr").is_dir()
    pipeline.end_run("turning", "success", "")
    summary = log.summary("turning")
    assert (summary["state"], summary["reason"]) == ("complete", "")
    # Half the light, and the same sample at other angles: with the wrong flats it would be denser.
    first, last = turning.volume("captures/0001"), turning.volume()
    assert alike(first, last) < 0.15
    told = json.loads((turning.folder.path / "captures/0001/capture.json").read_text())
    assert (told["first_projection"], told["projections"]) == (0, HALF)
    assert (told["rotation_start_deg"], told["rotation_stop_deg"]) == (0.0, 180.0)
    assert (turning.folder.path / "captures/0001/quality.json").is_file()
    assert turning.used() == {"darks": DARKS, "flats": 2 * FLATS, "primary": 2 * HALF}


def test_a_run_without_captures_has_its_last_projections_for_one(turning, pipeline, log):
    turning.begin(pipeline)
    turning.go_on(pipeline)
    pipeline.end_run("turning", "success", "")
    assert log.summary("turning")["state"] == "complete"
    assert turning.used() == {"darks": DARKS, "flats": FLATS, "primary": HALF}
    assert turning.volume().shape == (ROWS, COLUMNS, COLUMNS)


def test_a_capture_that_was_cut_short_is_made_of_what_there_is(turning, pipeline, log):
    turning.begin(pipeline)
    pipeline.capture("turning", 10, 10 + HALF)
    pipeline.end_run("turning", "success", "")
    assert log.summary("turning")["state"] == "complete"
    assert turning.used()["primary"] == HALF - 10


def test_frames_of_two_captures_count_once(turning, pipeline, log):
    turning.begin(pipeline)
    turning.go_on(pipeline)
    for first in (40, 50):
        pipeline.capture("turning", first, first + HALF)
    pipeline.end_run("turning", "success", "")
    assert turning.used()["primary"] == HALF + 10


def test_without_flats_before_the_projections_the_run_fails_and_says_so(turning, pipeline, log):
    pipeline.begin_run(turning.run)
    pipeline.frames(turning.frames("primary", 0, HALF))
    pipeline.end_run("turning", "success", "")
    summary = log.summary("turning")
    assert summary["state"] == "failed"
    assert "no flats from before its projections" in summary["reason"]


def test_a_capture_of_nothing_is_refused_and_the_run_fails(turning, pipeline, log):
    turning.begin(pipeline)
    pipeline.capture("turning", 5, 5)
    pipeline.end_run("turning", "success", "")
    assert "projections 5 to 5 are no capture" in log.summary("turning")["reason"]


def test_captures_of_other_runs_and_of_plain_scans_are_left_alone(turning, pipeline, log, make_run):
    plain = make_run()
    pipeline.begin_run(plain.description)
    pipeline.capture(plain.uid, 0, 10)
    pipeline.capture("another", 0, 10)
    plain.enter_books()
    for stream in ("darks", "flats", "primary"):
        for frames in plain.ranges(stream):
            pipeline.frames(frames)
    pipeline.end_run(plain.uid, "success", "")
    assert log.summary(plain.uid)["state"] == "complete"
