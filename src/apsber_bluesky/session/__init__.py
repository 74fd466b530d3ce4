"""A working beamline session from one profile: ``start("simulated")``."""

import importlib
from typing import TYPE_CHECKING, Any

from apsber_bluesky.session._devices import Devices, make_devices
from apsber_bluesky.session._devices_alone import devices_alone
from apsber_bluesky.session._epics import prepare_epics
from apsber_bluesky.session._live_session import (
    LiveSession,
    announce_session,
    live_session,
    withdraw_session,
)
from apsber_bluesky.session._namespace import make_namespace, running_in_queueserver
from apsber_bluesky.session._plan_devices import device_types, devices_of
from apsber_bluesky.session._queue_client import QueueClient
from apsber_bluesky.session._queue_folder import QueueAddress, QueueFolder
from apsber_bluesky.session._queue_server import QUEUE_PORT, QueueServer
from apsber_bluesky.session._registry import DeviceNotFoundError, DeviceRegistry
from apsber_bluesky.session._services import ServiceProcess
from apsber_bluesky.session._session import Session, start
from apsber_bluesky.session._workplace import Workplace, check_data_root

if TYPE_CHECKING:
    from apsber_bluesky.session._simulated_examples import (
        HELD_OUT_SEED,
        SIMULATED_CLASSES,
        SimulatedExamples,
        check_apart,
        simulate_examples,
    )
    from apsber_bluesky.session._storage_stages import (
        WriteRecord,
        open_product_writer,
        open_volume_writer,
    )

__all__ = [
    "HELD_OUT_SEED",
    "QUEUE_PORT",
    "SIMULATED_CLASSES",
    "DeviceNotFoundError",
    "DeviceRegistry",
    "Devices",
    "LiveSession",
    "QueueAddress",
    "QueueClient",
    "QueueFolder",
    "QueueServer",
    "ServiceProcess",
    "Session",
    "SimulatedExamples",
    "Workplace",
    "WriteRecord",
    "announce_session",
    "check_apart",
    "check_data_root",
    "device_types",
    "devices_alone",
    "devices_of",
    "live_session",
    "make_devices",
    "make_namespace",
    "open_product_writer",
    "open_volume_writer",
    "prepare_epics",
    "running_in_queueserver",
    "simulate_examples",
    "start",
    "withdraw_session",
]

# They load the pipeline and the simulation, for which no process of a session should wait that
# does not process frames itself.
_LATE = {
    "_simulated_examples": (
        "HELD_OUT_SEED",
        "SIMULATED_CLASSES",
        "SimulatedExamples",
        "check_apart",
        "simulate_examples",
    ),
    "_storage_stages": ("WriteRecord", "open_product_writer", "open_volume_writer"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATE.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
