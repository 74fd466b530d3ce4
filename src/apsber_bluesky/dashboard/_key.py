"""The key of the page: who has the link may look, nobody else."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Final

from apsber_bluesky.core import StorageError, explain_disk_errors

_BYTES: Final = 32
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def load_key(data_root: Path) -> str:
    """The key of a data root's page: 256 random bits, made when there is none.

    It is kept, so that links hold when the server is started again; remove the file to have
    another one.

    Parameters
    ----------
    data_root : Path
        The data root; the key is in ``.apsber/dashboard/key`` below it, for its owner alone.

    Raises
    ------
    StorageError
        If it cannot be kept there, others may read it, or it is none.
    """
    path = data_root / ".apsber" / "dashboard" / "key"
    with explain_disk_errors(path, "keep the key of the dashboard"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(path)
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_BYTES * 4).decode("ascii", "replace").strip()
    if mode & 0o077:
        raise StorageError(f"others may read {path}; remove it, and a new key is made")
    if not _FORM.fullmatch(text):
        raise StorageError(f"{path} holds no key; remove it, and a new one is made")
    return text


def _make(path: Path) -> None:
    if path.exists():
        return
    # Whole or not there: two servers may start at once, and the second takes the first's key.
    new = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(_BYTES) + "\n")
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        new.unlink()
