"""Runs on disk that the viewers look at: small, whole, and made by the suite's own writers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    QualityMetric,
    RunFolder,
    RunLedger,
    RunState,
    SeriesBooks,
    Verdict,
    write_json,
)
from apsber_bluesky.storage import VolumeWriter, content_of

CLASSES = ("background", "pore", "root")
SHAPE = (20, 136, 136)
MakeRun = Callable[..., RunFolder]


def example_volume() -> np.ndarray:
    """A bright ball whose place tells the axes apart, in noise of a fixed seed."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    ball = ((z - 6) * 5) ** 2 + (y - 40) ** 2 + (x - 90) ** 2 < 30**2
    noise = np.random.default_rng(1).normal(0, 0.05, SHAPE)
    return (ball + noise).astype(np.float32)


def example_labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 20:60, 70:110] = 2
    labels[:, 100:, :20] = 1
    return labels


def write_frames(path: Path, streams: dict[str, np.ndarray]) -> None:
    """Write a spool as the receiver leaves it."""
    with h5py.File(path, "w", libver="latest") as file:
        for name, frames in streams.items():
            file[f"/entry/{name}/data"] = frames
            file[f"/entry/{name}/frame_number"] = np.arange(len(frames))


def example_frames() -> dict[str, np.ndarray]:
    """Counts behind a bar that turns: 40 projections of 6 x 48 pixels, one dead column."""
    angles = np.linspace(0, np.pi, 40, endpoint=False)
    columns = np.arange(48)
    inside = np.abs(columns - 24 - 10 * np.cos(angles)[:, None]) < 5
    counts = 100 + 900 * np.exp(-1.0 * inside)
    projections = np.repeat(counts[:, None], 6, axis=1).round().astype(np.uint16)
    return {
        "darks": np.full((3, 6, 48), 100, np.uint16),
        "flats": np.full((4, 6, 48), 1000, np.uint16),
        "primary": projections,
    }


@pytest.fixture
def make_run(tmp_path) -> MakeRun:
    """Make the folder of a run of any kind and state."""

    def make(
        uid: str = "aaaa-1",
        *,
        state: RunState = RunState.COMPLETE,
        reason: str = "",
        technique: str = "tomography",
        sample: str = "root",
        images: tuple[str, ...] = ("volume",),
        frames: dict[str, np.ndarray] | None = None,
        judged: bool = True,
    ) -> RunFolder:
        folder = RunFolder.of(tmp_path / "data", "p", uid).create()
        with RunLedger(folder.ledger, create=True) as ledger:
            ledger.describe(
                {
                    "scan_id": 7,
                    "sample": sample,
                    "plan_name": "fly_tomography",
                    "technique": technique,
                    "detectors": ["camera"],
                    "start_time_s": 1e9,
                }
            )
            ledger.set_books("primary", SeriesBooks(expected=40, received=40, written=40, used=40))
            ledger.start_stage("reconstruct")
            done = {"name": "reconstruct", "parameters": {"engine": "gridding", "centre_px": 24.5}}
            ledger.finish_stage("reconstruct", "done", {"processes": [done]})
            ledger.set_state(state, reason)
        for name in images:
            write_image(folder, name)
        if frames:
            write_frames(folder.raw, frames)
        if judged:
            write_quality(folder)
        return folder

    return make


def write_image(folder: RunFolder, name: str) -> None:
    content = {"content": content_of("labels", classes=CLASSES)} if name == "labels" else {}
    values = example_labels() if name == "labels" else example_volume()
    with VolumeWriter(folder.product(name), SHAPE, voxel_size_um=2.0, **content) as writer:
        writer.write(0, values)


def write_quality(folder: RunFolder) -> None:
    metrics = [
        QualityMetric("signal_to_noise", 9.5, "1", Verdict.PASS, 5, 3, "a paper"),
        QualityMetric("drift", 0.7, "px", Verdict.WARN, 0.5, 2, "a paper"),
        QualityMetric(
            "resolution", float("nan"), "px", Verdict.FAIL, 8, 16, "a paper", "no halves"
        ),
    ]
    write_json(
        folder.quality, {"verdict": "fail", "metrics": [metric.to_dict() for metric in metrics]}
    )


@pytest.fixture(scope="session")
def example() -> SimpleNamespace:
    """What the runs hold."""
    return SimpleNamespace(
        volume=example_volume(),
        labels=example_labels(),
        frames=example_frames(),
        classes=CLASSES,
        shape=SHAPE,
    )
