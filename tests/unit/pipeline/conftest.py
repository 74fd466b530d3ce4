"""Small tomography runs on disk, and the pipeline with its real parts, without any network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    AnalysisSettings,
    FrameRange,
    FrameState,
    ImageKey,
    ProcessingSettings,
    RunDescription,
    RunFolder,
    RunLedger,
    SeriesBooks,
    SimulationSettings,
    TomographyScan,
)
from apsber_bluesky.pipeline import (
    Assess,
    DrawFigures,
    FindCentre,
    Reconstruct,
    TomographyPipeline,
)
from apsber_bluesky.session import WriteRecord, open_product_writer, open_volume_writer
from apsber_bluesky.simulation import Detector, make_phantom
from apsber_bluesky.streaming import RingOrFileSource

ROWS, COLUMNS, PROJECTIONS, REFERENCES = 10, 40, 48, 4
KINDS = {"darks": ImageKey.DARK, "flats": ImageKey.FLAT, "primary": ImageKey.PROJECTION}
COUNTS = {"darks": REFERENCES, "flats": REFERENCES, "primary": PROJECTIONS}


def _frames(stream: str, scan: TomographyScan) -> np.ndarray:
    settings = SimulationSettings(rows=ROWS, columns=COLUMNS, centre_offset_px=1.5)
    detector, phantom = Detector(settings), make_phantom("shepp_logan")
    centre = (COLUMNS - 1) / 2 + settings.centre_offset_px
    angles = scan.angles_deg if stream == "primary" else np.zeros(COUNTS[stream])
    return np.array(
        [
            detector.expose(
                KINDS[stream],
                number,
                phantom.project(angle, rows=ROWS, columns=COLUMNS, centre_px=centre),
            )
            for number, angle in enumerate(angles)
        ]
    )


@pytest.fixture(scope="session")
def all_frames() -> dict[str, np.ndarray]:
    """Frames of each stream, as the simulated detector makes them."""
    scan = TomographyScan(
        num_projections=PROJECTIONS, rows=ROWS, columns=COLUMNS, dtype="<u2", exposure_s=0.1
    )
    return {stream: _frames(stream, scan) for stream in COUNTS}


class Run:
    """One run as the receiver left it on disk."""

    def __init__(
        self,
        root: Path,
        frames: dict[str, np.ndarray],
        uid: str,
        missing: dict[str, list[int]],
        incomplete: dict[str, list[int]],
    ) -> None:
        self.uid = uid
        self.missing = missing
        self.incomplete = incomplete
        self.counts = {stream: len(data) for stream, data in frames.items()}
        scan = TomographyScan(
            num_projections=PROJECTIONS,
            num_flats=self.counts.get("flats", 0),
            num_darks=self.counts.get("darks", 0),
            rows=ROWS,
            columns=COLUMNS,
            dtype="<u2",
            exposure_s=0.1,
            pixel_size_um=5.0,
        )
        self.description = RunDescription(uid=uid, scan_id=3, sample="head", scan=scan)
        self.folder = RunFolder.of(root, self.description.proposal, uid).create()
        with h5py.File(self.folder.raw, "w", libver="latest") as file:
            for stream, data in frames.items():
                kept = data.copy()
                kept[missing.get(stream, [])] = 0
                kept[incomplete.get(stream, []), ROWS // 2 :] = 0
                group = file.create_group(f"entry/{stream}")
                group.create_dataset("data", data=kept, chunks=(1, ROWS, COLUMNS))
                numbers = np.arange(len(kept))
                numbers[missing.get(stream, [])] = -1
                group["frame_number"] = numbers
                group["timestamp"] = 1_700_000_000.0 + 0.1 * np.arange(len(kept))
                group["angle"] = np.full(len(kept), np.nan)
                group["checksum"] = np.zeros(len(kept), np.uint64)

    def enter_books(self) -> None:
        """What the receiver writes into the ledger at the end of each series."""
        with RunLedger(self.folder.ledger, create=True) as ledger:
            for stream, count in self.counts.items():
                lost = self.missing.get(stream, [])
                here = count - len(lost)
                partial = self.incomplete.get(stream, [])
                books = SeriesBooks(count, here, here, missing=lost, incomplete=partial)
                ledger.set_books(stream, books)

    def mark_incomplete(self) -> None:
        """What the receiver does when a frame came in part, before anybody hears of the frame."""
        with RunLedger(self.folder.ledger, create=True) as ledger:
            for stream, partial in self.incomplete.items():
                ledger.mark_frames(stream, FrameState.INCOMPLETE, partial)

    def range(self, stream: str, start: int, stop: int) -> FrameRange:
        uri = self.folder.raw.as_uri()
        return FrameRange(self.uid, stream, start, stop, uri, f"/entry/{stream}/data")

    def ranges(self, stream: str, size: int | None = None) -> list[FrameRange]:
        count = self.counts.get(stream, 0)
        step = size or max(count, 1)
        return [self.range(stream, n, min(n + step, count)) for n in range(0, count, step)]

    def send_through(self, pipeline: TomographyPipeline) -> None:
        """Send the whole run through a pipeline, stream by stream."""
        pipeline.begin_run(self.description)
        self.enter_books()
        for stream in self.counts:
            for frames in self.ranges(stream):
                pipeline.frames(frames)
        pipeline.end_run(self.uid, "success", "")


@pytest.fixture
def storage_parts():
    """What the session joins to the pipeline."""
    return SimpleNamespace(
        volume=open_volume_writer, product=open_product_writer, record=WriteRecord()
    )


@pytest.fixture
def make_run(tmp_path, all_frames):
    def make(
        uid: str = "run-1",
        missing: dict[str, list[int]] | None = None,
        leave_out: str = "",
        incomplete: dict[str, list[int]] | None = None,
    ) -> Run:
        frames = {stream: data for stream, data in all_frames.items() if stream != leave_out}
        return Run(tmp_path, frames, uid, missing or {}, incomplete or {})

    return make


class Log:
    """What the pipeline told of its progress."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str, int, int]] = []
        self.messages: list[tuple[str, str, dict[str, Any]]] = []
        self.on_stage: dict[str, Any] = {}

    def stage(self, run_uid: str, stage: str, done: int, total: int) -> None:
        self.stages.append((run_uid, stage, done, total))
        if stage in self.on_stage:
            self.on_stage[stage]()

    def message(self, run_uid: str, event: str, details: dict[str, Any]) -> None:
        self.messages.append((run_uid, event, details))

    def summary(self, run_uid: str) -> dict[str, Any]:
        found = [d for uid, event, d in self.messages if (uid, event) == (run_uid, "finished")]
        assert len(found) == 1
        return found[0]


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def make_pipeline(tmp_path, log):
    made = []

    def make(*, more_stages=(), only=None, judged=False, **settings) -> TomographyPipeline:
        processing = ProcessingSettings(**{"slab_slices": 4, "engine": "finufft", **settings})
        stages = only or [
            FindCentre(processing),
            Reconstruct(processing, open_volume_writer),
            *([Assess(AnalysisSettings(), processing), DrawFigures()] if judged else []),
        ]
        pipeline = TomographyPipeline(
            tmp_path, RingOrFileSource(), processing, [*stages, *more_stages], log
        )
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        pipeline.close()
