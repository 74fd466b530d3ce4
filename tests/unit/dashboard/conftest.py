"""A data root with runs in it, and the page that shows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apsber_bluesky.core import (
    Profile,
    QualityMetric,
    RunFolder,
    RunLedger,
    RunState,
    SeriesBooks,
    SessionSettings,
    Verdict,
)
from apsber_bluesky.dashboard import Dashboard
from apsber_bluesky.storage import VolumeWriter, label_content

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Make a run as receiver and worker leave it."""

    def make(uid: str, *, start_s: float = 1.0, state: str = "complete", **facts: Any) -> RunFolder:
        folder = RunFolder.of(tmp_path, "commissioning", uid).create()
        scan = {"num_projections": 8, "num_flats": 2, "num_darks": 0}
        with RunLedger(folder.ledger, create=True) as ledger:
            description = {
                "start_time_s": start_s,
                "plan_name": "fly_tomography",
                "tomography": scan,
            }
            ledger.describe({**description, "sample": "leaf", **facts})
            ledger.set_books("flats", SeriesBooks(2, 2, 2, 2))
            ledger.set_books("primary", SeriesBooks(8, 7, 7, 6, missing=[3]))
            ledger.start_stage("reconstruct")
            ledger.finish_stage("reconstruct")
            ledger.set_state(RunState(state))
        metric = QualityMetric("signal_to_noise", 4.5, "1", Verdict.WARN, 5.0, 3.0, "ISO")
        quality = {"verdict": "warn", "metrics": [metric.to_dict()]}
        folder.quality.write_text(json.dumps(quality))
        return folder

    return make


@pytest.fixture
def run_with_volumes(make_run: MakeRun) -> RunFolder:
    """A run with a volume whose greys tell where they are, labels of it, and a figure."""
    folder = make_run("run-1")
    z, y, x = np.mgrid[:16, :20, :24].astype(np.float32)
    classes = ("background", "pore", "root")
    labels = np.where(x < 8, 0, np.where(x < 16, 1, 2)).astype(np.uint8)
    labels[:, 0] = 255
    with VolumeWriter(folder.volume, z.shape) as writer:
        writer.write(0, z + y / 100)
    with VolumeWriter(folder.labels, z.shape, content=label_content(classes)) as writer:
        writer.write(0, labels)
    folder.figures.mkdir()
    (folder.figures / "ortho_slices.png").write_bytes(b"\x89PNG figure")
    return folder


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    session = SessionSettings(beamline_id="B1", instrument_name="Bench", data_root=tmp_path)
    return Profile(name="bench", session=session, dashboard={"port": 0})


@pytest.fixture
def dashboard(profile: Profile) -> Iterator[Dashboard]:
    """The page, really served."""
    server = Dashboard(profile)
    server.start()
    yield server
    server.close()
