"""The queue's corner of the data root: keys, addresses, settings, logs."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from apsber_bluesky.core import ServiceError, explain_disk_errors, write_json
from apsber_bluesky.session._running_process import RunningProcess
from apsber_bluesky.streaming import create_keys, load_keys

FOLDER_VARIABLE: Final = "APSBER_QUEUE_FOLDER"
PERMISSIONS: Final = "user_group_permissions.yaml"

_CONFIG: Final = "manager.yaml"
_KEY_NAME: Final = "manager"
_SERVER: Final = "server.json"
_LARGEST_BYTES: Final = 1 << 16


class QueueAddress(RunningProcess):
    """Where a queue server is, and what opens it.

    Attributes
    ----------
    control_address, info_address : str
        Where requests go, and where console output and status are published.
    public_key : str
        Public CURVE key of the server, Z85. Who has it may use the queue, so it is not public.
    host : str
        Computer that it runs on.
    pid : int
        Process that runs it.
    began_s : float
        When that process began [Unix s].
    """

    control_address: str
    info_address: str
    public_key: str


class QueueFolder:
    """Files of the queue of one data root; nobody else may look into them.

    Parameters
    ----------
    data_root : Path
        The data root.

    Raises
    ------
    StorageError
        If the folder cannot be made.
    """

    def __init__(self, data_root: Path) -> None:
        self.path = data_root / ".apsber" / "queue"

    def make(self) -> None:
        """Make the folder, and the permissions that come with the package where there are none."""
        with explain_disk_errors(self.path, "keep the queue"):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            permissions = self.path / PERMISSIONS
            if not permissions.exists():
                permissions.write_text(_shipped(PERMISSIONS), encoding="utf-8")

    @property
    def keys(self) -> Path:
        """Folder of the server's keys."""
        return self.path / "keys"

    @property
    def public_key_file(self) -> Path:
        """The key that clients show."""
        return self.keys / f"{_KEY_NAME}.key"

    def make_keys(self) -> tuple[str, str]:
        """The public and the secret key of the server; made if there are none.

        Raises
        ------
        StorageError
            If they cannot be written, or others may read them.
        """
        self.make()
        if not (self.keys / f"{_KEY_NAME}.key_secret").exists():
            create_keys(self.keys, _KEY_NAME)
            with explain_disk_errors(self.public_key_file, "keep the key"):
                self.public_key_file.chmod(0o600)
        pair = load_keys(self.keys, _KEY_NAME)
        return pair.public.decode(), pair.secret.decode()

    def write_config(self, changes: dict[str, dict[str, Any]]) -> Path:
        """The manager's settings, for its owner alone.

        Parameters
        ----------
        changes : dict
            Sections and keys that override those which come with the package.

        Returns
        -------
        Path
            The file for ``start-re-manager --config``.
        """
        self.make()
        settings = yaml.safe_load(_shipped("config.yaml"))
        for section, values in changes.items():
            settings[section] = {**settings.get(section, {}), **values}
        path = self.path / _CONFIG
        with explain_disk_errors(path, "write the settings of the queue"):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                yaml.safe_dump(settings, file)
        return path

    def announce(self, control_address: str, info_address: str, public_key: str) -> QueueAddress:
        """Write down that this process runs the queue."""
        address = QueueAddress(
            control_address=control_address,
            info_address=info_address,
            public_key=public_key,
            **RunningProcess.this(),
        )
        write_json(self.path / _SERVER, address.model_dump())
        (self.path / _SERVER).chmod(0o600)
        return address

    def withdraw(self) -> None:
        """Take that back."""
        (self.path / _SERVER).unlink(missing_ok=True)

    def address(self) -> QueueAddress | None:
        """The queue server of this data root on this computer; None if there is none."""
        try:
            with (self.path / _SERVER).open("rb") as file:
                address = QueueAddress.model_validate_json(file.read(_LARGEST_BYTES))
        except (OSError, ValidationError):
            return None
        return address if address.is_running else None

    def running(self) -> QueueAddress:
        """The queue server of this data root.

        Raises
        ------
        ServiceError
            If there is none.
        """
        address = self.address()
        if address is None:
            raise ServiceError(
                f"no queue server for {self.path.parents[1]} on this computer; start one with"
                " 'apsber queue start'"
            )
        return address


def _shipped(name: str) -> str:
    folder = importlib.resources.files("apsber_bluesky.profiles") / "queueserver"
    return (folder / name).read_text(encoding="utf-8")
