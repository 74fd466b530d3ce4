"""People read standard error, scripts read one JSON object on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from apsber_bluesky.core import Profile, load_profile

ProfileOption = Annotated[
    str, typer.Option("--profile", "-p", help="Profile name or YAML file.", metavar="NAME|FILE")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", help="Folder that runs are kept in, instead of the profile's."),
]


class Output:
    """Where a command writes.

    Parameters
    ----------
    as_json : bool
        Whether standard output is for a script.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # With --json everything for people goes to standard error.
        self.console = Console(stderr=as_json, soft_wrap=True, highlight=False)
        self.progress_console = Console(stderr=True)

    def result(self, value: dict[str, Any]) -> None:
        """Print the last word of the command, when a script wants it."""
        if self.as_json:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()

    def say(self, *text: Any) -> None:
        """Print something for people."""
        self.console.print(*text)


def profile_with(
    name: str, data_root: Path | None, changes: dict[str, Any] | None = None
) -> Profile:
    """The profile that a command works with.

    Raises
    ------
    ConfigurationError
        If there is no such profile or a setting is wrong.
    """
    merged = dict(changes or {})
    if data_root is not None:
        merged["session"] = {**merged.get("session", {}), "data_root": str(data_root.absolute())}
    return load_profile(name, merged)
