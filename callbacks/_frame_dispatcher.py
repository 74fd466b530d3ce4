"""Documents become frame references for whoever reconstructs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from event_model import DocumentRouter

from apsber_bluesky.core import KEY_OF_STREAM, FrameConsumer, FrameRange, RunDescription


class FrameDispatcher(DocumentRouter):
    """Turn stream documents of tomography runs into `FrameRange` references.

    Runs without a ``tomography`` key in their start document are left alone. It works on documents
    from a RunEngine and on those replayed from a catalogue.

    Parameters
    ----------
    consumers : sequence of FrameConsumer
        Who is told; a call must not take long, for the RunEngine waits for it.
    """

    def __init__(self, consumers: Sequence[FrameConsumer]) -> None:
        super().__init__()
        self._consumers = tuple(consumers)
        self._run_uid: str | None = None
        self._streams: dict[str, str] = {}
        self._resources: dict[str, tuple[str, str]] = {}
        self._data_keys: set[str] = set()

    def start(self, doc: dict[str, Any]) -> None:
        """Announce a tomography run."""
        self._streams, self._resources = {}, {}
        self._run_uid = None
        if "tomography" in doc:
            run = RunDescription.from_start(doc)
            self._run_uid = run.uid
            # A camera's frames are <name>_image in this suite, <name> in ophyd-async.
            cameras = doc.get("detectors", [])
            self._data_keys = {key for name in cameras for key in (name, f"{name}_image")}
            for consumer in self._consumers:
                consumer.begin_run(run)

    def descriptor(self, doc: dict[str, Any]) -> None:
        """Remember which stream a descriptor is of."""
        if doc["run_start"] == self._run_uid:
            self._streams[doc["uid"]] = doc["name"]

    def stream_resource(self, doc: dict[str, Any]) -> None:
        """Remember where frames lie."""
        if doc.get("run_start", self._run_uid) != self._run_uid:
            return
        # Other detectors may keep other files beside the camera's.
        dataset = doc["parameters"].get("dataset")
        if self._data_keys and doc["data_key"] not in self._data_keys:
            return
        if doc["mimetype"] == "application/x-hdf5" and dataset is not None:
            self._resources[doc["uid"]] = (doc["uri"], dataset)

    def stream_datum(self, doc: dict[str, Any]) -> None:
        """Announce frames."""
        stream = self._streams.get(doc["descriptor"])
        resource = self._resources.get(doc["stream_resource"])
        if self._run_uid is None or stream not in KEY_OF_STREAM or resource is None:
            return
        uri, dataset = resource
        indices = doc["indices"]
        frames = FrameRange(self._run_uid, stream, indices["start"], indices["stop"], uri, dataset)
        for consumer in self._consumers:
            consumer.frames(frames)

    def stop(self, doc: dict[str, Any]) -> None:
        """Announce the end of the run."""
        if doc["run_start"] != self._run_uid:
            return
        self._run_uid = None
        for consumer in self._consumers:
            consumer.end_run(doc["run_start"], doc["exit_status"], doc.get("reason", ""))
