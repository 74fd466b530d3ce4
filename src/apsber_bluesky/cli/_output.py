"""People read standard error, scripts read one JSON object on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from apsber_bluesky.core import (
    InputError,
    Profile,
    SimulationSettings,
    format_ranges,
    load_profile,
)

ProfileOption = Annotated[
    str, typer.Option("--profile", "-p", help="Profile name or YAML file.", metavar="NAME|FILE")
]
RunArgument = Annotated[
    str, typer.Argument(help="Run uid, the beginning of one, or 'latest'.", metavar="RUN")
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
        self._script = sys.stdout
        # With --json everything for people goes to standard error.
        self.console = Console(stderr=as_json, soft_wrap=True, highlight=False)
        self.progress_console = Console(stderr=True, soft_wrap=True, highlight=False)

    @property
    def draws_pictures(self) -> bool:
        """Whether somebody looks at a terminal that shows pictures of coloured characters."""
        console = self.console
        colours = console.color_system in ("256", "truecolor")
        return not self.as_json and console.is_terminal and colours and console.encoding == "utf-8"

    def result(self, value: dict[str, Any]) -> None:
        """Print the last word of the command, when a script wants it."""
        if self.as_json:
            self._script.write(json.dumps(value) + "\n")
            self._script.flush()

    def error(self, message: str) -> None:
        """Print what is wrong, on one line of standard error."""
        self.progress_console.print(Text.assemble(("error: ", "red"), message))

    def say(self, *text: Any) -> None:
        """Print something for people; square brackets in it are only that."""
        self.console.print(*text, markup=False)

    def say_title(self, title: str, text: str) -> None:
        """Print a line that begins in bold."""
        self.console.print(Text.assemble((title, "bold"), f"  {text}".rstrip()))


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


def simulated_profile(
    name: str, data_root: Path | None, simulation: dict[str, Any]
) -> tuple[Profile, SimulationSettings]:
    """The profile of a command that works with the simulated beamline alone.

    Raises
    ------
    InputError
        If the profile is that of a real beamline, which is left alone.
    ConfigurationError
        If there is no such profile or a setting is wrong.
    """
    # Looked at before anything is laid over it: that alone would give it a simulated beamline.
    profile = profile_with(name, data_root)
    if profile.simulation is not None:
        profile = profile_with(name, data_root, {"simulation": simulation})
    if profile.simulation is None:
        raise InputError(f"profile {name!r} has no simulated beamline; give one that has")
    return profile, profile.simulation


def ranges_of(numbers: list[int], at_most: int = 20) -> str:
    """Numbers as ranges, ``3, 7-9``; the first few of them."""
    return format_ranges(numbers, at_most) or "none"


def duration(seconds: float) -> str:
    """A time that people can read."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
