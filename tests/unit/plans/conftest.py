"""Devices in memory that note what is asked of them; plans are tested with a real IOC elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import NoReplayAllowed
from event_model import StreamRange, compose_stream_resource
from ophyd.sim import NullStatus

from apsber_bluesky.core import InputError


class Noting:
    """A device that notes its calls and fails at those it is told to."""

    parent = None

    def __init__(self, name: str, calls: list[tuple[str, str, Any]]) -> None:
        self.name = name
        self._calls = calls
        self.fails_at: dict[str, Exception] = {}

    def note(self, what: str, value: Any = None) -> NullStatus:
        self._calls.append((self.name, what, value))
        if what in self.fails_at:
            raise self.fails_at[what]
        return NullStatus()

    def set(self, value: Any) -> NullStatus:
        return self.note("set", value)

    def stop(self, *, success: bool = False) -> None:
        self.note("stop")

    def stage(self) -> list[Any]:
        self.note("stage")
        return [self]

    def unstage(self) -> list[Any]:
        self.note("unstage")
        return [self]

    def prepare(self, value: Any) -> NullStatus:
        return self.note("prepare", value)

    def kickoff(self) -> NullStatus:
        return self.note("kickoff")

    def complete(self) -> NullStatus:
        return self.note("complete")

    def read(self) -> dict[str, Any]:
        return {self.name: {"value": 1.0, "timestamp": 1.0}}

    def describe(self) -> dict[str, Any]:
        return {self.name: {"source": "memory", "dtype": "number", "shape": []}}

    def read_configuration(self) -> dict[str, Any]:
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        return {}


class Rotation(Noting):
    """A rotation stage that turns at up to 60 deg/s, and can refuse a fly scan."""

    refuses = False

    def shortest_period_s(self, step_deg: float) -> float:
        return abs(step_deg) / 60.0

    def check(self, fly: Any) -> None:
        if self.refuses:
            raise InputError("rotation would have to turn too fast")


class Camera(Noting):
    """A camera whose frames are on disk as soon as it has completed.

    Those that `loses` says, by series, are not: a list of places for each series that is taken.
    """

    frame_shape = (3, 4)
    frame_dtype = "<u2"
    pixel_size_um = 5.0

    def __init__(self, name: str, calls: list[tuple[str, str, Any]]) -> None:
        super().__init__(name, calls)
        self.next_frame = Noting(f"{name}_next_frame", calls)
        self.interruptions = 0
        self.plan_retakes = False
        self.loses: list[list[int]] = []
        self._taken: dict[str, set[int]] = {}
        self._series: Any = None
        self._ready: dict[str, int] = {}
        self._announced: dict[str, int] = {}
        self._bundles: dict[str, Any] = {}

    def detector_metadata(self) -> dict[str, Any]:
        return {"shape": [3, 4], "dtype": "<u2", "pixel_size_um": 5.0, "first_frame_number": 0}

    def stage(self) -> list[Any]:
        self._ready, self._announced, self._bundles, self._taken = {}, {}, {}, {}
        return super().stage()

    def prepare(self, value: Any) -> NullStatus:
        self._series = value
        return super().prepare(value)

    def complete(self) -> NullStatus:
        status = super().complete()
        series = self._series
        places = set(range(series.first_index, series.first_index + series.num_frames))
        if self.loses:
            places -= set(self.loses.pop(0))
        taken = self._taken.setdefault(series.stream, set())
        taken |= places
        self._ready[series.stream] = next(n for n in range(10**6) if n not in taken)
        return status

    def missing(self, series: Any) -> list[int]:
        places = range(series.first_index, series.first_index + series.num_frames)
        return [n for n in places if n not in self._taken.get(series.stream, set())]

    def give_up_missing(self, series: Any) -> None:
        self.note("give_up_missing", self.missing(series))
        self._ready[series.stream] = series.first_index + series.num_frames

    def pause(self) -> None:
        self.note("pause")
        self.interruptions += 1
        if self.plan_retakes:
            raise NoReplayAllowed

    def resume(self) -> None:
        self.note("resume")

    def trigger(self) -> NullStatus:
        status = self.note("trigger")
        self._add(1)
        return status

    def _add(self, count: int) -> None:
        stream = self._series.stream
        self._ready[stream] = self._ready.get(stream, 0) + count

    def describe(self) -> dict[str, Any]:
        return self.describe_collect()

    def read(self) -> dict[str, Any]:
        return {}

    def describe_collect(self) -> dict[str, Any]:
        return {
            "camera_image": {
                "source": "memory",
                "dtype": "array",
                "dtype_numpy": "<u2",
                "shape": [3, 4],
                "external": "STREAM:",
            }
        }

    def get_index(self) -> int:
        return self._ready.get(self._series.stream, 0)

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        if self._series is None:
            return
        stream = self._series.stream
        start, stop = self._announced.get(stream, 0), self._ready.get(stream, 0)
        if stop == start:
            return
        if stream not in self._bundles:
            self._bundles[stream] = compose_stream_resource(
                mimetype="application/x-hdf5",
                uri="file://localhost/frames.h5",
                data_key="camera_image",
                parameters={"dataset": f"/entry/{stream}/data", "chunk_shape": (1, 3, 4)},
            )
            yield "stream_resource", self._bundles[stream].stream_resource_doc
        self._announced[stream] = stop
        indices = StreamRange(start=start, stop=stop)
        yield "stream_datum", self._bundles[stream].compose_stream_datum(indices)


@pytest.fixture
def beamline():
    """Four devices and, in `calls`, what was asked of them in order."""
    calls: list[tuple[str, str, Any]] = []
    devices = {
        "camera": Camera("camera", calls),
        "rotation": Rotation("rotation", calls),
        "shutter": Noting("shutter", calls),
        "sample_x": Noting("sample_x", calls),
    }
    return SimpleNamespace(calls=calls, devices=tuple(devices.values()), **devices)


@pytest.fixture
def engine():
    engine = RunEngine({}, context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join()
    engine.loop.close()


@pytest.fixture
def documents(engine):
    """All documents of the engine, by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    engine.subscribe(lambda name, document: found.setdefault(name, []).append(document))
    return found
