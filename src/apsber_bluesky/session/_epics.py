"""Where this process' EPICS clients look, decided before they read it."""

from __future__ import annotations

import os
import socket
import sys
from typing import Final

from apsber_bluesky.core import Profile, ServiceError, forgo_real_time

_LOOPBACK: Final = "127.0.0.1"
_SERVER_PORT: Final = "EPICS_CA_SERVER_PORT"
_REPEATER_PORT: Final = "EPICS_CA_REPEATER_PORT"

#: An image of 4096 x 4096 pixels of 8 bytes; memory is taken only for what is transferred.
_LARGEST_ARRAY_BYTES: Final = 1 << 28

#: Set once for the whole process, as Channel Access reads it once.
_ports: dict[str, int] = {}
_reserved: list[socket.socket] = []


def _reserve_port() -> int:
    """A TCP port that stays bound here, so that the system gives it to nobody else.

    The beamline, which asks for this very port and allows it to be shared, may listen on it.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((_LOOPBACK, 0))
    _reserved.append(holder)
    return int(holder.getsockname()[1])


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def prepare_epics(profile: Profile) -> None:
    """Get this process ready for EPICS, before anything imports it.

    Channel Access reads its environment once, when ophyd is first imported. So the ports of a
    simulated beamline are chosen here, and every simulated beamline that this process starts uses
    them, one after the other.

    Parameters
    ----------
    profile : Profile
        Whether the beamline is simulated. The EPICS environment of a real one is left alone.

    Raises
    ------
    ServiceError
        If EPICS is in use already and looks elsewhere.
    """
    forgo_real_time()
    if profile.simulation is None or _ports:
        return
    if "epics" in sys.modules:
        raise ServiceError(
            "ophyd was imported before the simulated session was started, so it looks for PVs"
            " elsewhere; call apsber_bluesky.session.start first, then import plans or devices"
        )
    _ports["ca_port"] = _reserve_port()
    _ports["repeater_port"] = _free_port(socket.SOCK_DGRAM)
    os.environ.update(
        {
            "EPICS_CA_ADDR_LIST": _LOOPBACK,
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            _SERVER_PORT: str(_ports["ca_port"]),
            _REPEATER_PORT: str(_ports["repeater_port"]),
            "EPICS_CA_MAX_ARRAY_BYTES": str(_LARGEST_ARRAY_BYTES),
        }
    )


def beamline_ports() -> dict[str, int]:
    """The ports that the simulated beamline is to serve on."""
    return dict(_ports)
