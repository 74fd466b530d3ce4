"""Runs as they lie on disk when the pipeline hands them to storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from event_model import StreamRange, compose_run
from numpy.typing import NDArray
from tiled.client import from_uri

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
from apsber_bluesky.storage import (
    DocumentDelivery,
    DocumentJournal,
    EmbeddedTiled,
    VolumeWriter,
    write_nexus,
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


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose files the catalogue may serve."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Iterator[EmbeddedTiled]:
    """One catalogue for all tests: a start takes 7 s on an idle machine."""
    directory = tmp_path_factory.mktemp("tiled") / "catalogue"
    readable = [data_root, data_root / "not there yet"]
    with EmbeddedTiled(directory, readable, api_key="secret123") as server:
        yield server


@pytest.fixture
def client(server: EmbeddedTiled) -> Iterator[Any]:
    """Its root."""
    client = from_uri(server.uri)
    yield client
    client.context.close()


@pytest.fixture
def stored(
    make_run: Callable[..., StoredRun],
    data_root: Path,
    volume_values: NDArray[np.float32],
    request: pytest.FixtureRequest,
) -> StoredRun:
    """A finished run below the data root, with a uid of its own."""
    stored = make_run(uid=f"run-{request.node.name.replace('[', '-').rstrip(']')}", root=data_root)
    with VolumeWriter(stored.folder.volume, volume_values.shape, voxel_size_um=5.0) as writer:
        writer.write(0, volume_values)
    write_nexus(
        stored.folder,
        stored.run,
        processes=stored.processes,
        books=stored.books,
        centre_px=4.5,
        quality=stored.quality,
        exit_status="success",
    )
    return stored


class TakenRun:
    """The documents of a run with a motor and, if there is a file, frames."""

    def __init__(self, frames: Path | None = None, **metadata: Any) -> None:
        metadata = {"scan_id": 1, "plan_name": "count", "detectors": ["camera"], **metadata}
        when = metadata.pop("time", None)
        self.run = compose_run(metadata=metadata, time=when)
        self.uid: str = self.run.start_doc["uid"]
        keys: dict[str, Any] = {
            "motor": {"source": "x", "dtype": "number", "dtype_numpy": "<f8", "shape": []}
        }
        self._descriptor = self.run.compose_descriptor(name="baseline", data_keys=keys)
        self._frames = None if frames is None else self._with_frames(frames)
        self._announced = False

    def _with_frames(self, path: Path) -> Any:
        with h5py.File(path) as file:
            _, rows, columns = file["data"].shape
        shape = {"dtype": "array", "dtype_numpy": "<u2", "shape": [rows, columns]}
        keys = {"image": {"source": "y", "external": "STREAM:", **shape}}
        stream = self.run.compose_descriptor(name="primary", data_keys=keys)
        resource = self.run.compose_stream_resource(
            mimetype="application/x-hdf5",
            uri=f"file://localhost{path}",
            data_key="image",
            parameters={"dataset": "data", "chunk_shape": (1, rows, columns), "swmr": True},
        )
        return stream, resource

    def begin(self) -> list[tuple[str, Any]]:
        """Start and descriptors."""
        documents = [("start", self.run.start_doc), ("descriptor", self._descriptor.descriptor_doc)]
        if self._frames:
            stream, resource = self._frames
            documents.append(("descriptor", stream.descriptor_doc))
            documents.append(("stream_resource", resource.stream_resource_doc))
        return documents

    def events(self, count: int) -> list[tuple[str, Any]]:
        """Readings of the motor: 0, 1, ..."""
        compose = self._descriptor.compose_event
        return [
            ("event", dict(compose(data={"motor": float(n)}, timestamps={"motor": 0.0})))
            for n in range(count)
        ]

    def frames(self, start: int, stop: int) -> list[tuple[str, Any]]:
        """Word of frames in the file."""
        stream, resource = self._frames
        indices = {"start": start, "stop": stop}
        datum = resource.compose_stream_datum(StreamRange(**indices))
        return [("stream_datum", {**datum, "descriptor": stream.descriptor_doc["uid"]})]

    def end(self) -> list[tuple[str, Any]]:
        """Stop."""
        return [("stop", self.run.compose_stop())]

    def all(self, num_events: int = 3) -> list[tuple[str, Any]]:
        """A whole run."""
        return [*self.begin(), *self.events(num_events), *self.end()]


@pytest.fixture(scope="session")
def taken_run() -> type[TakenRun]:
    """Make the documents of a run."""
    return TakenRun


class Desk:
    """A journal, who delivers it, and what was told."""

    def __init__(self, root: Path, uri: str) -> None:
        self.root, self.uri = root, uri
        self.told: list[dict[str, Any]] = []
        self.journal = DocumentJournal(root)
        self.delivery = DocumentDelivery(uri, self.journal.folder, self.told.append)

    def keep(self, documents: list[tuple[str, Any]]) -> None:
        """Write documents to the journal."""
        for name, document in documents:
            self.journal.add({"name": name, "document": document})

    def deliver(self) -> None:
        """Deliver what can be."""
        while self.delivery.turn():
            pass

    def replace(self) -> None:
        """Another process takes over delivery, as after kill -9."""
        self.delivery.close()
        self.delivery = DocumentDelivery(self.uri, self.journal.folder, self.told.append)

    def catalogued(self) -> list[str]:
        """Runs that need not be waited for, in order."""
        return [m["run_uid"] for m in self.told if m["type"] == "catalogued"]

    def waiting(self) -> list[str]:
        """What lies in the journal."""
        return sorted(p.name for p in self.journal.folder.iterdir() if p.suffix != ".lock")

    def close(self) -> None:
        """End the session."""
        self.journal.close()
        self.delivery.close()


@pytest.fixture(scope="session")
def desk_type() -> type[Desk]:
    """Make a desk that the test closes itself."""
    return Desk


@pytest.fixture
def make_desk(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    """Make desks of one catalogue, in one folder."""
    desks: list[Desk] = []

    def make(uri: str) -> Desk:
        desks.append(Desk(tmp_path / "documents", uri))
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()
