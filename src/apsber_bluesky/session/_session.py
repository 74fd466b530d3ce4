"""A working beamline session from one profile."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from apsber_bluesky.core import (
    ConfigurationError,
    FrameConsumer,
    FrameReceiver,
    Profile,
    RunFolder,
    load_profile,
)
from apsber_bluesky.session._axis_finder import SpoolAxisFinder
from apsber_bluesky.session._devices import Devices
from apsber_bluesky.session._epics import prepare_epics
from apsber_bluesky.session._import_ahead import ImportAhead
from apsber_bluesky.session._resources import SessionResources
from apsber_bluesky.session._suspenders import install_suspenders
from apsber_bluesky.session._workplace import Workplace

logger = logging.getLogger(__name__)

_CATALOG_WAIT_S: Final = 60.0
_RECEIVER_TIMEOUT_S: Final = 60.0


class Session:
    """Everything that a user works with at the beamline.

    Made by `start`. Use it as a context manager, or call `close` at the end; the processes of the
    session end with it in any case.

    Attributes
    ----------
    RE : bluesky.RunEngine
        Runs plans.
    devices : Devices
        ``devices.camera`` and so on.
    plans : module
        ``apsber_bluesky.plans``.
    catalog : tiled client
        Runs, by uid, scan number or position: ``catalog[-1]``.
    processed : tiled client
        Volumes and quality numbers of the runs, by uid.
    sd : bluesky.SupplementalData
        Baseline, monitors and flyers of every run.
    callbacks : tuple
        What listens to the RunEngine's documents; subscribe them to another RunEngine to have its
        runs processed, too.
    profile : Profile
        The settings.
    """

    def __init__(self, profile: Profile, workplace: Workplace) -> None:
        from bluesky import RunEngine, SupplementalData

        from apsber_bluesky import plans

        self.profile = profile
        self.plans: ModuleType = plans
        self._workplace = workplace
        self._closers: list[Any] = []
        self.devices = self._make_devices()
        self.RE = self._make_run_engine(RunEngine)
        install_suspenders(self.RE, self.devices, profile.session.suspenders)
        self.sd = SupplementalData(baseline=self.devices.baseline())
        self.RE.preprocessors.append(self.sd)
        self.callbacks = self._make_callbacks()
        for callback in self.callbacks:
            self.RE.subscribe(callback)
        self._catalog: Any = None

    def _make_devices(self) -> Devices:
        from apsber_bluesky.session._detector_receivers import make_detector_receivers
        from apsber_bluesky.session._devices import make_devices, set_connection_timeout
        from apsber_bluesky.session._scan_feedback import BoardFeedback
        from apsber_bluesky.streaming import ReceiverClient

        settings, beamline = self.profile.session, self._workplace.beamline
        set_connection_timeout(settings.connection_timeout_s)
        macros = dict(settings.macros)
        if beamline:
            macros["P"] = beamline["prefix"]
        devices = make_devices(self.profile.devices, macros)
        address = self._workplace.services["receiver"].answer["control_address"]
        # A receiver that dies is started again, and audits its spool before it answers.
        self.receiver = ReceiverClient(address, timeout_s=_RECEIVER_TIMEOUT_S)
        self._closers.append(self.receiver.close)
        self.detector_receivers = make_detector_receivers(
            self.profile, self._workplace.own, self.board.address, beamline
        )
        for receiver in self.detector_receivers.values():
            self._closers.append(receiver.close)
        self._feedback = BoardFeedback(self.board)
        for device in devices.values():
            self.adopt(device)
        devices.connect(settings.connection_timeout_s)
        return devices

    def adopt(self, device: Any) -> None:
        """Join a device to the receivers of this session.

        The devices of the profile are joined already; this is for those that were made elsewhere,
        by the startup of a BITS instrument, say.

        Parameters
        ----------
        device : ophyd.Device
            A device of this package, or any other, which is left as it is.
        """
        if hasattr(device, "receiver"):
            own = self.detector_receivers.get(device.name)
            device.receiver = own or self.receiver
            device.has_own_receiver = own is not None
            device.series_timeout_s = self.profile.streaming.series_timeout_s
            device.feedback = self._feedback
            device.resources = SessionResources(self.profile, self.receiver)
            if getattr(device, "data_root", "") is None:
                device.data_root = self.profile.session.data_root
            if device.pixel_size_um is None and self.beamline:
                device.pixel_size_um = self.beamline["pixel_size_um"]
        if hasattr(device, "axis_finder"):
            device.axis_finder = SpoolAxisFinder(self.profile.session.data_root)

    def _make_run_engine(self, factory: Any) -> Any:
        from apsber_bluesky.session._run_metadata import complete_metadata, session_metadata
        from apsber_bluesky.session._scan_number import ScanNumber

        number = ScanNumber(self._workplace.own / "scan_number")
        metadata = session_metadata(self.profile)
        return factory(metadata, scan_id_source=number, md_normalizer=complete_metadata)

    def _make_callbacks(self) -> tuple[Any, ...]:
        from apsber_bluesky.callbacks import DocumentForwarder, FrameDispatcher, RunWatcher
        from apsber_bluesky.session._remote_consumer import RemoteFrameConsumer
        from apsber_bluesky.session._run_announcer import RunAnnouncer
        from apsber_bluesky.streaming import Outbox

        services = self._workplace.services
        worker = Outbox(services["worker"].answer["inbox_address"])
        self._worker = worker
        self._closers.append(worker.close)
        receivers: list[FrameReceiver] = [self.receiver, *self.detector_receivers.values()]
        consumers: list[FrameConsumer] = [
            *(RunAnnouncer(receiver) for receiver in receivers),
            RemoteFrameConsumer(worker),
        ]
        guards = []
        if self.profile.simulation is None:
            # A simulated beamline ends with the session; a real one stays as it was left.
            from apsber_bluesky.session._guard import RunGuard

            own, missing = self._workplace.own, self.devices.missing
            guard = RunGuard(
                lambda: [device for name, device in self.devices.items() if name not in missing],
                self.profile.session.data_root,
                own / "logs" / f"guard-{os.getpid()}.log",
            )
            self._closers.append(guard.close)
            guards.append(guard)
        return (
            *guards,
            FrameDispatcher(consumers),
            RunWatcher(self.board.post),
            # The catalogue process takes it from there, or whoever comes after it.
            DocumentForwarder(self._workplace.journal.add),
        )

    @property
    def board(self) -> Any:
        """What the processes of the session say; `listen` to it for progress."""
        return self._workplace.board

    @property
    def tiled_uri(self) -> str:
        """Address of the catalogue, with its key."""
        return self._workplace.tiled_uri

    @property
    def fan_out_address(self) -> str | None:
        """Where consumers on other computers get frames; None if the profile serves nobody."""
        address: str | None = self._workplace.services["worker"].answer["fan_out_address"]
        return address

    @property
    def beamline(self) -> dict[str, Any]:
        """What the simulated beamline says of itself; empty at a real one."""
        return self._workplace.beamline

    @property
    def _root(self) -> Any:
        if self._catalog is None:
            from apsber_bluesky.storage import connect_catalog

            self._catalog = connect_catalog(self._workplace.tiled_uri)
        return self._catalog

    @property
    def catalog(self) -> Any:
        """The runs, as a Tiled client."""
        from apsber_bluesky.storage import RAW_CONTAINER

        return self._root[RAW_CONTAINER]

    @property
    def processed(self) -> Any:
        """What was made of the runs, as a Tiled client."""
        from apsber_bluesky.storage import PROCESSED_CONTAINER

        return self._root[PROCESSED_CONTAINER]

    def folder(self, run_uid: str) -> RunFolder:
        """The folder of a run of this session's data root."""
        from apsber_bluesky.core import find_run

        return find_run(self.profile.session.data_root, run_uid)

    def wait(self, run_uid: str, timeout_s: float = 600.0) -> dict[str, Any]:
        """Wait until a run is reconstructed, judged, kept and catalogued.

        Parameters
        ----------
        run_uid : str
            As the RunEngine returned it.
        timeout_s : float
            How long to wait [s].

        Returns
        -------
        dict
            Summary: folder, volume shape, centre, quality, frames, seconds per stage.
        """
        summary: dict[str, Any] = self.board.wait_finished(
            run_uid, timeout_s, self._workplace.check, catalogued=True
        )
        return summary

    def cancel(self) -> None:
        """Stop processing the run that is being processed; its raw frames are kept."""
        self._worker.send({"type": "cancel"})

    def check(self) -> None:
        """Raise if a process of the session has ended."""
        self._workplace.check()

    def close(self) -> None:
        """End the session and its processes."""
        # Clients go before their servers, which would otherwise be reported as lost.
        while self._closers:
            self._closers.pop()()
        self.devices.disconnect()
        self._workplace.stop()
        atexit.unregister(self.close)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        missing = f", missing: {', '.join(self.devices.missing)}" if self.devices.missing else ""
        return f"<Session {self.profile.name}: {', '.join(self.devices)}{missing}>"


def start(
    profile: str | Path | Profile = "simulated",
    changes: dict[str, Any] | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> Session:
    """Start a session.

    Parameters
    ----------
    profile : str, Path or Profile
        Name of a profile that comes with the package, a YAML file, or settings.
    changes : dict, optional
        Nested settings that override those of the profile.
    check : callable
        Called now and then while the session starts; may raise to give up, and then nothing is
        left running.

    Returns
    -------
    Session
        With ``RE``, ``devices``, ``plans`` and ``catalog``.

    Raises
    ------
    ConfigurationError
        If a setting is wrong.
    StorageError
        If the data root cannot be written.
    ServiceError
        If a process does not start.
    """
    settings = profile if isinstance(profile, Profile) else load_profile(profile, changes)
    if settings.simulation is None and settings.streaming.frame_address == "auto":
        raise ConfigurationError(
            "streaming.frame_address is 'auto', which needs a simulated beamline; give the"
            " address of the detector's frame port"
        )
    prepare_epics(settings)
    workplace = Workplace(settings, ImportAhead(check))
    workplace.start()
    try:
        os.environ.update(workplace.beamline.get("environment", {}))
        session = Session(settings, workplace)
    except BaseException:
        workplace.stop()
        raise
    atexit.register(session.close)
    return session
