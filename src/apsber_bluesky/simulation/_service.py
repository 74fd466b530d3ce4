"""The simulated beamline's process: settings in, one ready line out, service until SIGTERM."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import Annotated, Any, TextIO
from uuid import uuid4

from p4p.server import Server, StaticProvider
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apsber_bluesky.core import (
    ApsberError,
    ConfigurationError,
    SimulationSettings,
    die_with_parent,
)
from apsber_bluesky.simulation._beamline import Beamline, PhantomSource, RecordedSource
from apsber_bluesky.simulation._ports import (
    LOOPBACK,
    LoopbackContext,
    Repeater,
    reserve_server_port,
)
from apsber_bluesky.simulation._recorded import RecordedScan
from apsber_bluesky.streaming import FramePublisher

log = logging.getLogger(__name__)


class ServiceSettings(BaseModel):
    """What the process reads from standard input.

    Attributes
    ----------
    parent_pid : int
        Process that started this one; both end together.
    prefix : str or None
        PV prefix of up to 20 characters; None for a random one.
    frame_address : str
        ZMQ address to bind the frame port to.
    ca_port, repeater_port : int or None
        Ports of the Channel Access server and its repeater; None for free ones.
    simulation : SimulationSettings
        The beamline.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parent_pid: int
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_:-]{1,20}$")] | None = None
    frame_address: str = "tcp://127.0.0.1:*"
    ca_port: Annotated[int, Field(ge=1024, lt=65536)] | None = None
    repeater_port: Annotated[int, Field(ge=1024, lt=65536)] | None = None
    simulation: SimulationSettings = SimulationSettings()


def main(settings_from: TextIO, ready_to: TextIO) -> int:
    """Run the simulated beamline until SIGTERM; the exit status."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s"
    )
    # caproto warns whenever the machine is busy; its errors still show.
    logging.getLogger("caproto").setLevel(logging.ERROR)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settings = _read_settings(settings_from)
        die_with_parent(settings.parent_pid)
        asyncio.run(_serve(settings, ready_to))
    except ApsberError as error:
        _say(ready_to, {"ready": False, "error": " ".join(str(error).split())})
        return 1
    return 0


def _read_settings(source: TextIO) -> ServiceSettings:
    try:
        return ServiceSettings.model_validate(json.load(source))
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"simulated beamline: the settings on standard input are not JSON ({error})"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigurationError(
            f"simulated beamline: {where}: {first['msg']} (got {first.get('input')!r})"
        ) from error


def _say(ready_to: TextIO, message: dict[str, Any]) -> None:
    ready_to.write(json.dumps(message) + "\n")
    ready_to.flush()


async def _serve(settings: ServiceSettings, ready_to: TextIO) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    simulation = settings.simulation
    scan = RecordedScan.open(simulation.data) if simulation.data is not None else None
    source = RecordedSource(scan) if scan is not None else PhantomSource(simulation)
    publisher = FramePublisher(settings.frame_address)
    prefix = settings.prefix or f"S{uuid4().hex[:6]}:"
    beamline = Beamline(prefix, source, publisher, simulation.energy_keV, simulation)
    await beamline.start()
    stream, datagram = reserve_server_port(settings.ca_port)
    repeater_port = await Repeater.start(settings.repeater_port)
    context = LoopbackContext(beamline.channels, stream, datagram, repeater_port)
    provider = StaticProvider("simulation")
    provider.add(beamline.pva.pv_name, beamline.pva.pv)
    for detector in beamline.detectors.values():
        for name, channel in detector.pva_channels.items():
            provider.add(name, channel)
    tasks = [asyncio.ensure_future(work) for work in (context.run(), *beamline.work())]
    ended = asyncio.ensure_future(stop.wait())
    with Server(providers=[provider], isolate=True) as pva_server:
        await context.serving.wait()
        environment = _client_environment(context.ca_server_port, repeater_port, source)
        environment |= {
            key: str(value)
            for key, value in pva_server.conf().items()
            if key.startswith("EPICS_PVA_") and value
        }
        ready = _ready(prefix, environment, publisher, simulation, source, scan)
        ready["detectors"] = {name: own.ready for name, own in beamline.detectors.items()}
        _say(ready_to, ready)
        done, _ = await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        await beamline.close()
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    publisher.close()
    if scan is not None:
        scan.close()
    failures = [r for r in results if isinstance(r, Exception)]
    if failures and ended not in done:
        raise failures[0]


def _client_environment(
    server_port: int, repeater_port: int, source: PhantomSource | RecordedSource
) -> dict[str, str]:
    # The image waveform has up to 8 bytes per pixel.
    largest = max(source.rows * source.columns * 8 + 4096, 16384)
    return {
        "EPICS_CA_ADDR_LIST": LOOPBACK,
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": str(server_port),
        "EPICS_CA_REPEATER_PORT": str(repeater_port),
        "EPICS_CA_MAX_ARRAY_BYTES": str(largest),
    }


def _ready(
    prefix: str,
    environment: dict[str, str],
    publisher: FramePublisher,
    simulation: SimulationSettings,
    source: PhantomSource | RecordedSource,
    scan: RecordedScan | None,
) -> dict[str, Any]:
    return {
        "ready": True,
        "prefix": prefix,
        "environment": environment,
        "frame_address": publisher.address,
        "rows": source.rows,
        "columns": source.columns,
        "dtype": source.dtype.str,
        "pixel_size_um": simulation.pixel_size_um if scan is None else scan.pixel_size_um,
        "centre_px": source.centre_px if isinstance(source, PhantomSource) else None,
        "recorded": None if scan is None else _recorded(scan),
    }


def _recorded(scan: RecordedScan) -> dict[str, Any]:
    return {
        "path": str(scan.path),
        "num_projections": scan.num_projections,
        "rotation_start_deg": scan.rotation_start_deg,
        "rotation_stop_deg": scan.rotation_stop_deg,
        "num_flats": scan.num_flats,
        "num_darks": scan.num_darks,
    }
