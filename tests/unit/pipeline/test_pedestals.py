"""Pedestal runs and series of a Jungfrau through their stages, on frames in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    PARTIAL_SUFFIX,
    FrameRange,
    JungfrauSettings,
    PedestalNeed,
    RunDescription,
    RunFolder,
    RunLedger,
    SeriesBooks,
    find_pedestals,
)
from apsber_bluesky.pipeline import FrameRunPipeline, MeasurePedestals, SeriesEnergies
from apsber_bluesky.processing import JungfrauMap, read_jungfrau_map, write_jungfrau_map
from apsber_bluesky.simulation import jungfrau_raw

ROWS, COLUMNS, PER_CELL = 6, 10, 12
CELLS = (15, 0)
TAKEN_S = 1_700_000_000.0
BITS = (0, 1, 3)
LEVELS = np.array([2500.0, 14600.0, 14700.0])
GAIN = np.broadcast_to(
    np.array([41.0, -1.45, -0.105], np.float32)[:, None, None], (3, ROWS, COLUMNS)
)


class Memory:
    """A `FrameSource` of frames in memory."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames

    def read(self, frames: FrameRange) -> np.ndarray:
        return self.frames[frames.start : frames.stop]

    @contextmanager
    def borrow(self, frames: FrameRange) -> Iterator[np.ndarray]:
        yield self.read(frames)

    def close(self) -> None:
        """Nothing to let go of."""


class Progress:
    """Keeps what is told at the end."""

    summary: dict[str, Any]

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def stage(self, run_uid: str, stage: str, done: int, total: int) -> None:
        """Not looked at."""

    def message(self, run_uid: str, event: str, details: dict[str, Any]) -> None:
        if event == "finished":
            self.summary = details
        else:
            self.warnings.append(details["message"])


def true_pedestals() -> dict[int, np.ndarray]:
    random = np.random.default_rng(4)
    return {cell: random.normal(LEVELS[:, None, None], 50.0, (3, ROWS, COLUMNS)) for cell in CELLS}


def dark_frames() -> np.ndarray:
    """One series each of G0, G1 and G2, whose frames are of the two storage cells in turn."""
    random, pedestals = np.random.default_rng(5), true_pedestals()
    frames = []
    for stage in range(3):
        for number in range(PER_CELL * len(CELLS)):
            level = pedestals[CELLS[number % len(CELLS)]][stage]
            adc = np.rint(random.normal(level, 5.0)).astype(np.uint16)
            frames.append(adc | BITS[stage] << 14)
    return np.array(frames, dtype=np.uint16)


def pedestal_conditions(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "jungfrau_pedestal",
        "name": "jungfrau",
        "frames_per_stage": PER_CELL * len(CELLS),
        "cells": list(CELLS),
        "exposure_s": 0.001,
        "setting": "gain0",
        "rows": ROWS,
        "columns": COLUMNS,
        **changes,
    }


def process(
    root: Path,
    frames: np.ndarray,
    technique: str,
    conditions: dict[str, Any],
    *,
    gain_file: Path | None = None,
    unusable: tuple[list[int], list[int]] = ([], []),
    exit_status: str = "success",
    uid: str = "run-1",
) -> tuple[RunFolder, Progress]:
    """Take a run through the pipeline as the worker does."""
    run = RunDescription(
        uid=uid,
        technique=technique,
        conditions=conditions,
        start_time_s=TAKEN_S,
        detectors=("jungfrau",),
    )
    stream = "darks" if technique == "detector" else "primary"
    settings = None if gain_file is None else JungfrauSettings(gain_file=gain_file)
    stages = {"detector": [MeasurePedestals()], "crystallography": [SeriesEnergies(settings)]}
    progress = Progress()
    pipeline = FrameRunPipeline(root, Memory(frames), stages, progress)
    pipeline.begin_run(run)
    folder = RunFolder.of(root, run.proposal, uid)
    missing, incomplete = unusable
    with RunLedger(folder.ledger) as ledger:
        here = len(frames) - len(missing)
        books = SeriesBooks(len(frames), here, here, missing=missing, incomplete=incomplete)
        ledger.set_books(f"jungfrau:{stream}", books)
    half = len(frames) // 2
    for start, stop in ((0, half), (half, len(frames))):
        pipeline.frames(FrameRange(uid, stream, start, stop, "", "", "jungfrau"))
    pipeline.end_run(uid, exit_status, "")
    return folder, progress


def test_each_storage_cell_gets_pedestals_of_three_stages_that_a_series_finds(tmp_path):
    folder, progress = process(tmp_path, dark_frames(), "detector", pedestal_conditions())
    assert progress.summary["state"] == "complete"
    frames = dark_frames()
    for number, cell in enumerate(CELLS):
        path = folder.path / f"pedestal_jungfrau_cell{cell}.h5"
        found = read_jungfrau_map(path, "pedestal")
        of_cell = (frames & 0x3FFF).reshape(3, PER_CELL, len(CELLS), ROWS, COLUMNS)[:, :, number]
        np.testing.assert_allclose(found.values, of_cell.mean(axis=1), rtol=1e-7)
        with h5py.File(path) as file:
            np.testing.assert_allclose(file["noise"], of_cell.std(axis=1, ddof=1), rtol=1e-5)
            assert (file["frames"][()] == PER_CELL).all()
        assert found.taken == "2023-11-14T22:13:20+00:00"
    need = PedestalNeed(
        detector="jungfrau", rows=ROWS, columns=COLUMNS, exposure_s=0.001, setting="gain0",
        cells=CELLS,
    )  # fmt: skip
    record = find_pedestals(tmp_path, need, now_s=TAKEN_S + 60)
    assert record.run_uid == "run-1"
    for name in record.files.values():
        assert (tmp_path / name).is_file()


def test_frames_that_came_in_part_or_not_at_all_do_not_count(tmp_path):
    frames, whole = dark_frames(), dark_frames()
    frames[4, ROWS // 2 :] = frames[7] = 0
    folder, _ = process(tmp_path, frames, "detector", pedestal_conditions(), unusable=([7], [4]))
    kept = [number for number in range(PER_CELL * len(CELLS)) if number not in (4, 7)]
    for offset, cell in enumerate(CELLS):
        found = read_jungfrau_map(folder.path / f"pedestal_jungfrau_cell{cell}.h5", "pedestal")
        own = [number for number in kept if number % len(CELLS) == offset]
        np.testing.assert_allclose(found.values[0], whole[own].mean(axis=0), rtol=1e-6)


def test_a_cosmic_ray_does_not_count_and_light_is_refused(tmp_path):
    frames = dark_frames()
    frames[3, 2, 5] = 9000 | 1 << 14
    folder, progress = process(tmp_path, frames, "detector", pedestal_conditions())
    assert progress.summary["state"] == "complete"
    with h5py.File(folder.path / "pedestal_jungfrau_cell0.h5") as file:
        assert file["frames"][0, 2, 5] == PER_CELL - 1
    frames[:, :, :3] = 9000 | 1 << 14
    folder, progress = process(tmp_path, frames, "detector", pedestal_conditions(), uid="lit")
    assert progress.summary["state"] == "failed"
    assert "was there light" in progress.summary["reason"]
    assert not list(folder.path.glob("pedestal_*"))
    assert not (tmp_path / "calibration" / "jungfrau" / "lit.json").exists()


def test_without_whole_frames_of_a_stage_the_run_says_which(tmp_path):
    first = list(range(PER_CELL * len(CELLS)))
    _, progress = process(
        tmp_path, dark_frames(), "detector", pedestal_conditions(), unusable=([], first)
    )
    assert "storage cell 15 has 0 whole frames of G0" in progress.summary["reason"]


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (pedestal_conditions(frames_per_stage=0), "frames_per_stage"),
        (pedestal_conditions(cells=[]), "no storage cells"),
        (pedestal_conditions(name="../x"), "cannot name a folder"),
    ],
)
def test_a_start_document_that_describes_no_pedestal_run_is_refused(tmp_path, conditions, reason):
    _, progress = process(tmp_path, dark_frames(), "detector", conditions)
    assert progress.summary["state"] == "failed"
    assert reason in progress.summary["reason"]


def test_other_detector_runs_are_left_alone(tmp_path):
    folder, progress = process(tmp_path, dark_frames(), "detector", {"kind": "flat field"})
    assert progress.summary["state"] == "complete"
    assert not list(folder.path.glob("pedestal_*"))


# -- series


@pytest.fixture
def gain_file(tmp_path: Path) -> Path:
    path = tmp_path / "gain.h5"
    write_jungfrau_map(path, JungfrauMap("gain", GAIN.copy(), "2026-05-04T12:00:00+00:00"))
    return path


def series(root: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Energies, raw frames and start-document entry of a series with two storage cells."""
    pedestals = true_pedestals()
    random = np.random.default_rng(6)
    energies = random.choice([0.0, 60.0, 3000.0, 60000.0], (11, ROWS, COLUMNS))
    raw = np.array([jungfrau_raw(e, pedestals[CELLS[n % 2]], GAIN) for n, e in enumerate(energies)])
    files = {}
    for cell, values in pedestals.items():
        name = f"pedestal_cell{cell}.h5"
        map_ = JungfrauMap("pedestal", values.astype(np.float32), "2026-05-04T12:00:00+00:00")
        write_jungfrau_map(root / name, map_)
        files[str(cell)] = name
    conditions = {
        "kind": "jungfrau_series",
        "name": "jungfrau",
        "num_frames": len(raw),
        "cells": list(CELLS),
        "rows": ROWS,
        "columns": COLUMNS,
        "pedestal_run": "run-0",
        "pedestal_files": files,
    }
    return energies, raw, conditions


def test_energies_use_the_pedestals_of_each_storage_cell_and_lost_pixels_are_unknown(
    tmp_path, gain_file
):
    energies, raw, conditions = series(tmp_path)
    raw[5] = 0
    raw[8, : ROWS // 2] = 0
    folder, progress = process(
        tmp_path, raw, "crystallography", conditions, gain_file=gain_file, unusable=([5], [8])
    )
    assert progress.warnings == []
    energies[5] = np.nan
    energies[8, : ROWS // 2] = np.nan
    with h5py.File(folder.path / "energies_jungfrau.h5") as file:
        found = file["entry/data/energy"][()]
        # Half an ADU of G2 is 4.8 keV.
        np.testing.assert_allclose(found, energies, atol=5.0)
        np.testing.assert_allclose(file["entry/data/sum"], np.nansum(found, axis=0), rtol=1e-6)
        np.testing.assert_array_equal(file["entry/data/maximum"], np.nanmax(found, axis=0))
        assert file["entry/pedestal_run"].asstr()[()] == "run-0"


def test_an_aborted_series_leaves_no_file_of_energies(tmp_path, gain_file):
    _, raw, conditions = series(tmp_path)
    folder, _ = process(
        tmp_path, raw, "crystallography", conditions, gain_file=gain_file, exit_status="abort"
    )
    assert not list(folder.path.glob(f"energies*{PARTIAL_SUFFIX}"))
    assert not list(folder.path.glob("energies*"))


@pytest.mark.parametrize("without", ["gain file", "pedestals"])
def test_without_gains_or_pedestals_frames_stay_raw(tmp_path, gain_file, without):
    _, raw, conditions = series(tmp_path)
    if without == "pedestals":
        conditions |= {"pedestal_run": "", "pedestal_files": {}}
    folder, progress = process(
        tmp_path,
        raw,
        "crystallography",
        conditions,
        gain_file=None if without == "gain file" else gain_file,
    )
    assert progress.summary["state"] == "complete"
    assert progress.warnings == []
    assert not list(folder.path.glob("energies*"))


def test_what_cannot_be_converted_is_a_warning_and_the_frames_are_kept(tmp_path, gain_file):
    _, raw, conditions = series(tmp_path)
    other = np.broadcast_to(GAIN[:, :1, :1], (3, 4, 4)).copy()
    write_jungfrau_map(gain_file, JungfrauMap("gain", other, "2026-05-04T12:00:00+00:00"))
    _, progress = process(tmp_path, raw, "crystallography", conditions, gain_file=gain_file)
    assert progress.summary["state"] == "complete"
    assert "gains of (4, 4) pixels" in progress.warnings[0]
    (tmp_path / conditions["pedestal_files"]["0"]).unlink()
    write_jungfrau_map(gain_file, JungfrauMap("gain", GAIN.copy(), "2026-05-04T12:00:00+00:00"))
    _, progress = process(
        tmp_path, raw, "crystallography", conditions, gain_file=gain_file, uid="run-2"
    )
    assert "pedestal_cell0.h5" in progress.warnings[0]
