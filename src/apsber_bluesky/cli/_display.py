"""How a run proceeds, on the terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

#: Stages that report bytes have totals beyond any number of frames or slices.
_LARGEST_COUNT: Final = 1_000_000

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


class _AmountColumn(ProgressColumn):
    """Frames and slices as ``done/total``, amounts of data in MB."""

    def render(self, task: Task) -> Text:
        total = int(task.total or 0)
        if total > _LARGEST_COUNT:
            return Text(f"{task.completed / 1e6:.0f}/{total / 1e6:.0f} MB")
        return Text(f"{int(task.completed)}/{total}")


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
            _AmountColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, message: dict[str, Any]) -> None:
        """Take in a status message."""
        match message["type"]:
            case "run_opened":
                self._totals = message["totals"]
            case "frames":
                total = max(message["expected"], self._totals.get(message["stream"], 0))
                self._update(message["stream"], message["received"], total)
            case "stage":
                self._update(message["stage"], message["done"], message["total"])
            case "warning":
                self._warn(f"{message['stage']}: {message['message']}")
            case "health" if message["active"]:
                self._warn(f"frames: {message['message']}")
            case "health":
                self._progress.console.print(f"over: {message['message']}", markup=False)

    def _warn(self, text: str) -> None:
        self._progress.console.print(Text.assemble(("warning:", "yellow"), f" {text}"))

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
