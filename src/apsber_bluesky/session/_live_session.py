"""Which session works in a data root at the moment, so that other commands can ask it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from apsber_bluesky.core import explain_disk_errors, write_json
from apsber_bluesky.session._running_process import RunningProcess

_NAME: Final = "session.json"
_LARGEST_BYTES: Final = 1 << 16


class LiveSession(RunningProcess):
    """A session that is running.

    Attributes
    ----------
    profile : str
        Name of its profile.
    control_address : str
        Where `apsber_bluesky.streaming.ReceiverClient` connects.
    name_server : str
        Where PV Access clients of this computer find health and preview.
    health_prefix : str
        What their names begin with.
    status_address : str
        Where `apsber_bluesky.streaming.StatusSubscriber` connects.
    host : str
        Computer that it runs on.
    pid : int
        Its process.
    began_s : float
        When the process began [Unix s].
    """

    profile: str
    control_address: str
    name_server: str
    health_prefix: str
    status_address: str


def announce_session(
    own: Path,
    *,
    profile: str,
    control_address: str,
    name_server: str,
    health_prefix: str,
    status_address: str,
) -> None:
    """Write down that this process has a session.

    Parameters
    ----------
    own : Path
        The session's own folder below the data root.
    profile, control_address, name_server, health_prefix, status_address : str
        As in `LiveSession`.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    session = LiveSession(
        profile=profile,
        control_address=control_address,
        name_server=name_server,
        health_prefix=health_prefix,
        status_address=status_address,
        **RunningProcess.this(),
    )
    with explain_disk_errors(own, "write down the session"):
        write_json(own / _NAME, session.model_dump())


def withdraw_session(own: Path) -> None:
    """Take that back; what another session has written since then stays."""
    session = _read(own / _NAME)
    if session is not None and session.pid == os.getpid() and session.is_running:
        (own / _NAME).unlink(missing_ok=True)


def live_session(data_root: Path) -> LiveSession | None:
    """The session that works in a data root on this computer; None if there is none.

    A file that a session left behind when it was killed is not believed.
    """
    session = _read(data_root / ".apsber" / _NAME)
    return session if session is not None and session.is_running else None


def _read(path: Path) -> LiveSession | None:
    try:
        with path.open("rb") as file:
            return LiveSession.model_validate_json(file.read(_LARGEST_BYTES))
    except (OSError, ValidationError):
        return None
