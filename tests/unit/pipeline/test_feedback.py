"""What processing tells of an interlaced scan while it goes on, and what a plan makes of it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    RELATIVE_ERROR,
    FrameRange,
    ImageKey,
    RunDescription,
    RunFolder,
    RunLedger,
    SeriesBooks,
    SimulationSettings,
    TomographyScan,
)
from apsber_bluesky.pipeline._feedback import half_set_error
from apsber_bluesky.simulation import Detector, make_phantom

ROWS, COLUMNS, PER_TURN, TURNS = 4, 48, 20, 8
EASY, HARD = ("disc", 40000.0), ("shepp_logan", 1000.0)


@pytest.mark.parametrize("share", [0.5, 2 / 3, 0.25])
def test_the_error_is_that_of_the_weighted_mean(share):
    random = np.random.default_rng(4)
    truth = 1 + random.random((4, 200, 200), dtype=np.float32)
    # The noise of a part is as 1/sqrt(how much of the data it is made of).
    first, second = (
        (truth + 0.1 / np.sqrt(part) * random.standard_normal(truth.shape)).astype(np.float32)
        for part in (share, 1 - share)
    )
    mean = share * first + (1 - share) * second
    error = np.sqrt(np.mean((mean - truth) ** 2)) / np.sqrt(np.mean(truth**2))
    assert half_set_error(first, second, share) == pytest.approx(error, rel=0.02)


def test_equal_pictures_have_no_error_and_empty_ones_an_infinite_one():
    picture = np.ones((3, 3), np.float32)
    assert half_set_error(picture, picture) == 0
    assert half_set_error(0 * picture, 0 * picture) == float("inf")


class Interlaced:
    """An interlaced scan on disk, that is announced turn by turn."""

    def __init__(self, root, phantom, flat_counts, uid="golden"):
        settings = SimulationSettings(
            rows=ROWS, columns=COLUMNS, flat_counts=flat_counts, dead_pixel_fraction=0.0
        )
        detector, body = Detector(settings), make_phantom(phantom)
        self.scan = TomographyScan(
            num_projections=PER_TURN * TURNS,
            interlaced_turns=TURNS,
            num_flats=8,
            rows=ROWS,
            columns=COLUMNS,
            dtype="<u2",
            exposure_s=0.1,
        )
        self.run = RunDescription(uid=uid, tomography=self.scan, flat_mode="start")
        self.folder = RunFolder.of(root, self.run.proposal, uid).create()
        centre = (COLUMNS - 1) / 2 + settings.centre_offset_px
        frames = {
            "flats": [detector.expose(ImageKey.FLAT, number) for number in range(8)],
            "primary": [
                detector.expose(
                    ImageKey.PROJECTION,
                    number,
                    body.project(angle, rows=ROWS, columns=COLUMNS, centre_px=centre),
                )
                for number, angle in enumerate(self.scan.angles_deg)
            ],
        }
        self.projections = np.array(frames["primary"])
        with h5py.File(self.folder.raw, "w", libver="latest") as file:
            for stream, data in frames.items():
                file.create_dataset(f"entry/{stream}/data", data=np.array(data))

    def enter_books(self, turns):
        with RunLedger(self.folder.ledger, create=True) as ledger:
            ledger.set_books("flats", SeriesBooks(8, 8, 8))
            taken = turns * PER_TURN
            ledger.set_books("primary", SeriesBooks(taken, taken, taken))

    def frames(self, stream, start, stop):
        uri = self.folder.raw.as_uri()
        return FrameRange(self.run.uid, stream, start, stop, uri, f"/entry/{stream}/data")

    def take_until(self, pipeline, log, tolerance):
        """Turn by turn, as the plan does; how many it took."""
        pipeline.begin_run(self.run)
        pipeline.frames(self.frames("flats", 0, 8))
        for turn in range(1, TURNS + 1):
            self.enter_books(turn)
            pipeline.frames(self.frames("primary", (turn - 1) * PER_TURN, turn * PER_TURN))
            told = self.told(log)
            if turn > 1:
                assert told[-1]["projections"] == turn * PER_TURN
            if told and told[-1]["value"] <= tolerance:
                break
        pipeline.end_run(self.run.uid, "success", "")
        return turn

    def told(self, log):
        known = [d for uid, event, d in log.messages if (uid, event) == (self.run.uid, "feedback")]
        return [d for d in known if d["name"] == RELATIVE_ERROR]


def test_an_easy_phantom_is_good_enough_early_and_a_hard_one_never(tmp_path, make_pipeline, log):
    easy = Interlaced(tmp_path, *EASY, uid="easy")
    hard = Interlaced(tmp_path, *HARD, uid="hard")
    pipeline = make_pipeline(chunk_projections=16)
    assert easy.take_until(pipeline, log, 0.1) <= 4
    assert hard.take_until(pipeline, log, 0.1) == TURNS
    errors = [told["value"] for told in hard.told(log)]
    assert errors == sorted(errors, reverse=True)
    for scan in (easy, hard):
        assert log.summary(scan.run.uid)["state"] == "complete"


def test_a_scan_that_ended_early_is_complete_and_its_volume_is_that_of_the_turns_it_took(
    tmp_path, make_pipeline, log
):
    import zarr

    early = Interlaced(tmp_path, *EASY)
    taken = early.take_until(make_pipeline(centre=26.75), log, 0.1)
    assert taken < TURNS
    summary = log.summary(early.run.uid)
    assert (summary["state"], summary["reason"]) == ("complete", "")
    number = taken * PER_TURN
    assert summary["frames"] == dict.fromkeys(summary["frames"], 8 + number)
    volume = zarr.open_array(early.folder.volume / "0", mode="r")[:]
    # The same frames as a scan that was never to have more turns.
    scan = early.scan.model_copy(update={"num_projections": number, "interlaced_turns": taken})
    other = Interlaced(tmp_path, *EASY, uid="whole")
    other.run = RunDescription(uid="whole", tomography=scan, flat_mode="start")
    other.enter_books(taken)
    pipeline = make_pipeline(centre=26.75)
    pipeline.begin_run(other.run)
    pipeline.frames(other.frames("flats", 0, 8))
    pipeline.frames(other.frames("primary", 0, number))
    pipeline.end_run("whole", "success", "")
    np.testing.assert_allclose(
        volume, zarr.open_array(other.folder.volume / "0", mode="r")[:], atol=1e-5
    )


def test_equal_frames_give_equal_numbers_however_they_come(tmp_path, make_pipeline, log):
    scan = Interlaced(tmp_path, *EASY)
    told = []
    for size in (7, 1000):
        log.messages.clear()
        pipeline = make_pipeline(chunk_projections=16)
        pipeline.begin_run(scan.run)
        scan.enter_books(TURNS)
        pipeline.frames(scan.frames("flats", 0, 8))
        for start in range(0, PER_TURN * TURNS, size):
            stop = min(start + size, PER_TURN * TURNS)
            pipeline.frames(scan.frames("primary", start, stop))
        pipeline.end_run(scan.run.uid, "success", "")
        told.append(scan.told(log))
    assert told[0] == told[1]
    assert [one["projections"] for one in told[0]] == list(range(40, 161, 20))


def test_a_replay_without_books_of_a_scan_that_ended_early_is_complete(
    tmp_path, make_pipeline, log
):
    scan = Interlaced(tmp_path, *EASY)
    pipeline = make_pipeline()
    pipeline.begin_run(scan.run)
    pipeline.frames(scan.frames("flats", 0, 8))
    pipeline.frames(scan.frames("primary", 0, 3 * PER_TURN))
    pipeline.end_run(scan.run.uid, "success", "")
    assert log.summary(scan.run.uid)["state"] == "complete"
    with RunLedger(scan.folder.ledger) as ledger:
        assert ledger.books.streams["primary"].expected == 3 * PER_TURN
