"""What every run says of itself, so that it is found."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from apsber_bluesky import __version__
from apsber_bluesky.core import Profile

_DISTRIBUTIONS: Final = ("bluesky-tiled-plugins", "h5py", "numpy", "tiled")


def session_metadata(profile: Profile) -> dict[str, Any]:
    """Metadata of all runs of a session; plans and users add theirs."""
    settings = profile.session
    return {
        "beamline_id": settings.beamline_id,
        "instrument_name": settings.instrument_name,
        "proposal_id": settings.proposal,
        "profile": profile.name,
        "login_id": f"{_user()}@{socket.gethostname()}",
        "pid": os.getpid(),
        # The RunEngine adds its own.
        "versions": {
            "apsber_bluesky": __version__,
            **{name: importlib.metadata.version(name) for name in _DISTRIBUTIONS},
        },
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number that has no name.
        return str(os.getuid())


def complete_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Give a run a title if nobody did: its sample, or else its plan."""
    title = metadata.get("sample") or metadata.get("plan_name") or "untitled"
    return {"title": str(title), **metadata}
