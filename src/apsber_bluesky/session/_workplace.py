"""The session's own corner of the data root, and the processes that work there."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import Profile, StorageError, explain_disk_errors
from apsber_bluesky.session._epics import beamline_ports
from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.session._status_board import StatusBoard
from apsber_bluesky.streaming import create_ring_memory

_START_TIMEOUT_S: Final = 90.0
_MODULES: Final = {
    "beamline": ["apsber_bluesky.simulation"],
    "catalog": ["apsber_bluesky.session", "catalog"],
    "receiver": ["apsber_bluesky.streaming"],
    "worker": ["apsber_bluesky.session", "worker"],
}


def check_data_root(data_root: Path) -> Path:
    """Make the data root and try to write there.

    Returns
    -------
    Path
        The folder for logs and the catalogue, below the data root.

    Raises
    ------
    StorageError
        If it cannot be made or written.
    """
    own = data_root / ".apsber"
    with explain_disk_errors(data_root, "use the data root"):
        own.mkdir(parents=True, exist_ok=True)
        probe = own / f"probe-{uuid.uuid4()}"
        probe.write_bytes(b"apsber")
        if probe.stat().st_size != len(b"apsber"):
            raise StorageError(f"cannot use the data root at {data_root}: it does not keep data")
        probe.unlink()
    return own


class Workplace:
    """The processes of a session, started together and stopped together.

    Parameters
    ----------
    profile : Profile
        What to start: a simulated beamline if it has one, and always catalogue, receiver and
        worker.
    check : callable
        Called now and then while waiting; may raise to give up.

    Attributes
    ----------
    services : dict of str to ServiceProcess
        The processes, by name.
    board : StatusBoard
        What they say.
    beamline : dict
        What the simulated beamline said of itself; empty without one.
    tiled_uri : str
        Address of the catalogue, with its key.
    """

    def __init__(self, profile: Profile, check: Callable[[], None] = lambda: None) -> None:
        self.profile = profile
        self._check = check
        self.own = check_data_root(profile.session.data_root)
        self.services: dict[str, ServiceProcess] = {}
        self.beamline: dict[str, Any] = {}
        self.tiled_uri = ""
        self._stack = ExitStack()

    def start(self) -> None:
        """Start everything; on any failure nothing is left running.

        Raises
        ------
        ServiceError
            If a process does not start.
        """
        self._check_recorded_scan()
        with ExitStack() as stack:
            self.board = StatusBoard()
            stack.callback(self.board.close)
            ring = create_ring_memory(self.profile.streaming.ring_megabytes * 1_000_000)
            with ExitStack() as handover:
                handover.callback(os.close, ring)
                # All are started before the first is waited for: most of a start is imports.
                for name in self._wanted():
                    self._launch(name, [ring], stack)
                self._connect(ring)
            self._stack = stack.pop_all()

    def _check_recorded_scan(self) -> None:
        """Refuse a bad data file before anything is started."""
        simulation = self.profile.simulation
        if simulation is not None and simulation.data is not None:
            from apsber_bluesky.simulation import RecordedScan

            RecordedScan.open(simulation.data).close()

    def _wanted(self) -> list[str]:
        wanted = ["catalog", "receiver", "worker"]
        if self.profile.simulation is not None:
            wanted.insert(0, "beamline")
        return wanted

    def _launch(self, name: str, descriptors: list[int], stack: ExitStack) -> None:
        logs = self.own / "logs"
        logs.mkdir(exist_ok=True)
        log = logs / f"{name}-{os.getpid()}.log"
        inherited = descriptors if name in ("receiver", "worker") else []
        self.services[name] = ServiceProcess(name, _MODULES[name], log, inherited)
        stack.callback(self.services[name].stop)

    def _connect(self, ring: int) -> None:
        profile, status = self.profile, {"status_address": self.board.address}
        data_root = str(profile.session.data_root.resolve())
        if profile.simulation is not None:
            simulation = profile.simulation.model_dump(mode="json")
            self._configure(
                "beamline",
                {
                    **beamline_ports(),
                    "prefix": None,
                    "simulation": simulation,
                    "frame_address": "tcp://127.0.0.1:*",
                },
            )
        self._configure(
            "catalog",
            {
                **status,
                "uri": self._external_catalog(),
                "directory": str(self.own / "catalog"),
                "readable": [data_root],
                "backup_directory": str(self.own / "documents"),
                "api_key": secrets.token_hex(16),
            },
        )
        if profile.simulation is not None:
            self.beamline = self._ready("beamline")
        self._configure(
            "receiver",
            {
                **status,
                "frame_address": self._frame_address(),
                "data_root": data_root,
                "ring_descriptor": ring,
                "streaming": profile.streaming.model_dump(mode="json"),
            },
        )
        self.tiled_uri = str(self._ready("catalog")["uri"])
        self._configure(
            "worker",
            {
                **status,
                "data_root": data_root,
                "archive_root": str(profile.archive_root) if profile.storage.archive else None,
                "tiled_uri": self.tiled_uri,
                "ring_descriptor": ring,
                "keys": str(self.own / "keys"),
                "streaming": profile.streaming.model_dump(mode="json"),
                "processing": profile.processing.model_dump(mode="json"),
                "analysis": profile.analysis.model_dump(mode="json"),
            },
        )
        self._ready("receiver")
        self._ready("worker")

    def _configure(self, name: str, settings: dict[str, Any]) -> None:
        self.services[name].configure(settings)

    def _ready(self, name: str) -> dict[str, Any]:
        return self.services[name].wait_ready(_START_TIMEOUT_S, self._check)

    def _frame_address(self) -> str:
        address = self.profile.streaming.frame_address
        return str(self.beamline.get("frame_address", "")) if address == "auto" else address

    def _external_catalog(self) -> str:
        """Address of the profile's Tiled server with its key; empty to embed one."""
        tiled = self.profile.storage.tiled
        if tiled.uri == "embedded":
            return ""
        key = os.environ.get(tiled.api_key_variable, "")
        return f"{tiled.uri}?api_key={key}" if key else tiled.uri

    def check(self) -> None:
        """Raise if a process has ended.

        Raises
        ------
        ServiceError
            If so; it names the process and the end of its log.
        """
        for service in self.services.values():
            service.check()

    def stop(self) -> None:
        """Stop everything; doing so twice is harmless."""
        self._stack.close()
