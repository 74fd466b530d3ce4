"""What the page may ask for."""

from __future__ import annotations

import importlib.resources
import logging
import re
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from apsber_bluesky.core import (
    PLANES,
    ApsberError,
    DataFileError,
    InputError,
    RunFolder,
    StorageError,
    check_folder_name,
)
from apsber_bluesky.dashboard._guard import Guard, refuse
from apsber_bluesky.dashboard._volume_slices import VolumeSlices
from apsber_bluesky.dashboard._watcher import LISTED_RUNS, Watcher

logger = logging.getLogger(__name__)

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_LONGEST_SEARCH: Final = 200
_LARGEST_FIGURE_BYTES: Final = 32 << 20
_FIGURE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.png")
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)


def make_app(watcher: Watcher, key: str, host_names: list[str]) -> ASGIApp:
    """The server's answers, behind its guard.

    Parameters
    ----------
    watcher : Watcher
        What it shows.
    key : str
        What browsers must show.
    host_names : list of str
        Names under which they may ask.
    """
    pages = _Pages(watcher)
    routes = [Route(f"/{name}", _asset(name, text)) for name, text in _assets().items()]
    routes += [
        Route("/", _asset("index.html", _assets()["index.html"])),
        Route("/api/events", pages.events),
        Route("/api/runs", pages.runs),
        Route("/api/runs/{uid}", pages.run),
        Route("/api/runs/{uid}/slice", pages.slice),
        Route("/api/runs/{uid}/figures/{name}", pages.figure),
        Route("/api/live/{plane}", pages.live),
    ]
    handlers: Any = {404: _not_found, ApsberError: _refused, Exception: _failed}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), key, host_names)


def _assets() -> dict[str, bytes]:
    folder = importlib.resources.files("apsber_bluesky.dashboard")
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if any(file.name.endswith(suffix) for suffix in _TYPES)
    }


def _asset(name: str, content: bytes) -> Any:
    kind = _TYPES[name[name.rindex(".") :]]

    async def answer(request: Request) -> Response:
        # The files belong to this version of the server, which may be replaced at any time.
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    return answer


async def _not_found(request: Request, error: Exception) -> Response:
    return refuse(404, "there is nothing here")


async def _refused(request: Request, error: Exception) -> Response:
    status = 400 if isinstance(error, InputError) else 404
    return refuse(status, " ".join(str(error).split()))


async def _failed(request: Request, error: Exception) -> Response:
    return refuse(500, "the server failed; its log says why")


class _Pages:
    """The answers; what takes time is done in threads."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._slices = VolumeSlices()

    async def events(self, request: Request) -> Response:
        board = self._watcher.board
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if board.is_full:
            return refuse(503, "too many pages are open; close some")
        return StreamingResponse(board.listen(), media_type="text/event-stream")

    async def runs(self, request: Request) -> Response:
        text = request.query_params.get("q", "")
        if len(text) > _LONGEST_SEARCH:
            raise InputError(f"a search has at most {_LONGEST_SEARCH} characters")
        first = _number(request, "first", 0)
        found = await run_in_threadpool(self._watcher.index.search, text)
        return JSONResponse({"total": len(found), "runs": found[first : first + LISTED_RUNS]})

    async def run(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._run, _uid(request)))

    def _run(self, uid: str) -> dict[str, Any]:
        folder = self._watcher.index.folder(uid)
        view = self._watcher.view(uid)
        try:
            volumes = self._slices.describe(folder)
        except DataFileError as error:
            volumes = {}
            view["warnings"].append(str(error))
        return {**view, "volumes": volumes, "figures": sorted(_figures(folder))}

    async def slice(self, request: Request) -> Response:
        folder = self._watcher.index.folder(_uid(request))
        asked = request.query_params
        png = await run_in_threadpool(
            self._slices.png,
            folder,
            asked.get("of", "volume"),
            asked.get("axis", "z"),
            _number(request, "position", 0),
        )
        return _picture(png)

    async def figure(self, request: Request) -> Response:
        folder = self._watcher.index.folder(_uid(request))
        figures = _figures(folder)
        name = request.path_params["name"]
        if name not in figures:
            raise StorageError("there is no such figure")
        return _picture(await run_in_threadpool(figures[name].read_bytes))

    async def live(self, request: Request) -> Response:
        link, plane = self._watcher.link, request.path_params["plane"]
        if link is None or plane not in PLANES:
            raise StorageError("there is no such live slice")
        png = await run_in_threadpool(link.pictures.png, plane)
        if png is None:
            raise StorageError("there is no live slice yet")
        return _picture(png)


def _uid(request: Request) -> str:
    return check_folder_name(request.path_params["uid"], "run uid")


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        raise InputError(f"{name} is {text!r:.30}; give a whole number")
    return int(text)


def _figures(folder: RunFolder) -> dict[str, Any]:
    """The pictures of a run that may be shown, by name."""
    if folder.figures.is_symlink() or not folder.figures.is_dir():
        return {}
    return {
        path.name: path
        for path in folder.figures.iterdir()
        if _FIGURE.fullmatch(path.name)
        and not path.is_symlink()
        and path.stat().st_size <= _LARGEST_FIGURE_BYTES
    }


def _picture(png: bytes) -> Response:
    return Response(png, media_type="image/png")
