"""p4p's PV Access gateway, set up from a profile and checked before it is started."""

from __future__ import annotations

import errno
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import psutil

from apsber_bluesky.core import ConfigurationError, GatewaySettings, explain_disk_errors

CONFIGURATION: Final = "gw.json"
ACCESS: Final = "gw.acf"
PV_LIST: Final = "gw.pvlist"
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - compared with, never bound unasked
_BROADCAST: Final = "255.255.255.255"
_CHECK_TIMEOUT_S: Final = 60.0
_SEARCH_ERRORS: Final = {
    errno.EADDRINUSE: "is taken; stop the other program or give another port",
    errno.EADDRNOTAVAIL: "is not of this computer; give the address of one of its interfaces",
}


def pv_expression(pattern: str) -> str:
    """The regular expression, for a whole name, of a pattern in which ``*`` stands for anything."""
    return ".*".join(re.escape(part) for part in pattern.split("*"))


def gateway_configuration(settings: GatewaySettings, name_server: str) -> dict[str, Any]:
    """Contents of ``gw.json``.

    Parameters
    ----------
    settings : GatewaySettings
        From the profile.
    name_server : str
        Where the session has its preview, ``host:port``.
    """
    clients: list[dict[str, Any]] = [
        {
            "name": "session",
            "provider": "pva",
            "addrlist": "",
            "autoaddrlist": False,
            "EPICS_PVA_NAME_SERVERS": name_server,
        }
    ]
    if settings.upstream:
        clients.append(
            {
                "name": "beamline",
                "provider": "pva",
                "addrlist": " ".join(settings.upstream),
                "autoaddrlist": False,
                "bcastport": settings.upstream_broadcast_port,
            }
        )
    return {
        "version": 2,
        "readOnly": not settings.writable,
        "clients": clients,
        "servers": [
            {
                "name": "shown",
                "clients": [client["name"] for client in clients],
                "acf_client": "session",
                "interface": [settings.interface],
                "autoaddrlist": True,
                "serverport": settings.server_port,
                "bcastport": settings.broadcast_port,
                "statusprefix": settings.status_prefix,
                "access": ACCESS,
                "pvlist": PV_LIST,
            }
        ],
    }


def access_rules(settings: GatewaySettings) -> str:
    """Contents of ``gw.acf``: everybody may read, named accounts may write what is writable."""
    lines = ["ASG(DEFAULT) { RULE(0, READ) }"]
    for number, accounts in enumerate(settings.writable.values()):
        group = f"WRITE{number}"
        names = ", ".join(f'"{account}"' for account in accounts)
        lines.append(f"UAG({group}) {{ {names} }}")
        lines.append(f"ASG({group}) {{ RULE(0, READ) RULE(1, PUT) {{ UAG({group}) }} }}")
    return "\n".join(lines) + "\n"


def pv_list(settings: GatewaySettings, preview: str) -> str:
    """Contents of ``gw.pvlist``: what is not in it does not exist for clients."""
    lines = ["EVALUATION ORDER ALLOW, DENY"]
    lines += [f"{pv_expression(name)} ALLOW DEFAULT 0" for name in (preview, *settings.pvs)]
    # The last line that fits decides.
    lines += [
        f"{pv_expression(pattern)} ALLOW WRITE{number} 1"
        for number, pattern in enumerate(settings.writable)
    ]
    return "\n".join(lines) + "\n"


def write_gateway_files(
    settings: GatewaySettings, folder: Path, *, name_server: str, preview: str
) -> Path:
    """Write the three files of the gateway, and have p4p check them.

    Parameters
    ----------
    settings : GatewaySettings
        From the profile.
    folder : Path
        Where to write them.
    name_server : str
        Where the session has its preview, ``host:port``.
    preview : str
        PV of the preview.

    Returns
    -------
    Path
        ``gw.json``.

    Raises
    ------
    ConfigurationError
        If p4p refuses them.
    StorageError
        If they cannot be written.
    """
    configuration = json.dumps(gateway_configuration(settings, name_server), indent=2) + "\n"
    with explain_disk_errors(folder, "write the files of the gateway"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIGURATION).write_text(configuration, encoding="utf-8")
        (folder / ACCESS).write_text(access_rules(settings), encoding="utf-8")
        (folder / PV_LIST).write_text(pv_list(settings, preview), encoding="utf-8")
    check_gateway_files(folder / CONFIGURATION)
    return folder / CONFIGURATION


def check_gateway_files(configuration: Path) -> None:
    """Have p4p read the files as it would at the start (``pvagw -T``).

    Raises
    ------
    ConfigurationError
        If it refuses them.
    """
    outcome = subprocess.run(  # noqa: S603 - p4p's own command
        [sys.executable, "-m", "p4p.gw", "-T", str(configuration)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_CHECK_TIMEOUT_S,
    )
    if outcome.returncode != 0:
        said = [line for line in outcome.stderr.splitlines() if line and line[0] not in " \t"]
        why = said[-1].removeprefix("ERROR:__main__:") if said else f"status {outcome.returncode}"
        raise ConfigurationError(f"p4p refuses the gateway's files {configuration.parent}: {why}")


def check_gateway_network(settings: GatewaySettings, name_server: str, health_prefix: str) -> None:
    """Refuse a gateway that could not serve, or that would serve itself.

    Parameters
    ----------
    settings : GatewaySettings
        From the profile.
    name_server : str
        Where the session has its preview, ``host:port``.
    health_prefix : str
        What the PVs of the session begin with; all others need an upstream.

    Raises
    ------
    ConfigurationError
        If so; it names the setting.
    """
    foreign = [
        name for name in (*settings.pvs, *settings.writable) if not name.startswith(health_prefix)
    ]
    if foreign and not settings.upstream:
        raise ConfigurationError(
            f"gateway.upstream is empty, so nobody has {foreign[0]!r} of gateway.pvs or"
            " gateway.writable; give the addresses of the IOCs"
        )
    host, port = _endpoint(name_server, 0)
    if port == settings.server_port and _is_served(host, settings.interface):
        raise ConfigurationError(
            f"gateway.server_port {port} is that of the session's own PVs at {name_server}, so the"
            " gateway would serve itself; give another"
        )
    for address in settings.upstream:
        host, port = _endpoint(address, settings.upstream_broadcast_port)
        if port == settings.broadcast_port and _is_served(host, settings.interface):
            raise ConfigurationError(
                f"gateway.upstream {address!r} is where the gateway itself serves"
                f" ({settings.interface}, gateway.broadcast_port {port}); give other ports or"
                " another interface"
            )
    _check_free(socket.SOCK_STREAM, settings.interface, settings.server_port, "server_port")
    _check_free(socket.SOCK_DGRAM, settings.interface, settings.broadcast_port, "broadcast_port")


def _endpoint(address: str, default_port: int) -> tuple[str, int]:
    host, _, port = address.partition(":")
    try:
        return socket.gethostbyname(host), int(port or default_port)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"gateway.upstream {address!r} is no address: {error}; give host or host:port"
        ) from error


def _is_served(address: str, interface: str) -> bool:
    """Whether what is sent to an address reaches a server at an interface of this computer."""
    if address == _BROADCAST:
        return True
    own = _own_interfaces()
    if interface == _EVERYWHERE:
        return any(address in addresses for addresses in own)
    return address == interface or any(
        interface in addresses and address in addresses for addresses in own
    )


def _own_interfaces() -> Iterable[set[str]]:
    """Address and broadcast address of each interface."""
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET:
                yield {text for text in (each.address, each.broadcast) if text}


def _check_free(kind: socket.SocketKind, interface: str, port: int, setting: str) -> None:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            # Connections of a gateway that has just ended must not keep the port from this one.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((interface, port))
            if kind == socket.SOCK_STREAM:
                probe.listen(1)
        except OSError as error:
            advice = _SEARCH_ERRORS.get(error.errno or 0, f"cannot be used: {error.strerror}")
            what = "interface" if error.errno == errno.EADDRNOTAVAIL else setting
            value = interface if what == "interface" else f"{port} on {interface}"
            raise ConfigurationError(f"gateway.{what} {value} {advice}") from error
