"""The catalogue's database is made in this process, as Tiled's own command makes it."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from tiled.catalog.core import ALL_REVISIONS

from apsber_bluesky.core import ServiceError
from apsber_bluesky.storage import _tiled_server
from apsber_bluesky.storage._tiled_server import TiledServer, prepare_database


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "catalog.db"
    prepare_database(path)
    return path


def content(path):
    """The schema, and every row but the time at which it was written."""
    with closing(sqlite3.connect(path)) as connection:
        schema = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        rows = {}
        for kind, table, _ in schema:
            if kind == "table":
                names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                kept = ", ".join(f'"{n}"' for n in names if not n.startswith("time_"))
                rows[table] = connection.execute(f"SELECT {kept} FROM {table}").fetchall()
    return sorted(schema, key=str), rows


def execute(path, statement):
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


def test_the_database_is_the_one_that_tiled_makes(database, tmp_path):
    theirs = tmp_path / "theirs.db"
    command = [sys.executable, "-m", "tiled", "catalog", "init", str(theirs)]
    subprocess.run(command, capture_output=True, check=True, timeout=100)
    assert content(database) == content(theirs)
    assert execute(database, "PRAGMA journal_mode") == execute(theirs, "PRAGMA journal_mode")


def test_a_database_that_exists_is_left_as_it_is(database):
    before = content(database)
    prepare_database(database)
    assert content(database) == before


def test_a_database_whose_making_was_cut_short_is_made_again(tmp_path, monkeypatch):
    def cut(connection):
        raise KeyboardInterrupt

    path = tmp_path / "catalog.db"
    with monkeypatch.context() as patch:
        patch.setattr(_tiled_server, "_stamp", cut)
        with pytest.raises(KeyboardInterrupt):
            prepare_database(path)
    assert list(tmp_path.iterdir()) == []
    prepare_database(path)
    assert list(tmp_path.iterdir()) == [path]
    assert execute(path, "SELECT version_num FROM alembic_version") == [(ALL_REVISIONS[0],)]


def test_a_file_that_is_no_catalogue_is_refused_and_left(tmp_path):
    path = tmp_path / "catalog.db"
    execute(path, "CREATE TABLE mine (x)")
    with pytest.raises(ServiceError, match="is not a database of Tiled; move it away"):
        prepare_database(path)
    assert content(path)[1] == {"mine": []}


@pytest.mark.parametrize(
    ("revision", "message"),
    [
        (ALL_REVISIONS[1], "of an older Tiled; keep a copy, then run `tiled catalog upgrade"),
        ("0123456789ab", "not one of this version of Tiled: .* unrecognized revision 0123456789ab"),
    ],
)
def test_a_database_of_another_tiled_is_refused(database, revision, message):
    execute(database, f"UPDATE alembic_version SET version_num = '{revision}'")
    before = content(database)
    with pytest.raises(ServiceError, match=message):
        prepare_database(database)
    assert content(database) == before


def test_a_port_that_is_taken_is_said_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        TiledServer(tmp_path, [], "key", taken.getsockname()[1])
