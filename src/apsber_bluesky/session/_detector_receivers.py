"""Receivers of detectors that have one for themselves, started when such a detector is used."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import (
    FrameBooks,
    Profile,
    RunDescription,
    SeriesRequest,
    SeriesTicket,
    ServiceError,
)
from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.session._supervisor import Supervisor
from apsber_bluesky.streaming import ReceiverClient, create_ring_memory

_START_TIMEOUT_S: Final = 60.0
_ANSWER_TIMEOUT_S: Final = 60.0
_MODULE: Final = ["apsber_bluesky.streaming"]


class DetectorReceiver:
    """The receiver of one detector; implements `apsber_bluesky.core.FrameReceiver`.

    Parameters
    ----------
    name : str
        Name of the detector.
    settings : dict
        Of the receiver's process, but for its ring and its state.
    own : Path
        The session's folder for logs and state.
    ring_megabytes : int
        Size of its ring [MB].
    """

    def __init__(self, name: str, settings: dict[str, Any], own: Path, ring_megabytes: int) -> None:
        self.name = name
        self._settings = settings
        self._own = own
        self._ring_megabytes = ring_megabytes
        self._run: RunDescription | None = None
        self._lock = threading.Lock()
        self._client: ReceiverClient | None = None
        self._service: ServiceProcess | None = None
        self._stack = ExitStack()

    def _started(self) -> ReceiverClient:
        with self._lock:
            if self._client is None:
                # The kernel ends a child with the thread that started it, so that has to stay.
                starter = ThreadPoolExecutor(1, thread_name_prefix=f"{self.name}-receiver")
                with ExitStack() as stack:
                    stack.callback(starter.shutdown)
                    self._client = starter.submit(self._start, stack).result()
                    self._stack = stack.pop_all()
                if self._run is not None:
                    self._client.begin_run(self._run)
            return self._client

    def _start(self, stack: ExitStack) -> ReceiverClient:
        ring = create_ring_memory(self._ring_megabytes * 1_000_000)
        stack.callback(os.close, ring)
        state = self._own / f"receiver-{self.name}-{os.getpid()}.state"
        settings = {**self._settings, "ring_descriptor": ring, "state_file": str(state)}
        supervisor = Supervisor(lambda: self._replace(settings, ring))
        stack.callback(supervisor.close)
        self._service = service = self._launch(settings, ring)
        stack.callback(self._stop_service)
        supervisor.watch(service)
        stack.callback(supervisor.release)
        client = ReceiverClient(service.answer["control_address"], timeout_s=_ANSWER_TIMEOUT_S)
        stack.callback(client.close)
        return client

    def _launch(self, settings: dict[str, Any], ring: int) -> ServiceProcess:
        logs = self._own / "logs"
        logs.mkdir(exist_ok=True)
        log = logs / f"receiver-{self.name}-{os.getpid()}.log"
        service = ServiceProcess(f"receiver of {self.name}", _MODULE, log, [ring])
        try:
            service.configure(settings)
            service.wait_ready(_START_TIMEOUT_S)
        except ServiceError:
            service.stop()
            raise
        return service

    def _replace(self, settings: dict[str, Any], ring: int) -> ServiceProcess:
        dead = self._service
        if dead is None:
            raise ServiceError(f"the receiver of {self.name} was never started")
        dead.stop()
        address = dead.answer["control_address"]
        self._service = self._launch({**settings, "control_address": address}, ring)
        return self._service

    def _stop_service(self) -> None:
        if self._service is not None:
            self._service.stop()

    def begin_run(self, run: RunDescription) -> None:
        """A run has opened; the process is started only when frames of it are asked for."""
        self._run = run
        if self._client is not None:
            self._client.begin_run(run)

    def arm(self, request: SeriesRequest) -> SeriesTicket:
        """Get ready for a series; starts the process if it does not run yet.

        Raises
        ------
        ServiceError
            If it cannot be started.
        """
        return self._started().arm(request)

    def written(self, run_uid: str, stream: str) -> int:
        """Frames of the stream that are readable on disk so far."""
        return self._started().written(run_uid, stream)

    def finish(
        self,
        run_uid: str,
        stream: str,
        *,
        timeout_s: float,
        given_up: Callable[[], bool] = lambda: False,
    ) -> int:
        """Wait for the end of the series; the number of frames of the stream on disk."""
        started = self._started()
        return started.finish(run_uid, stream, timeout_s=timeout_s, given_up=given_up)

    def interrupt(self, run_uid: str) -> None:
        """Nothing that comes from now on is used, nor what came just before."""
        if self._client is not None:
            self._client.interrupt(run_uid)

    def missing(self, run_uid: str, stream: str, first: int, count: int) -> list[int]:
        """Which of `count` frames from index `first` on are not on disk."""
        return self._started().missing(run_uid, stream, first, count)

    def give_up(self, run_uid: str, stream: str) -> None:
        """Frames of the stream that are missing will not be asked for again."""
        self._started().give_up(run_uid, stream)

    def curtail(self, run_uid: str, stream: str) -> int:
        """End a stream behind its last frame on disk; how many places it has then."""
        return self._started().curtail(run_uid, stream)

    def close_run(self, run_uid: str) -> FrameBooks:
        """Close the spool of a run and return its books."""
        return self._started().close_run(run_uid)

    def close(self) -> None:
        """End the process, if it runs."""
        with self._lock:
            self._client = None
            self._stack.close()


def make_detector_receivers(
    profile: Profile,
    own: Path,
    status_address: str,
    beamline: dict[str, Any],
) -> dict[str, DetectorReceiver]:
    """The receivers of the detectors that have one for themselves, by name; none is started.

    Parameters
    ----------
    profile : Profile
        ``streaming.detectors`` says which.
    own : Path
        The session's folder for logs and state.
    status_address : str
        Where they report to.
    beamline : dict
        What the simulated beamline said of itself: addresses of detectors whose own is ``auto``.

    Raises
    ------
    ServiceError
        If an address is ``auto`` and the simulated beamline does not have the detector.
    """
    receivers = {}
    simulated = beamline.get("detectors", {})
    for name, stream in profile.streaming.detectors.items():
        there = simulated.get(name, {})
        settings: dict[str, Any] = {
            "status_address": status_address,
            "data_root": str(profile.session.data_root.resolve()),
            "streaming": profile.streaming.of_detector(name).model_dump(mode="json"),
            "detector": name,
            "frame_address": "",
        }
        if stream.pva is not None:
            settings["pva"] = _address(name, "pva", stream.pva, there)
            settings["first_id"] = stream.first_id
        else:
            address = _address(name, "frame_address", stream.frame_address, there)
            settings["frame_address"] = address
            settings["streaming"]["frame_address"] = address
        receivers[name] = DetectorReceiver(name, settings, own, stream.ring_megabytes)
    return receivers


def _address(name: str, key: str, value: str, simulated: dict[str, Any]) -> str:
    if value != "auto":
        return value
    if key not in simulated:
        raise ServiceError(
            f"streaming.detectors.{name}.{key} is 'auto', but no simulated beamline has this"
            f" detector; give its address, or add {name!r} to simulation.detectors"
        )
    return str(simulated[key])
