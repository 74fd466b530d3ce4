"""``apsber simulate``: the simulated beamline alone."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from apsber_bluesky.cli._interrupt import handle_interrupts
from apsber_bluesky.cli._output import JsonOption, Output, ProfileOption, simulated_profile


def simulate(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Recorded scan (DXchange or NXtomo) in place of the phantom."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="PV prefix; a random one if not given.")
    ] = None,
    frame_address: Annotated[
        str, typer.Option(help="Where frames are published.")
    ] = "tcp://127.0.0.1:*",
    profile: ProfileOption = "simulated",
    as_json: JsonOption = False,
) -> None:
    """Run the simulated beamline alone, until Ctrl-C."""
    from apsber_bluesky.session import ServiceProcess

    output = Output(as_json=as_json)
    changes: dict[str, Any] = {"data": str(data.absolute())} if data else {}
    _, simulation = simulated_profile(profile, None, changes)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, handle_interrupts() as interrupt:
        log = Path(folder) / "beamline.log"
        service = ServiceProcess("beamline", ["apsber_bluesky.simulation"], log)
        try:
            service.configure(
                {
                    "prefix": prefix,
                    "frame_address": frame_address,
                    "simulation": simulation.model_dump(mode="json"),
                }
            )
            answer = service.wait_ready(60.0)
            _announce(output, answer)
            with interrupt.calls(stop.set):
                while not stop.wait(0.3):
                    service.check()
        finally:
            service.stop()


def _announce(output: Output, answer: dict[str, Any]) -> None:
    output.say(f"prefix    {answer['prefix']}")
    output.say(f"frames    {answer['frame_address']}")
    output.say("Clients need:")
    for key, value in answer["environment"].items():
        output.say(f"export {key}={json.dumps(value)}")
    output.result(answer)
