"""``apsber gateway``: preview and chosen PVs for a wider network, read-only."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from apsber_bluesky.cli._interrupt import handle_interrupts
from apsber_bluesky.cli._output import (
    DataRootOption,
    JsonOption,
    Output,
    ProfileOption,
    profile_with,
)
from apsber_bluesky.core import ConfigurationError, Profile

_START_TIMEOUT_S: Final = 60.0


def gateway(
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the settings; serve nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the preview and the PVs that the profile lists on another network, until Ctrl-C."""
    from apsber_bluesky.session import ServiceProcess, check_data_root
    from apsber_bluesky.streaming import check_gateway_network, write_gateway_files

    output = Output(as_json=as_json)
    settings = profile_with(profile, data_root)
    streaming = settings.streaming
    name_server = _name_server(settings)
    check_gateway_network(settings.gateway, name_server, streaming.health_prefix)
    own = check_data_root(settings.session.data_root)
    configuration = write_gateway_files(
        settings.gateway, own / "gateway", name_server=name_server, preview=streaming.preview_pv
    )
    answer = _describe(settings, configuration)
    if check:
        output.say(f"files     {configuration.parent} are in order")
        output.result(answer)
        return
    logs = own / "logs"
    logs.mkdir(exist_ok=True)
    stop = threading.Event()
    with handle_interrupts() as interrupt, interrupt.calls(stop.set):
        log = logs / f"gateway-{os.getpid()}.log"
        service = ServiceProcess("gateway", ["apsber_bluesky.streaming", "gateway"], log)
        try:
            service.configure({"configuration": str(configuration)})
            service.wait_ready(_START_TIMEOUT_S)
            _announce(output, answer)
            while not stop.wait(0.3):
                service.check()
        finally:
            service.stop()


def _name_server(profile: Profile) -> str:
    """Where the session of the profile has its preview."""
    from apsber_bluesky.session import live_session

    root, port = profile.session.data_root, profile.streaming.pva_port
    if port:
        return f"127.0.0.1:{port}"
    session = live_session(root)
    if session is None:
        raise ConfigurationError(
            f"no session works in {root}, and streaming.pva_port is 0, so nobody knows where the"
            " preview will be; start the session first, or give it a port in the profile"
        )
    return session.name_server


def _describe(profile: Profile, configuration: Path) -> dict[str, Any]:
    settings = profile.gateway
    return {
        "interface": settings.interface,
        "server_port": settings.server_port,
        "broadcast_port": settings.broadcast_port,
        "read_only": not settings.writable,
        "pvs": [profile.streaming.preview_pv, *settings.pvs],
        "writable": settings.writable,
        "status_prefix": settings.status_prefix,
        "configuration": str(configuration),
    }


def _announce(output: Output, answer: dict[str, Any]) -> None:
    ports = f"{answer['server_port']} (TCP), {answer['broadcast_port']} (UDP)"
    output.say(f"gateway   {answer['interface']}, ports {ports}")
    output.say(f"shows     {', '.join(answer['pvs'])}")
    for pattern, accounts in answer["writable"].items():
        output.say(f"writable  {pattern} by {', '.join(accounts)}")
    output.say(f"state     {answer['status_prefix']}*")
    output.result(answer)
