"""A Tiled server in a thread: a catalogue in SQLite, tables in DuckDB, arrays in files.

Tiled's own server for one folder is `tiled.server.SimpleTiledServer`. It starts another Python
each time to look whether the database exists, which takes longer than all the rest; so this one
is put together from the same parts, and the folder is the same as that one makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import ServiceError

_HOST: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.02


class TiledServer:
    """Serve the catalogue of a folder on the loopback interface, from a thread of this process.

    Parameters
    ----------
    directory : Path
        Where the catalogue is kept; it exists.
    readable : sequence of Path
        Folders whose files may be served.
    api_key : str
        Key that clients must show, letters and digits.
    port : int
        Port to serve at; 0 takes one that is free.

    Attributes
    ----------
    port : int
        TCP port.
    uri : str
        Address for ``tiled.client.from_uri``, key included.

    Raises
    ------
    ServiceError
        If the database is of another version of Tiled, or the server does not start.
    OSError
        If the port is taken.
    """

    def __init__(
        self, directory: Path, readable: Sequence[Path], api_key: str, port: int = 0
    ) -> None:
        import uvicorn
        from tiled.catalog import from_uri
        from tiled.config import Authentication, StreamingCacheConfig
        from tiled.server.app import build_app

        self._directory = directory = directory.resolve()
        (directory / "data").mkdir(exist_ok=True)
        database = directory / "catalog.db"
        prepare_database(database)
        catalog = from_uri(
            database,
            writable_storage=[directory / "data", f"duckdb:///{directory / 'storage.duckdb'}"],
            readable_storage=list(readable),
            cache_config=StreamingCacheConfig(uri="memory").model_dump(),
        )
        app = build_app(catalog, authentication=Authentication(single_user_api_key=api_key))
        self._socket = socket.create_server((_HOST, port))
        self.port: int = self._socket.getsockname()[1]
        self.uri = f"http://{_HOST}:{self.port}/api/v1?api_key={api_key}"
        self._server = uvicorn.Server(
            uvicorn.Config(app, loop="asyncio", log_config=_log_to(directory))
        )
        self._thread = threading.Thread(target=self._serve, name="tiled")
        self._thread.start()
        self._wait_started(directory)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def _wait_started(self, directory: Path) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        # It opens its socket when everything behind it has started.
        while not self._server.started:
            late = time.monotonic() > deadline
            if late or not self._thread.is_alive():
                self.close()
                what = f"did not start in {_START_TIMEOUT_S:g} s" if late else "did not start"
                raise ServiceError(f"it {what}; see {directory / 'error.log'}")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Stop serving; doing so twice is harmless."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        _close_logs(self._directory)


def prepare_database(path: Path) -> None:
    """Make the database of a catalogue, if there is none.

    Parameters
    ----------
    path : Path
        The SQLite file.

    Raises
    ------
    ServiceError
        If there is one that this version of Tiled cannot use.
    """
    from tiled.alembic_utils import (
        DatabaseUpgradeNeeded,
        UninitializedDatabase,
        UnrecognizedDatabase,
    )

    if not path.exists():
        # Made elsewhere, so that one whose making was cut short is not taken for a database.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder, path.name)
            asyncio.run(_make_database(made))
            made.replace(path)
    try:
        asyncio.run(_check_database(path))
    except DatabaseUpgradeNeeded as error:
        raise ServiceError(
            f"its database is of an older Tiled; keep a copy, then run"
            f" `tiled catalog upgrade-database {path}`"
        ) from error
    except UninitializedDatabase as error:
        raise ServiceError(f"{path} is not a database of Tiled; move it away") from error
    except UnrecognizedDatabase as error:
        raise ServiceError(f"its database is not one of this version of Tiled: {error}") from error


async def _check_database(path: Path) -> None:
    from tiled.catalog.core import check_catalog_database

    async with _engine(path) as engine:
        await check_catalog_database(engine)


async def _make_database(path: Path) -> None:
    from tiled.catalog.core import initialize_database

    async with _engine(path) as engine:
        await initialize_database(engine)
        async with engine.begin() as connection:
            await connection.run_sync(_stamp)


@contextlib.asynccontextmanager
async def _engine(path: Path) -> AsyncIterator[Any]:
    from sqlalchemy.ext.asyncio import create_async_engine
    from tiled.utils import ensure_specified_sql_driver

    engine = create_async_engine(ensure_specified_sql_driver(path))
    try:
        yield engine
    finally:
        await engine.dispose()


def _stamp(connection: Any) -> None:
    """Write down of which version the tables are; Tiled does it with a file of settings."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from tiled.catalog.alembic_constants import ALEMBIC_DIR
    from tiled.catalog.core import REQUIRED_REVISION

    MigrationContext.configure(connection).stamp(ScriptDirectory(ALEMBIC_DIR), REQUIRED_REVISION)


def _log_to(directory: Path) -> dict[str, Any]:
    """Tiled's logging, into files: standard output belongs to whoever started this process."""
    from tiled.server.logging_config import LOGGING_CONFIG

    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    for handler, name in (("access", "access.log"), ("default", "error.log")):
        settings = config["handlers"][handler]
        del settings["stream"]
        settings |= {"class": "logging.FileHandler", "filename": str(directory / name)}
    return config


def _close_logs(directory: Path) -> None:
    """Close the files that `_log_to` opened; loggers are the process's and outlive the server."""
    for name in ("", *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        files = (h for h in [*logger.handlers] if isinstance(h, logging.FileHandler))
        for handler in files:
            if Path(handler.baseFilename).parent == directory:
                logger.removeHandler(handler)
                handler.close()
