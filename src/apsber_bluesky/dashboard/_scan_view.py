"""A run as the page shows it: ledger and live numbers together, as plain values."""

from __future__ import annotations

import logging
import math
from typing import Any, Final

from apsber_bluesky.core import RunFolder, SeriesBooks, StorageError, describe_run
from apsber_bluesky.dashboard._run_index import FACTS
from apsber_bluesky.storage import Receipt

logger = logging.getLogger(__name__)

_FACTS: Final = (*FACTS, "scan", "folder", "quality")
_COUNTS: Final = ("expected", "received", "written", "used", "duplicated", "refused")


def view_run(
    folder: RunFolder, status: dict[str, Any], health: dict[str, Any] | None
) -> dict[str, Any]:
    """Everything that the page tells of a run.

    Parameters
    ----------
    folder : RunFolder
        The run.
    status : dict
        What a session says of it; empty without one.
    health : dict or None
        The receiver's health, which is ahead of the ledger.

    Raises
    ------
    StorageError
        If the run cannot be read.
    """
    run = describe_run(folder)
    live = health if health is not None and health["run_uid"] == folder.uid else None
    view = {
        **{name: run[name] for name in _FACTS},
        "streams": _streams(run, live),
        "stages": _stages(run["stages"], status.get("stages", {})),
        "warnings": [str(text) for text in status.get("warnings", [])],
        "archive": _archive(folder),
        "products": sorted(run["products"]),
        "rate_hz": live["frame_rate_hz"] if live and live["armed"] else 0.0,
        "stream": live["stream"] if live and live["armed"] else "",
    }
    plain: dict[str, Any] = _without_nan(view)
    return plain


def _without_nan(value: Any) -> Any:
    """The same with None for what is no finite number, which JSON does not have."""
    match value:
        case dict():
            return {name: _without_nan(own) for name, own in value.items()}
        case list():
            return [_without_nan(own) for own in value]
        case float() if not math.isfinite(value):
            return None
    return value


def _streams(run: dict[str, Any], live: dict[str, Any] | None) -> list[dict[str, Any]]:
    planned = {
        "darks": run["scan"].get("num_darks"),
        "flats": run["scan"].get("num_flats"),
        "primary": run["scan"].get("num_projections"),
    }
    books = run["frames"]["streams"]
    names = list(dict.fromkeys([*(name for name, n in planned.items() if n), *books]))
    return [_stream(name, books.get(name), planned.get(name), live) for name in names]


def _stream(
    name: str, plain: dict[str, Any] | None, planned: int | None, live: dict[str, Any] | None
) -> dict[str, Any]:
    books = SeriesBooks.from_dict(plain or {})
    counts = {count: getattr(books, count) for count in _COUNTS}
    begun = plain is not None
    if live is not None and live["stream"] == name:
        # The ledger is written now and then, the receiver knows at once.
        counts |= {count: max(counts[count], live.get(count, 0)) for count in _COUNTS}
        begun = True
    ended = live is None or live["stream"] != name or not live["armed"]
    return {
        "name": name,
        **counts,
        "planned": max(planned or 0, counts["expected"]),
        # Frames that may still come are not missing.
        "missing": books.num_missing if begun and ended else (live or {}).get("missing", 0),
        "incomplete": books.num_incomplete,
        "lost": str((plain or {}).get("missing", ""))[:200] if ended else "",
    }


def _stages(entries: list[dict[str, Any]], progress: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**entry, "done": done, "total": total}
        for entry in entries
        for done, total in [progress.get(entry["name"], (None, None))]
    ]


def _archive(folder: RunFolder) -> dict[str, Any] | None:
    if not folder.receipts.is_dir():
        return None
    try:
        receipt = Receipt.read(folder.path)
    except StorageError as error:
        logger.warning("%s", error)
        return None
    told = ("target", "host", "started", "finished", "num_files", "total_bytes")
    return {name: getattr(receipt, name) for name in told}
