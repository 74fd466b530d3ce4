"""Documents become frame references for whoever reconstructs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from event_model import DocumentRouter

from apsber_bluesky.core import (
    CAPTURE_STREAM,
    KEY_OF_STREAM,
    FrameConsumer,
    FrameRange,
    RunDescription,
    describes_run,
)


class FrameDispatcher(DocumentRouter):
    """Turn stream documents into `FrameRange` references.

    Runs whose start document has neither ``technique`` nor ``tomography`` are left alone. It works
    on documents from a RunEngine and on those replayed from a catalogue. Of a tomography run only
    the frames of its first detector are handed on, which are its projections.

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
        self._resources: dict[str, tuple[str, str, str]] = {}
        self._detector_of: dict[str, str] = {}

    def start(self, doc: dict[str, Any]) -> None:
        """Announce a run."""
        self._streams, self._resources = {}, {}
        self._run_uid = None
        if describes_run(doc):
            run = RunDescription.from_start(doc)
            self._run_uid = run.uid
            tomography = run.technique == "tomography"
            detectors = run.detectors[:1] if tomography else run.detectors
            # A detector's frames are <name>_image in this suite, <name> in ophyd-async.
            self._detector_of = {key: name for name in detectors for key in (name, f"{name}_image")}
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
        dataset, key = doc["parameters"].get("dataset"), doc["data_key"]
        if self._detector_of and key not in self._detector_of:
            return
        if doc["mimetype"] == "application/x-hdf5" and dataset is not None:
            detector = self._detector_of.get(key, "")
            self._resources[doc["uid"]] = (doc["uri"], dataset, detector)

    def stream_datum(self, doc: dict[str, Any]) -> None:
        """Announce frames."""
        stream = self._streams.get(doc["descriptor"])
        resource = self._resources.get(doc["stream_resource"])
        if self._run_uid is None or stream not in KEY_OF_STREAM or resource is None:
            return
        uri, dataset, detector = resource
        indices = doc["indices"]
        frames = FrameRange(
            self._run_uid, stream, indices["start"], indices["stop"], uri, dataset, detector
        )
        for consumer in self._consumers:
            consumer.frames(frames)

    def event(self, doc: dict[str, Any]) -> None:
        """Announce a capture."""
        if self._run_uid is None or self._streams.get(doc["descriptor"]) != CAPTURE_STREAM:
            return
        start, stop = (int(doc["data"][f"capture_{name}"]) for name in ("first", "end"))
        for consumer in self._consumers:
            consumer.capture(self._run_uid, start, stop)

    def stop(self, doc: dict[str, Any]) -> None:
        """Announce the end of the run."""
        if doc["run_start"] != self._run_uid:
            return
        self._run_uid = None
        for consumer in self._consumers:
            consumer.end_run(doc["run_start"], doc["exit_status"], doc.get("reason", ""))
