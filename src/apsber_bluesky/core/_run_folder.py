"""A run on disk: one folder, fixed names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from apsber_bluesky.core._errors import InputError, StorageError
from apsber_bluesky.core._files import explain_disk_errors
from apsber_bluesky.core._ledger import began_s

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_folder_name(value: str, what: str) -> str:
    """Refuse names that could leave the data root.

    Raises
    ------
    InputError
        If `value` is anything but letters, digits, ``.``, ``_`` and ``-``.
    """
    if not _SAFE_NAME.fullmatch(value):
        raise InputError(
            f"{what} {value!r} cannot name a folder; use letters, digits, '.', '_' and '-'"
        )
    return value


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, ``<data root>/<proposal>/<run uid>/``."""

    path: Path

    @classmethod
    def of(cls, data_root: Path, proposal: str, run_uid: str) -> Self:
        """Name the folder of a run, without touching the disk."""
        check_folder_name(proposal, "proposal")
        check_folder_name(run_uid, "run uid")
        return cls(data_root / proposal / run_uid)

    def create(self) -> Self:
        """Make the folder.

        Raises
        ------
        StorageError
            If the place is full, forbidden or read-only.
        """
        with explain_disk_errors(self.path, "create the run folder"):
            self.path.mkdir(parents=True, exist_ok=True)
        return self

    @property
    def uid(self) -> str:
        """Bluesky run uid."""
        return self.path.name

    @property
    def proposal(self) -> str:
        """Proposal that the run belongs to."""
        return self.path.parent.name

    @property
    def raw(self) -> Path:
        """Frames as they left the detector (HDF5)."""
        return self.path / "raw.h5"

    def raw_of(self, detector: str) -> Path:
        """Frames of a detector that has a spool of its own; of the others if it has no name."""
        if not detector:
            return self.raw
        return self.path / f"raw_{check_folder_name(detector, 'detector')}.h5"

    @property
    def nexus(self) -> Path:
        """The NeXus record (HDF5)."""
        return self.path / "run.nxs"

    @property
    def volume(self) -> Path:
        """The reconstructed volume (OME-Zarr)."""
        return self.product("volume")

    @property
    def denoised(self) -> Path:
        """The volume without its noise, as a network sees it (OME-Zarr)."""
        return self.product("denoised")

    @property
    def labels(self) -> Path:
        """Class of each voxel (OME-Zarr image-label)."""
        return self.product("labels")

    @property
    def uncertainty(self) -> Path:
        """How unsure the labels are, 0 to 1 (OME-Zarr)."""
        return self.product("uncertainty")

    @property
    def probabilities(self) -> Path:
        """Probability of each class (OME-Zarr with a channel for each)."""
        return self.product("probabilities")

    @property
    def quantities(self) -> Path:
        """What was measured on the labels (JSON)."""
        return self.path / "quantities.json"

    @property
    def inference(self) -> Path:
        """What other models say, if that is no image (JSON)."""
        return self.path / "inference.json"

    def product(self, name: str) -> Path:
        """A volume by its name, such as ``volume``, ``denoised`` or ``labels`` (OME-Zarr)."""
        return self.path / f"{check_folder_name(name, 'product')}.zarr"

    @property
    def ledger(self) -> Path:
        """Frames and stages: expected, seen, used, done (SQLite)."""
        return self.path / "ledger.sqlite"

    @property
    def quality(self) -> Path:
        """Quality numbers and verdicts (JSON)."""
        return self.path / "quality.json"

    @property
    def figures(self) -> Path:
        """Pictures (PNG)."""
        return self.path / "figures"

    @property
    def receipts(self) -> Path:
        """One receipt per copy, with checksums (JSON)."""
        return self.path / "receipts"


def iter_runs(data_root: Path) -> Iterator[RunFolder]:
    """Find the runs below a data root, oldest first."""
    for ledger in sorted(_ledgers(data_root), key=lambda p: (began_s(p), p.parent.name)):
        yield RunFolder(ledger.parent)


def _ledgers(data_root: Path) -> list[Path]:
    return list(data_root.glob("*/*/ledger.sqlite"))


def find_run(data_root: Path, run: str) -> RunFolder:
    """Find a run by its uid, the beginning of it, or ``latest``.

    Raises
    ------
    StorageError
        If there is no such run, or several uids begin so.
    """
    if run == "latest" and (runs := list(iter_runs(data_root))):
        return runs[-1]
    folders = [RunFolder(ledger.parent) for ledger in _ledgers(data_root)]
    found = [folder for folder in folders if folder.uid.startswith(run)]
    if not found:
        raise StorageError(
            f"no run {run!r} below {data_root} ({len(folders)} runs there); see 'apsber status'"
        )
    if len(found) > 1:
        raise StorageError(
            f"{len(found)} runs below {data_root} begin with {run!r}; give more of the uid"
        )
    return found[0]
