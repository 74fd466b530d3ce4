"""Find a run, wherever somebody has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from apsber_bluesky.core import InputError, RunFolder, StorageError, find_run, load_profile
from apsber_bluesky.storage import connect_catalog
from apsber_bluesky.viewers._run_source import FolderSource, RunSource
from apsber_bluesky.viewers._run_view import RunView
from apsber_bluesky.viewers._tiled_source import TiledSource

_TILED_SCHEMES: Final = {"tiled": "http", "tiled+https": "https"}
_NODE_PATH: Final = "/api/v1/metadata/"
_PAGE_PATH: Final = "/ui/browse/"


def open_run(
    run: Any = "latest", *, profile: str = "simulated", data_root: Path | str | None = None
) -> RunView:
    """Open a run to look at it; no pixel is read.

    Parameters
    ----------
    run : str, Path or tiled client
        Its uid, the beginning of one, or ``latest``; its folder, or a file in it; the address of
        a run in Tiled (``http://...``, ``tiled://host:port/raw/<uid>``); or the run itself as
        ``session.catalog[uid]`` or `find_runs` give it.
    profile : str
        Profile whose data root has the runs.
    data_root : Path or str, optional
        Another data root.

    Returns
    -------
    RunView
        The run.

    Raises
    ------
    InputError
        If that is no run.
    StorageError
        If there is no such run on disk.
    ServiceError
        If the catalogue does not answer.
    """
    return RunView(open_source(run, profile=profile, data_root=data_root))


def open_source(
    run: Any, *, profile: str = "simulated", data_root: Path | str | None = None
) -> RunSource:
    """As `open_run`, for those who want the data without the view."""
    if not isinstance(run, str | Path):
        return TiledSource(run)
    if is_address(run):
        return TiledSource(connect_catalog(_http_address(str(run))))
    path = Path(run).expanduser()
    # A uid could also be the name of a folder; only a path that looks like one is taken for it.
    if isinstance(run, Path) or os.sep in run or (path / "ledger.sqlite").is_file():
        return FolderSource(folder_of(path))
    root = Path(data_root) if data_root else load_profile(profile).session.data_root
    return FolderSource(find_run(root, run))


def is_address(run: Any) -> bool:
    """Whether this is the address of a run in Tiled."""
    schemes = ("http", "https", *_TILED_SCHEMES)
    return isinstance(run, str) and run.partition("://")[0] in schemes and "://" in run


def folder_of(path: Path) -> RunFolder:
    """The run folder that a path is, or lies in.

    Raises
    ------
    StorageError
        If it does not lie in one.
    """
    absolute = path.absolute()
    for folder in (absolute, *absolute.parents[:2]):
        if (folder / "ledger.sqlite").is_file():
            return RunFolder(folder)
    raise StorageError(f"{path} is not in the folder of a run; that holds a ledger.sqlite")


def _http_address(address: str) -> str:
    """What Tiled's client connects to; the addresses of its web pages will do."""
    parts = urlsplit(address)
    if not parts.netloc:
        raise InputError(f"{address!r} names no server; give tiled://host:port/raw/<uid>")
    path = parts.path
    if parts.scheme in _TILED_SCHEMES:
        path = _NODE_PATH + path.lstrip("/")
    elif path.startswith(_PAGE_PATH):
        path = _NODE_PATH + path.removeprefix(_PAGE_PATH)
    scheme = _TILED_SCHEMES.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, path, parts.query, ""))
