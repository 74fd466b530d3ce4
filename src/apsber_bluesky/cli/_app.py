"""The ``apsber`` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from apsber_bluesky import __version__
from apsber_bluesky.cli._command_check import check
from apsber_bluesky.cli._command_dashboard import dashboard
from apsber_bluesky.cli._command_estimate import estimate
from apsber_bluesky.cli._command_frames import frames
from apsber_bluesky.cli._command_gateway import gateway
from apsber_bluesky.cli._command_keys import keys
from apsber_bluesky.cli._command_models import models
from apsber_bluesky.cli._command_queue import queue
from apsber_bluesky.cli._command_reconstruct import reconstruct
from apsber_bluesky.cli._command_relay import relay
from apsber_bluesky.cli._command_simulate import simulate
from apsber_bluesky.cli._command_train import train
from apsber_bluesky.cli._commands_look import show, status
from apsber_bluesky.cli._commands_run import demo, run
from apsber_bluesky.cli._output import Output
from apsber_bluesky.core import ApsberError, RunCancelled

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="apsber",
    help="From the first photon to the DOI: tomography at the beamline.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """From the first photon to the DOI: tomography at the beamline."""


for group, commands in (
    ("Start", (demo, simulate)),
    ("Acquire", (check, run, relay, gateway)),
    ("Reconstruct", (reconstruct, estimate)),
    ("Look", (status, frames, show, dashboard)),
):
    for command in commands:
        app.command(rich_help_panel=group)(command)

app.add_typer(keys, name="keys", rich_help_panel="Start")
app.add_typer(queue, name="queue", rich_help_panel="Start")
app.add_typer(models, name="models", rich_help_panel="Learn")
app.add_typer(train, name="train", rich_help_panel="Learn")


def main() -> None:
    """Run the command line; errors are one line each, and an exit status other than 0."""
    try:
        app()
    except ApsberError as error:
        message = " ".join(str(error).split())
        output = Output(as_json="--json" in sys.argv)
        output.result({"error": message})
        output.error(message)
        sys.exit(EXIT_INTERRUPTED if isinstance(error, RunCancelled) else EXIT_ERROR)
