"""Runs as they lie on disk when the pipeline hands them to storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from apsber_bluesky.core import (
    FrameBooks,
    ProcessRecord,
    QualityMetric,
    RunDescription,
    RunFolder,
    SeriesBooks,
    TomographyScan,
    Verdict,
)

ROWS, COLUMNS = 8, 10
UID = "0f3a5a2e-6d0c-4f6e-9a52-9a1a0c6f2b11"


@dataclass
class StoredRun:
    """One run on disk and what is known about it."""

    folder: RunFolder
    run: RunDescription
    frames: dict[str, NDArray[np.uint16]]
    books: FrameBooks
    processes: list[ProcessRecord] = field(default_factory=list)
    quality: list[QualityMetric] = field(default_factory=list)


def _write_stream(file: h5py.File, stream: str, frames: NDArray, missing: list[int]) -> None:
    count = len(frames)
    numbers = np.arange(count)
    numbers[missing] = -1
    group = file.create_group(f"entry/{stream}")
    size = frames.shape[1:]
    group.create_dataset("data", data=frames, chunks=(1, *size), maxshape=(None, *size))
    group["frame_number"] = numbers
    group["timestamp"] = 1_700_000_000.0 + 0.1 * np.arange(count)
    group["angle"] = np.full(count, np.nan)
    group["checksum"] = np.zeros(count, dtype="u8")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., StoredRun]:
    """Make a run of `counts` frames per stream; ``primary`` may have lost some, or parts."""

    def make(
        counts: dict[str, int] | None = None,
        missing: tuple[int, ...] = (),
        incomplete: tuple[int, ...] = (),
        uid: str = UID,
        root: Path = tmp_path / "data",
    ) -> StoredRun:
        counts = {"darks": 2, "flats": 3, "primary": 6} if counts is None else counts
        folder = RunFolder.of(root, "proposal-1", uid).create()
        rng = np.random.default_rng(7)
        frames = {
            stream: rng.integers(1, 60000, (count, ROWS, COLUMNS), dtype="u2")
            for stream, count in counts.items()
        }
        lost = list(missing)
        if lost:
            frames["primary"][lost] = 0
        books = FrameBooks()
        with h5py.File(folder.raw, "w", libver="latest") as file:
            for stream, data in frames.items():
                gone = lost if stream == "primary" else []
                _write_stream(file, stream, data, gone)
                here = len(data) - len(gone)
                partial = list(incomplete) if stream == "primary" else []
                books.streams[stream] = SeriesBooks(
                    expected=len(data),
                    received=here,
                    written=here,
                    used=here - len(partial),
                    missing=gone,
                    decoded=here,
                    incomplete=partial,
                )
        scan = TomographyScan(
            num_projections=max(1, counts.get("primary", 0)),
            num_flats=counts.get("flats", 0),
            num_darks=counts.get("darks", 0),
            rows=ROWS,
            columns=COLUMNS,
            dtype="<u2",
            exposure_s=0.1,
            pixel_size_um=5.0,
            energy_keV=25.0,
            sample_detector_distance_mm=30.0,
        )
        run = RunDescription(
            uid=uid,
            scan_id=12,
            plan_name="fly_tomography",
            sample="tooth",
            proposal="proposal-1",
            beamline_id="2-BM",
            instrument_name="tomography",
            start_time_s=1_700_000_000.0,
            scan=scan,
        )
        return StoredRun(folder, run, frames, books, _processes(), _quality())

    return make


def _processes() -> list[ProcessRecord]:
    return [
        ProcessRecord(
            name="normalise",
            sequence_index=1,
            parameters={"clip": True, "window": "hann", "range_deg": [0.0, 180.0], "note": None},
            inputs={"raw.h5": "sha256:00ff"},
            outputs={"line_integrals": "xxh3_128:0a0b"},
            started_s=1_700_000_010.0,
            finished_s=1_700_000_012.5,
        ),
        ProcessRecord(name="reconstruct slices", sequence_index=2, parameters={"centre_px": 4.5}),
    ]


def _quality() -> list[QualityMetric]:
    def metric(name: str, value: float, verdict: Verdict, note: str = "") -> QualityMetric:
        return QualityMetric(name, value, "1", verdict, 5.0, 2.0, "a paper", note)

    return [
        metric("signal_to_noise", 12.0, Verdict.PASS),
        metric("resolution", float("nan"), Verdict.FAIL, "half scans too short"),
    ]


@pytest.fixture
def volume_values() -> NDArray[np.float32]:
    """Attenuation [1/pixel] of a small volume with odd sizes."""
    return np.random.default_rng(3).random((21, 131, 150), dtype=np.float32)
