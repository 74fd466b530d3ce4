"""Documents as a real RunEngine makes them, from a small flyer that writes real files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from event_model import StreamRange, compose_stream_resource
from ophyd.sim import NullStatus

from apsber_bluesky.core import TomographyScan

ROWS, COLUMNS = 3, 4


class FileFlyer:
    """A detector that writes each series to HDF5 when it is kicked off."""

    parent = None

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._run, self._stream, self._size = 0, "", 0
        self._bundles: dict[str, Any] = {}
        self._written: dict[str, int] = {}
        self._announced: dict[str, int] = {}

    def take(self, stream: str, num_frames: int) -> None:
        self._stream, self._size = stream, num_frames

    def begin(self) -> None:
        self._run += 1
        self._bundles, self._written, self._announced = {}, {}, {}

    def describe_collect(self) -> dict[str, Any]:
        return {
            f"{self.name}_image": {
                "source": "file",
                "dtype": "array",
                "dtype_numpy": "<u2",
                "shape": [ROWS, COLUMNS],
                "external": "STREAM:",
            }
        }

    def _path(self) -> Path:
        return self._folder / f"{self.name} {self._run} {self._stream}.h5"

    def kickoff(self) -> NullStatus:
        before = self._written.get(self._stream, 0)
        stop = before + self._size
        with h5py.File(self._path(), "a") as file:
            name = f"entry/{self._stream}/data"
            if name not in file:
                file.create_dataset(name, (0, ROWS, COLUMNS), "<u2", maxshape=(None, ROWS, COLUMNS))
            data = file[name]
            data.resize(stop, axis=0)
            data[before:stop] = np.arange(before, stop)[:, None, None]
        self._written[self._stream] = stop
        return NullStatus()

    def complete(self) -> NullStatus:
        return NullStatus()

    def get_index(self) -> int:
        return self._written[self._stream]

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        stream = self._stream
        if stream not in self._bundles:
            self._bundles[stream] = compose_stream_resource(
                mimetype="application/x-hdf5",
                uri=self._path().as_uri(),
                data_key=f"{self.name}_image",
                parameters={"dataset": f"/entry/{stream}/data", "chunk_shape": (1, ROWS, COLUMNS)},
            )
            yield "stream_resource", self._bundles[stream].stream_resource_doc
        start, stop = self._announced.get(stream, 0), self._written[stream]
        if stop > start:
            self._announced[stream] = stop
            indices = StreamRange(start=start, stop=stop)
            yield "stream_datum", self._bundles[stream].compose_stream_datum(indices)


def scan_metadata(num_projections: int = 6) -> dict[str, Any]:
    scan = TomographyScan(
        num_projections=num_projections,
        num_flats=4,
        num_darks=2,
        rows=ROWS,
        columns=COLUMNS,
        dtype="<u2",
        exposure_s=0.1,
    )
    return {"tomography": scan.model_dump(), "sample": "root", "proposal_id": "GUP-7"}


SERIES = (("darks", 2), ("flats", 2), ("primary", 3), ("primary", 3), ("flats", 2))


def scan_plan(flyer, md, series=SERIES, fail_before=None):
    """Series after series, as the tomography plans take them."""

    def inner():
        flyer.begin()
        declared = set()
        for stream, count in series:
            if stream == fail_before:
                raise RuntimeError("the motor stalled")
            flyer.take(stream, count)
            if stream not in declared:
                yield from bps.declare_stream(flyer, name=stream, collect=True)
                declared.add(stream)
            yield from bps.kickoff(flyer, wait=True)
            yield from bps.complete(flyer, wait=True)
            yield from bps.collect(flyer, name=stream)

    return bpp.run_wrapper(inner(), md=md)


@pytest.fixture
def engine():
    engine = RunEngine({}, context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()


@pytest.fixture
def flyer(tmp_path):
    return FileFlyer("camera", tmp_path)


@pytest.fixture
def scan():
    """The plan of a small scan, and its metadata."""
    return SimpleNamespace(plan=scan_plan, metadata=scan_metadata)
