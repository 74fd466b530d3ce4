"""The session's own corner of the data root, and the processes that work there."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from apsber_bluesky.core import Profile, StorageError, explain_disk_errors
from apsber_bluesky.session._devices import expand_macros
from apsber_bluesky.session._epics import beamline_ports
from apsber_bluesky.session._live_session import announce_session, withdraw_session
from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.session._status_board import StatusBoard
from apsber_bluesky.session._status_broadcast import StatusBroadcast
from apsber_bluesky.session._supervisor import Supervisor
from apsber_bluesky.streaming import create_ring_memory

_START_TIMEOUT_S: Final = 90.0
_MODULES: Final = {
    "beamline": ["apsber_bluesky.simulation"],
    "catalog": ["apsber_bluesky.session", "catalog"],
    "monitor": ["apsber_bluesky.streaming", "monitor"],
    "receiver": ["apsber_bluesky.streaming"],
    "worker": ["apsber_bluesky.session", "worker"],
}
_PVA: Final = "pva://"
_USE_RING: Final = ("receiver", "worker", "monitor")


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
        What to start: a simulated beamline if it has one, and always catalogue, receiver,
        worker and monitor.
    check : callable
        Called now and then while waiting; may raise to give up.

    Attributes
    ----------
    services : dict of str to ServiceProcess
        The processes, by name.
    board : StatusBoard
        What they say.
    journal : DocumentJournal
        Takes the documents of the runs, which the catalogue process delivers.
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
        self._api_key = secrets.token_hex(16)
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
            self._broadcast = StatusBroadcast(self.board)
            stack.callback(self._broadcast.close)
            # Kept open for a receiver that has to be started again.
            self._ring = create_ring_memory(self.profile.streaming.ring_megabytes * 1_000_000)
            stack.callback(os.close, self._ring)
            self._supervisor = Supervisor(self._replace_receiver)
            stack.callback(self._supervisor.close)
            self._catalog_supervisor = Supervisor(self._replace_catalog)
            stack.callback(self._catalog_supervisor.close)
            # Closed after the processes have ended.
            journal = stack.enter_context(ExitStack())
            # All are started before anything else: most of a start is imports.
            for name in self._wanted():
                self._launch(name)
                stack.callback(self._stop_service, name)
            self._open_journal(journal)
            stack.callback(withdraw_session, self.own)
            self._connect()
            self._supervisor.watch(self.services["receiver"])
            stack.callback(self._supervisor.release)
            self._catalog_supervisor.watch(self.services["catalog"])
            stack.callback(self._catalog_supervisor.release)
            self._stack = stack.pop_all()

    def _open_journal(self, stack: ExitStack) -> None:
        from apsber_bluesky.storage import DocumentJournal, journal_root

        root = journal_root(self.own, self._external_catalog())
        self.journal = DocumentJournal(root, self._warn_of_catalog)
        stack.callback(self.journal.close)

    def _check_recorded_scan(self) -> None:
        """Refuse a bad data file before anything is started."""
        simulation = self.profile.simulation
        if simulation is not None and simulation.data is not None:
            from apsber_bluesky.simulation import RecordedScan

            RecordedScan.open(simulation.data).close()

    def _wanted(self) -> list[str]:
        wanted = ["catalog", "receiver", "worker", "monitor"]
        if self.profile.simulation is not None:
            wanted.insert(0, "beamline")
        return wanted

    def _launch(self, name: str) -> ServiceProcess:
        logs = self.own / "logs"
        logs.mkdir(exist_ok=True)
        log = logs / f"{name}-{os.getpid()}.log"
        inherited = [self._ring] if name in _USE_RING else []
        self.services[name] = ServiceProcess(name, _MODULES[name], log, inherited)
        return self.services[name]

    def _stop_service(self, name: str) -> None:
        self.services[name].stop()

    def _receiver_settings(self) -> dict[str, Any]:
        return {
            "status_address": self.board.address,
            **self._frame_source(),
            "data_root": str(self.profile.session.data_root.resolve()),
            "ring_descriptor": self._ring,
            "streaming": self.profile.streaming.model_dump(mode="json"),
            "state_file": str(self.own / f"receiver-{os.getpid()}.state"),
        }

    def _replace_receiver(self) -> ServiceProcess:
        """Another receiver at the addresses of the one that died, to go on with its series."""
        dead = self.services["receiver"]
        dead.stop()
        service = self._launch("receiver")
        address = dead.answer["control_address"]
        service.configure({**self._receiver_settings(), "control_address": address})
        service.wait_ready(_START_TIMEOUT_S)
        return service

    def _catalog_settings(self) -> dict[str, Any]:
        return {
            "status_address": self.board.address,
            "uri": self._external_catalog(),
            "directory": str(self.own / "catalog"),
            "readable": [str(self.profile.session.data_root.resolve())],
            "documents": str(self.journal.folder),
            "api_key": self._api_key,
            "port": urlsplit(self.tiled_uri).port or 0,
            "during_scans": bool(self.tiled_uri),
        }

    def _replace_catalog(self) -> ServiceProcess:
        """Another catalogue at the address of the one that died, to go on with its documents."""
        self.services["catalog"].stop()
        service = self._launch("catalog")
        service.configure(self._catalog_settings())
        service.wait_ready(_START_TIMEOUT_S)
        return service

    def _warn_of_catalog(self, run_uid: str, message: str) -> None:
        warning = {"type": "warning", "stage": "catalogue", "message": message}
        self.board.post({**warning, "run_uid": run_uid})

    def _connect(self) -> None:
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
        self._configure("catalog", self._catalog_settings())
        if profile.simulation is not None:
            self.beamline = self._ready("beamline")
        self._configure("receiver", self._receiver_settings())
        self.tiled_uri = str(self._ready("catalog")["uri"])
        self._configure(
            "worker",
            {
                **status,
                "data_root": data_root,
                "archive_root": str(profile.archive_root) if profile.storage.archive else None,
                "tiled_uri": self.tiled_uri,
                "documents": str(self.journal.folder),
                "ring_descriptor": self._ring,
                "keys": str(self.own / "keys"),
                "streaming": profile.streaming.model_dump(mode="json"),
                "processing": profile.processing.model_dump(mode="json"),
                "analysis": profile.analysis.model_dump(mode="json"),
            },
        )
        control_address = str(self._ready("receiver")["control_address"])
        live_slices = self._ready("worker")["live_slices"]
        self._configure(
            "monitor",
            {
                **status,
                "control_address": control_address,
                "ring_descriptor": self._ring,
                "streaming": profile.streaming.model_dump(mode="json"),
                "live_slices": live_slices,
            },
        )
        name_server = str(self._ready("monitor")["name_server"])
        announce_session(
            self.own,
            profile=profile.name,
            control_address=control_address,
            name_server=name_server,
            health_prefix=profile.streaming.health_prefix,
            status_address=self._broadcast.address,
        )

    def _configure(self, name: str, settings: dict[str, Any]) -> None:
        self.services[name].configure(settings)

    def _ready(self, name: str) -> dict[str, Any]:
        return self.services[name].wait_ready(_START_TIMEOUT_S, self._check)

    def _frame_source(self) -> dict[str, Any]:
        """Where the receiver finds frames; the channel of an NTNDArray is relayed to it."""
        address, macros = self.profile.streaming.frame_address, dict(self.profile.session.macros)
        if self.beamline:
            macros["P"] = self.beamline["prefix"]
        if address == "auto":
            return {"frame_address": str(self.beamline.get("frame_address", ""))}
        address = expand_macros(address, macros)
        if not address.startswith(_PVA):
            return {"frame_address": address}
        environment = self.beamline.get("environment", {})
        return {
            "frame_address": "",
            "pva": address.removeprefix(_PVA),
            "environment": environment,
        }

    def _external_catalog(self) -> str:
        """Address of the profile's Tiled server with its key; empty to embed one."""
        tiled = self.profile.storage.tiled
        if tiled.uri == "embedded":
            return ""
        key = os.environ.get(tiled.api_key_variable, "")
        return f"{tiled.uri}?api_key={key}" if key else tiled.uri

    def check(self) -> None:
        """Raise if a process has ended that runs need; the monitor they can do without.

        Raises
        ------
        ServiceError
            If so; it names the process and the end of its log.
        """
        for name, service in self.services.items():
            supervisors = {"receiver": self._supervisor, "catalog": self._catalog_supervisor}
            replaced = name in supervisors and supervisors[name].is_watching
            if name != "monitor" and not replaced:
                service.check()

    def stop(self) -> None:
        """Stop everything; doing so twice is harmless."""
        self._stack.close()
