"""Runs that are no tomography: their frames are accounted for and their own stages run."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    FrameRange,
    InputError,
    RunDescription,
    RunFolder,
    RunLedger,
    RunState,
    SeriesBooks,
)
from apsber_bluesky.pipeline import FrameRunPipeline, PipelineByTechnique, RunContext
from apsber_bluesky.streaming import RingOrFileSource

FRAMES = np.arange(60, dtype="<u2").reshape(5, 3, 4)


class Notes:
    def __init__(self) -> None:
        self.messages: list[tuple[str, dict]] = []

    def stage(self, run_uid: str, stage: str, done: int, total: int) -> None:
        pass

    def message(self, run_uid: str, event: str, details: dict) -> None:
        self.messages.append((event, details))


class Sum:
    """Adds the frames of the run up, as a stage of a technique would."""

    name = "sum"
    essential = True

    def __init__(self, error: Exception | None = None, *, essential: bool = True) -> None:
        self.total, self.error, self.essential = 0, error, essential

    def run(self, context: RunContext) -> None:
        if self.error is not None:
            raise self.error
        for frames in context.findings.frames:
            self.total += int(context.findings.source.read(frames).sum())


class Bench:
    def __init__(self, root: Path, stage: Sum) -> None:
        self.root, self.notes, self.stage = root, Notes(), stage
        self.pipeline = FrameRunPipeline(
            root, RingOrFileSource(None), {"scattering": [stage]}, self.notes
        )

    def take(self, uid: str, *, books: SeriesBooks | None = None, status: str = "success") -> dict:
        run = RunDescription(uid=uid, technique="scattering", detectors=("eiger",))
        folder = RunFolder.of(self.root, run.proposal, uid).create()
        with h5py.File(folder.raw_of("eiger"), "w") as file:
            file["entry/primary/data"] = FRAMES
        if books is not None:
            with RunLedger(folder.ledger, create=True) as ledger:
                ledger.set_books("eiger:primary", books)
        self.pipeline.begin_run(run)
        for start, stop in ((0, 2), (2, 5)):
            uri = folder.raw_of("eiger").as_uri()
            place = "/entry/primary/data"
            self.pipeline.frames(FrameRange(uid, "primary", start, stop, uri, place, "eiger"))
        self.pipeline.end_run(uid, status, "")
        (summary,) = [m for event, m in self.notes.messages if event == "finished"]
        self.notes.messages.clear()
        self.books = self._books(folder)
        return summary

    @staticmethod
    def _books(folder: RunFolder) -> dict[str, SeriesBooks]:
        with RunLedger(folder.ledger) as ledger:
            return ledger.books.streams


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(stage=None):
        made.append(Bench(tmp_path, stage or Sum()))
        return made[-1]

    yield make
    for each in made:
        each.pipeline.close()


def test_the_stages_of_the_technique_read_every_frame(bench):
    one = bench()
    summary = one.take("a", books=SeriesBooks(5, 5, 5))
    assert summary["state"] == RunState.COMPLETE
    assert summary["frames"] == {"expected": 5, "received": 5, "written": 5, "used": 0}
    assert one.stage.total == FRAMES.sum()


def test_missing_frames_make_the_run_incomplete(bench):
    summary = bench().take("a", books=SeriesBooks(7, 5, 5, missing=[5, 6]))
    assert summary["state"] == RunState.INCOMPLETE
    assert "2 of 7 frames are missing" in summary["reason"]


def test_without_a_receiver_what_was_announced_is_what_there_is(bench):
    one = bench()
    assert one.take("a")["frames"]["written"] == 5
    assert one.books["primary"].written == 5


def test_a_run_that_fails_says_why_and_does_not_hold_up_the_next(bench):
    one = bench(Sum(InputError("no beam centre")))
    summary = one.take("a", books=SeriesBooks(5, 5, 5))
    assert (summary["state"], summary["reason"]) == (RunState.FAILED, "no beam centre")
    one.stage.error = None
    assert one.take("b", books=SeriesBooks(5, 5, 5))["state"] == RunState.COMPLETE


def test_a_stage_that_is_not_essential_only_warns(bench):
    one = bench(Sum(InputError("no beam centre"), essential=False))
    assert one.take("a", books=SeriesBooks(5, 5, 5))["state"] == RunState.COMPLETE


def test_an_aborted_run_keeps_its_frames_and_has_no_stages(bench):
    one = bench()
    summary = one.take("a", books=SeriesBooks(5, 5, 5), status="abort")
    assert summary["state"] == RunState.ABORTED
    assert one.stage.total == 0


def test_each_run_goes_to_the_pipeline_of_its_technique():
    class Consumer:
        def __init__(self):
            self.calls = []

        def begin_run(self, run):
            self.calls.append(run.uid)

        def frames(self, frames):
            self.calls.append(frames.start)

        def end_run(self, run_uid, exit_status, reason):
            self.calls.append(exit_status)

    tomography, others = Consumer(), Consumer()
    both = PipelineByTechnique(tomography, others)
    scan = {"num_projections": 1, "rows": 1, "columns": 1, "dtype": "<u2", "exposure_s": 1.0}
    for run in (
        RunDescription(uid="map", technique="fluorescence"),
        RunDescription.model_validate({"uid": "scan", "scan": scan}),
    ):
        both.begin_run(run)
        both.frames(FrameRange(run.uid, "primary", 3, 4, "file:///x", "d"))
        both.end_run(run.uid, "success", "")
    assert others.calls == ["map", 3, "success"]
    assert tomography.calls == ["scan", 3, "success"]
