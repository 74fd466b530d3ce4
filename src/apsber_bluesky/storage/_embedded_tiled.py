"""A Tiled server beside the session: a catalogue that needs nothing but a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from apsber_bluesky.core import ServiceError, explain_disk_errors
from apsber_bluesky.storage._catalog_client import (
    CatalogUnreachable,
    connect_catalog,
    is_unreachable,
)
from apsber_bluesky.storage._tiled_server import TiledServer

RAW_CONTAINER = "raw"
PROCESSED_CONTAINER = "processed"


class EmbeddedTiled:
    """Serve a catalogue on a random port of the loopback interface.

    Use it as a context manager. It has the containers ``raw``, which takes Bluesky runs, and
    ``processed``, which takes what `apsber_bluesky.storage.publish_run` publishes. The folder
    keeps the catalogue: opened again, it serves the old runs.

    The server runs in threads of this process, and they outlive an exception unless `close` is
    called; so run it in a process of its own and leave the ``with`` block in any case.

    Parameters
    ----------
    directory : Path
        Where the catalogue is kept. One server at a time may use it.
    readable : sequence of Path
        Folders whose files may be served: the data root.
    api_key : str, optional
        Key that clients must show, letters and digits; a random one if not given.
    port : int
        Port to serve at; 0 takes one that is free.

    Raises
    ------
    StorageError
        On entry, if `directory` cannot be written.
    ServiceError
        On entry, if the server does not start.
    """

    def __init__(
        self,
        directory: Path,
        readable: Sequence[Path] = (),
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        self.directory = directory
        self._readable = [path.resolve() for path in readable]
        self._key = api_key or secrets.token_hex(16)
        self._wanted_port = port
        self._server: TiledServer | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with explain_disk_errors(self.directory, "keep the catalogue"):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_sole_use(self.directory))
            self._server = self._start()
            stack.callback(self._server.close)
            prepare_catalog(self.uri)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def uri(self) -> str:
        """Address for ``tiled.client.from_uri``, key included."""
        return self._running.uri

    @property
    def api_key(self) -> str:
        """Key that clients must show."""
        return self._key

    @property
    def port(self) -> int:
        """TCP port on the loopback interface."""
        return self._running.port

    def close(self) -> None:
        """Stop the server; doing so twice is harmless."""
        self._server = None
        self._stack.close()

    @property
    def _running(self) -> TiledServer:
        if self._server is None:
            raise ServiceError(f"the catalogue in {self.directory} is not running")
        return self._server

    def _start(self) -> TiledServer:
        _register_document_export()
        try:
            return TiledServer(self.directory, self._readable, self._key, self._wanted_port)
        except Exception as error:
            raise ServiceError(
                f"the Tiled server for {self.directory} did not start: {error}"
            ) from error


@contextlib.contextmanager
def _sole_use(directory: Path) -> Iterator[None]:
    """Hold a lock that the kernel gives back even if this process is killed."""
    path = directory / "in-use"
    with explain_disk_errors(path, "keep the catalogue"), path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ServiceError(
                f"process {file.read().strip()} already serves the catalogue in {directory};"
                " end it or choose another folder"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _register_document_export() -> None:
    """Let clients have a run's documents back; without it ``run.documents()`` is refused."""
    from bluesky_tiled_plugins.exporters import json_seq_exporter
    from tiled.media_type_registration import default_serialization_registry

    default_serialization_registry.register("BlueskyRun", "application/json-seq", json_seq_exporter)


def prepare_catalog(uri: str) -> None:
    """Make the containers ``raw`` and ``processed`` of a catalogue that has none.

    Parameters
    ----------
    uri : str
        Address of the Tiled server; the key may be in it.

    Raises
    ------
    CatalogUnreachable
        If nobody answers there; a `ServiceError`.
    ServiceError
        If the key is refused, or may not write.
    """
    import httpx
    from tiled.client.utils import ClientError
    from tiled.structures.core import Spec

    client = connect_catalog(uri)
    try:
        if RAW_CONTAINER not in client:
            # Version 3 is what makes the catalogue searchable by TimeRange, PartialUID, ScanID.
            client.create_container(
                RAW_CONTAINER, specs=[Spec("CatalogOfBlueskyRuns", version="3.0")]
            )
        if PROCESSED_CONTAINER not in client:
            client.create_container(PROCESSED_CONTAINER)
    except (httpx.HTTPError, ClientError) as error:
        where = uri.partition("?")[0]
        kind = CatalogUnreachable if is_unreachable(error) else ServiceError
        raise kind(f"cannot prepare the catalogue at {where}: {error}") from error
    finally:
        client.context.close()
