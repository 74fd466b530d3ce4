"""How a run proceeds, on the terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

_TITLES: Final = {
    "darks": "scan      darks",
    "flats": "scan      flats",
    "primary": "scan      projections",
    "accumulate": "process   normalise, filter",
    "centre": "process   rotation centre",
    "reconstruct": "process   reconstruct",
    "quality": "analyse   quality",
    "figures": "analyse   figures",
    "record": "store     NeXus record",
    "archive": "store     verified second copy",
    "publish": "store     catalogue",
}


class RunDisplay:
    """A bar for each stream and stage, fed by the status messages of a session.

    Parameters
    ----------
    console : Console
        Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]*"),
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, message: dict[str, Any]) -> None:
        """Take in a status message."""
        match message["type"]:
            case "frames":
                self._update(message["stream"], message["received"], message["expected"])
            case "stage":
                self._update(message["stage"], message["done"], message["total"])
            case "warning":
                self._progress.console.print(
                    f"[yellow]warning:[/] {message['stage']}: {message['message']}"
                )

    def _update(self, key: str, done: int, total: int) -> None:
        with self._lock:
            if key not in self._tasks:
                self._tasks[key] = self._progress.add_task(_TITLES.get(key, key), total=total)
            self._progress.update(self._tasks[key], completed=done, total=total)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Draw while the body runs."""
        with self._progress:
            yield
