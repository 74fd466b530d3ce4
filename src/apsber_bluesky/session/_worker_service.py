"""The worker process: frames in, volume, record, copy and catalogue entry out."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from pathlib import Path
from typing import Any

from apsber_bluesky.core import (
    AnalysisSettings,
    ApsberError,
    FrameRange,
    ProcessingSettings,
    StreamingSettings,
    begin_service,
)
from apsber_bluesky.pipeline import (
    Assess,
    DrawFigures,
    FindCentre,
    FrameRunPipeline,
    JungfrauEnergy,
    LiveSlices,
    PipelineByTechnique,
    Reconstruct,
    Stage,
    TomographyPipeline,
)
from apsber_bluesky.session._fan_out import serve_fan_out
from apsber_bluesky.session._learned_stages import learned_stages
from apsber_bluesky.session._live_display import show_live_slices
from apsber_bluesky.session._remote_consumer import deliver
from apsber_bluesky.session._storage_stages import (
    Archive,
    Publish,
    WriteRecord,
    open_volume_writer,
)
from apsber_bluesky.session._technique_stages import technique_stages
from apsber_bluesky.streaming import FanOut, FrameRing, Inbox, Outbox, RingOrFileSource

logger = logging.getLogger(__name__)

_NICENESS = 5


class _StatusProgress:
    """Tell the session how stages proceed."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def stage(self, run_uid: str, stage: str, done: int, total: int) -> None:
        self._outbox.send(
            {"type": "stage", "run_uid": run_uid, "stage": stage, "done": done, "total": total}
        )

    def message(self, run_uid: str, event: str, details: dict[str, Any]) -> None:
        self._outbox.send({"type": event, "run_uid": run_uid, **details})


def standard_stages(settings: dict[str, Any]) -> list[Stage]:
    """Stages that follow the last frame, as the worker's settings want them."""
    processing = ProcessingSettings(**settings["processing"])
    analysis = AnalysisSettings(**settings["analysis"])
    followers, learned = learned_stages(processing, analysis)
    stages: list[Stage] = [
        FindCentre(processing),
        Reconstruct(processing, open_volume_writer, followers),
        *learned,
        Assess(analysis, processing),
        DrawFigures(),
        WriteRecord(),
    ]
    if settings["archive_root"]:
        stages.append(Archive(Path(settings["archive_root"])))
    if settings["tiled_uri"]:
        stages.append(Publish(settings["tiled_uri"], Path(settings["documents"])))
    return stages


def main() -> int:
    """Serve until SIGTERM.

    Standard input holds one JSON object: ``parent_pid``, ``data_root``, ``archive_root``,
    ``tiled_uri``, ``documents``, ``keys``, ``ring_descriptor``, ``status_address`` and the settings
    ``streaming``, ``processing`` and ``analysis``. The ready line on standard output holds
    ``inbox_address``, ``fan_out_address`` and ``live_slices``, where the monitor finds them.
    """
    settings, stop = begin_service()
    # Reconstruction may fall behind and catch up from the spool; RunEngine and receiver may not.
    os.nice(_NICENESS)
    ring = FrameRing(settings["ring_descriptor"])
    streaming = StreamingSettings(**settings["streaming"])
    try:
        with serve_fan_out(streaming, Path(settings["keys"]), ring) as fan_out:
            return _serve(settings, stop, ring, fan_out)
    except ApsberError as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)  # noqa: T201
        return 1
    finally:
        ring.close()


def _serve(
    settings: dict[str, Any], stop: threading.Event, ring: FrameRing, fan_out: FanOut | None
) -> int:
    processing = ProcessingSettings(**settings["processing"])
    status, inbox = Outbox(settings["status_address"]), Inbox()
    progress = _StatusProgress(status)
    try:
        with show_live_slices(processing, progress) as (live, live_address):
            jungfrau = processing.jungfrau
            converted = jungfrau is not None and jungfrau.pedestal_file is not None
            calibration = JungfrauEnergy(jungfrau) if jungfrau and converted else None
            pipeline = TomographyPipeline(
                Path(settings["data_root"]),
                RingOrFileSource(ring),
                processing,
                standard_stages(settings),
                progress,
                calibration,
                live,
            )
            others = FrameRunPipeline(
                Path(settings["data_root"]),
                RingOrFileSource(None),
                technique_stages(settings),
                progress,
            )
            ready = {
                "ready": True,
                "inbox_address": inbox.address,
                "fan_out_address": fan_out.address if fan_out else None,
                "live_slices": live_address,
            }
            return _listen(ready, stop, inbox, _Pipelines(pipeline, others), fan_out, live)
    finally:
        status.close()
        inbox.close()


class _Pipelines(PipelineByTechnique):
    """The pipelines of the worker, which begin and end together."""

    def __init__(self, tomography: TomographyPipeline, others: FrameRunPipeline) -> None:
        super().__init__(tomography, others)
        self._all = (tomography, others)
        self.prepare = tomography.prepare

    def cancel(self) -> None:
        for pipeline in self._all:
            pipeline.cancel()

    def close(self) -> None:
        for pipeline in self._all:
            pipeline.close()


def _listen(
    ready: dict[str, Any],
    stop: threading.Event,
    inbox: Inbox,
    pipeline: _Pipelines,
    fan_out: FanOut | None,
    live: LiveSlices | None,
) -> int:
    work: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    thread = threading.Thread(target=_process, args=(work, pipeline, stop), name="pipeline")
    thread.start()
    print(json.dumps(ready), flush=True)  # noqa: T201
    while not stop.is_set() and thread.is_alive():
        message = inbox.receive(timeout_s=0.1)
        if message is None:
            continue
        if message["type"] == "cancel":
            pipeline.cancel()
            continue
        # Remote consumers do not wait for the pipeline.
        if fan_out is not None:
            deliver(message, fan_out)
        # What waits for the pipeline has arrived all the same.
        if live is not None and message["type"] == "frames":
            live.announced(FrameRange(**message["frames"]))
        work.put(message)
    failed = not stop.is_set()
    pipeline.cancel()
    work.put(None)
    thread.join()
    pipeline.close()
    return int(failed)


def _process(
    work: queue.SimpleQueue[dict[str, Any] | None],
    pipeline: _Pipelines,
    stop: threading.Event,
) -> None:
    pipeline.prepare()
    while (message := work.get()) is not None:
        # Messages that were still waiting when the service was stopped only close their run.
        if stop.is_set() and message["type"] == "begin_run":
            continue
        deliver(message, pipeline)
