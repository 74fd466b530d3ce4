"""The runs of a data root, read again only when something of them has changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import (
    ApsberError,
    InputError,
    RunFolder,
    StorageError,
    check_folder_name,
    describe_run,
)

Description = dict[str, Any]

FACTS: Final = (
    "uid",
    "proposal",
    "scan_id",
    "plan_name",
    "sample",
    "technique",
    "detectors",
    "start_time_s",
    "state",
    "reason",
)
_SEARCHED: Final = ("uid", "proposal", "scan_id", "plan_name", "sample", "technique", "state")
#: What a ledger or quality numbers that somebody else has written may lead to.
_STRANGE: Final = (TypeError, ValueError, KeyError, AttributeError)
#: Files whose change means that there is something new to tell.
_TELLING: Final = ("ledger.sqlite", "ledger.sqlite-wal", "quality.json", "receipts", "figures", ".")


@dataclass(frozen=True, slots=True)
class _Known:
    signature: tuple[int, ...]
    summary: Description


class RunIndex:
    """Look after the runs below a data root; nothing there is changed.

    Parameters
    ----------
    data_root : Path
        The data root; need not be there yet.
    """

    def __init__(self, data_root: Path) -> None:
        self._root = data_root
        self._known: dict[str, _Known] = {}
        self._folders: dict[str, RunFolder] = {}
        self._ordered: list[Description] = []

    def refresh(self) -> bool:
        """Look again; whether anything is new."""
        root = self._root.resolve()
        ledgers = root.glob("*/*/ledger.sqlite")
        folders = {folder.uid: folder for folder in map(_folder, ledgers) if _is_in(folder)}
        changed = folders.keys() != self._folders.keys()
        known: dict[str, _Known] = {}
        for uid, folder in folders.items():
            signature, old = _signature(folder), self._known.get(uid)
            if old is None or old.signature != signature:
                changed, old = True, _Known(signature, _summary(folder))
            known[uid] = old
        if changed:
            self._known, self._folders = known, folders
            summaries = (own.summary for own in known.values())
            self._ordered = sorted(summaries, key=lambda s: s["start_time_s"] or 0, reverse=True)
        return changed

    @property
    def newest(self) -> list[Description]:
        """Summaries of all runs, the newest first."""
        return self._ordered

    def has(self, uid: str) -> bool:
        """Whether a run was found."""
        return uid in self._folders

    def folder(self, uid: str) -> RunFolder:
        """The folder of a run that was found; what a request names never makes a path.

        Raises
        ------
        StorageError
            If there is no such run.
        """
        folder = self._folders.get(uid)
        if folder is None:
            raise StorageError("there is no such run")
        return folder

    def search(self, text: str) -> list[Description]:
        """Runs in which each word of `text` occurs, the newest first."""
        words = text.lower().split()
        return [run for run in self._ordered if all(word in _searched(run) for word in words)]


def _folder(ledger: Path) -> RunFolder:
    return RunFolder(ledger.parent)


def _is_in(folder: RunFolder) -> bool:
    """Whether a folder is named as runs are, and lies where it seems to: in the data root."""
    try:
        check_folder_name(folder.uid, "run uid")
        check_folder_name(folder.proposal, "proposal")
    except InputError:
        return False
    return not (folder.path.is_symlink() or folder.path.parent.is_symlink())


def _signature(folder: RunFolder) -> tuple[int, ...]:
    numbers: list[int] = []
    place = str(folder.path)
    for name in _TELLING:
        try:
            # Thousands of runs are looked at again and again.
            status = os.stat(f"{place}/{name}")  # noqa: PTH116
        except OSError:
            numbers += (0, 0)
        else:
            numbers += (status.st_mtime_ns, status.st_size)
    return tuple(numbers)


def _summary(folder: RunFolder) -> Description:
    """What a list of runs tells; a run that cannot be read must not hide the others."""
    try:
        run = describe_run(folder)
    except (ApsberError, *_STRANGE) as error:
        nothing: Description = {
            **dict.fromkeys(FACTS),
            "detectors": [],
            "frames": {},
            "verdict": None,
        }
        found = {"uid": folder.uid, "proposal": folder.proposal}
        return {**nothing, **found, "state": "unreadable", "reason": str(error)}
    totals = ("expected", "written", "used", "num_missing", "num_incomplete")
    return {
        **{name: run[name] for name in FACTS},
        "frames": {name: run["frames"].get(name, 0) for name in totals},
        "verdict": run["quality"].get("verdict"),
        "archived": "receipt" in run["products"],
    }


def _searched(run: Description) -> str:
    texts = [str(run[name]) for name in _SEARCHED if run[name] is not None]
    return " ".join([*texts, str(run["verdict"] or ""), *map(str, run["detectors"])]).lower()
