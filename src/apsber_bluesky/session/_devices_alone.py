"""The devices of a profile without the processes of a session: to ask, not to acquire."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from apsber_bluesky.core import Profile
from apsber_bluesky.session._axis_finder import SpoolAxisFinder
from apsber_bluesky.session._devices import Devices, make_devices, set_connection_timeout
from apsber_bluesky.session._epics import beamline_ports, prepare_epics
from apsber_bluesky.session._resources import SessionResources
from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.session._workplace import check_data_root

_START_TIMEOUT_S: Final = 60.0


@contextmanager
def devices_alone(profile: Profile) -> Iterator[Devices]:
    """Connect the devices of a profile for as long as the body lasts.

    No receiver is started: beside a session that is taking data it would take frames away from it.
    Of a simulated beamline an own one is started, with the same settings.

    Parameters
    ----------
    profile : Profile
        Whose devices.

    Yields
    ------
    Devices
        Connected as far as they can be; detectors know disk and memory.

    Raises
    ------
    ServiceError
        If the simulated beamline does not start.
    StorageError
        If the data root cannot be used.
    """
    prepare_epics(profile)
    own = check_data_root(profile.session.data_root)
    macros = dict(profile.session.macros)
    with ExitStack() as stack:
        beamline: dict[str, Any] = {}
        if profile.simulation is not None:
            beamline = _start_beamline(profile, own / "logs", stack)
            os.environ.update(beamline["environment"])
            macros["P"] = beamline["prefix"]
        set_connection_timeout(profile.session.connection_timeout_s)
        devices = make_devices(profile.devices, macros)
        stack.callback(devices.disconnect)
        for device in devices.values():
            if hasattr(device, "receiver"):
                device.resources = SessionResources(profile)
                if device.pixel_size_um is None and beamline:
                    device.pixel_size_um = beamline["pixel_size_um"]
                if getattr(device, "data_root", "") is None:
                    device.data_root = profile.session.data_root
            if hasattr(device, "axis_finder"):
                device.axis_finder = SpoolAxisFinder(profile.session.data_root)
        devices.connect(profile.session.connection_timeout_s)
        yield devices


def _start_beamline(profile: Profile, logs: Any, stack: ExitStack) -> dict[str, Any]:
    logs.mkdir(exist_ok=True)
    log = logs / f"beamline-{os.getpid()}.log"
    service = ServiceProcess("beamline", ["apsber_bluesky.simulation"], log)
    stack.callback(service.stop)
    assert profile.simulation is not None
    service.configure(
        {
            **beamline_ports(),
            "prefix": None,
            "simulation": profile.simulation.model_dump(mode="json"),
            "frame_address": "tcp://127.0.0.1:*",
        }
    )
    return service.wait_ready(_START_TIMEOUT_S)
