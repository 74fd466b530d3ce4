"""``apsber keys``: who may read frames over the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from apsber_bluesky.cli._output import (
    DataRootOption,
    JsonOption,
    Output,
    ProfileOption,
    profile_with,
)

KEYS_FOLDER = Path(".apsber") / "keys"

FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", help="Where keys are kept; .apsber/keys below the data root."),
]

keys = typer.Typer(help="Make and allow the keys of remote consumers.", no_args_is_help=True)


def keys_folder(profile: str, data_root: Path | None, folder: Path | None) -> Path:
    """Where the keys of a profile are kept.

    Raises
    ------
    ConfigurationError
        If there is no such profile.
    """
    if folder is not None:
        return folder.absolute()
    return profile_with(profile, data_root).session.data_root / KEYS_FOLDER


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.", metavar="NAME")],
    folder: FolderOption = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a pair of keys; the secret one never leaves the folder."""
    from apsber_bluesky import streaming

    output = Output(as_json=as_json)
    place = keys_folder(profile, data_root, folder)
    pair = streaming.create_keys(place, name)
    file = place / f"{name}.key"
    output.say(f"public    {pair.public.decode()}")
    output.say(f"give away {file}")
    output.say(f"keep      {place / f'{name}.key_secret'}")
    output.result(
        {
            "name": name,
            "public": pair.public.decode(),
            "public_file": str(file),
            "secret_file": str(place / f"{name}.key_secret"),
        }
    )


@keys.command("list")
def list_them(
    folder: FolderOption = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys there are, and those that may connect."""
    from apsber_bluesky import streaming

    output = Output(as_json=as_json)
    place = keys_folder(profile, data_root, folder)
    own = streaming.list_keys(place)
    allowed = streaming.allowed_keys(place)
    table = Table("name", "public key", "", box=None)
    for name, public in own.items():
        table.add_row(name, public.decode(), "own")
    for name, public in allowed.items():
        table.add_row(name, public.decode(), "may connect")
    output.say(table if own or allowed else f"no keys in {place}")
    output.result(
        {
            "folder": str(place),
            "own": {name: public.decode() for name, public in own.items()},
            "allowed": {name: public.decode() for name, public in allowed.items()},
        }
    )


@keys.command()
def allow(
    file: Annotated[Path, typer.Argument(help="Their public key, NAME.key.", metavar="FILE")],
    folder: FolderOption = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the owner of a public key connect; what runs already notices it."""
    from apsber_bluesky import streaming

    output = Output(as_json=as_json)
    place = keys_folder(profile, data_root, folder)
    name = streaming.allow_key(place, file)
    target = streaming.allowed_folder(place) / f"{name}.key"
    output.say(f"{name} may connect; remove {target} to end that")
    output.result({"name": name, "file": str(target)})
