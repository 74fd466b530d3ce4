"""A second copy of a run, read back from its disk and compared before anybody relies on it."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from apsber_bluesky._version import __version__
from apsber_bluesky.core import (
    PARTIAL_SUFFIX,
    PROGRAM,
    Cancellation,
    RunFolder,
    StorageError,
    atomic_file,
    explain_disk_errors,
    sync_directory,
    write_json,
)
from apsber_bluesky.storage._receipt import RECEIPT_NAME, RECEIPTS_FOLDER, Receipt, ReceiptFile
from apsber_bluesky.storage._verified_copy import (
    ArchiveProgress,
    CopyJob,
    file_identity,
    find_problems,
    secure_file,
)

MANIFEST_NAME = "manifest-sha256.txt"


def archive_run(
    folder: RunFolder,
    archive_root: Path,
    *,
    progress: ArchiveProgress | None = None,
    cancelled: Cancellation | None = None,
) -> Receipt:
    """Make a verified second copy of a run in ``<archive_root>/<proposal>/<run uid>/``.

    Every file is copied under a partial name, flushed to disk, read back and compared before it
    takes its own name. The ledger, the receipts and partial files are not copied. Files that are
    there already are read back and compared instead of copied, so it may be repeated. Nothing is
    ever deleted from the archive.

    Parameters
    ----------
    folder : RunFolder
        The run.
    archive_root : Path
        Where second copies are kept; outside the run folder.
    progress : callable, optional
        Called with ("archive", bytes done, bytes in all).
    cancelled : Cancellation, optional
        Asked between blocks whether to stop.

    Returns
    -------
    Receipt
        Also written to ``receipts/archive.json`` of the run and of its copy, which has a
        ``manifest-sha256.txt`` for ``sha256sum --check`` too.

    Raises
    ------
    StorageError
        If the run is not there, the place is full, unwritable or inside the run folder, a file
        changed while it was copied, or what was read back differs.
    RunCancelled
        If `cancelled` was set; no partial file is left.
    """
    started = _now()
    source = folder.path
    target = RunFolder.of(archive_root, folder.proposal, folder.uid).path
    _check_places(source, target)
    files = _survey(source)
    job = CopyJob(2 * sum(status.st_size for status in files.values()), progress, cancelled)
    with explain_disk_errors(target, "archive the run"):
        entries = [secure_file(source, target, name, files[name], job) for name in files]
        _check_unchanged(source, files)
        entries = sorted([*entries, *_kept(target, set(files))], key=lambda entry: entry.path)
        receipt = Receipt(
            run_uid=folder.uid,
            proposal=folder.proposal,
            source=str(source.resolve()),
            target=str(target.resolve()),
            host=platform.node(),
            program=PROGRAM,
            version=__version__,
            started=started,
            finished=_now(),
            num_files=len(entries),
            total_bytes=sum(entry.size for entry in entries),
            files=tuple(entries),
        )
        _seal(target, receipt)
    with explain_disk_errors(source, "write the receipt"):
        write_json(folder.receipts / RECEIPT_NAME, receipt.model_dump(mode="json"))
    return receipt


def verify_copy(receipt: Receipt | Path) -> list[str]:
    """Read every file of a copy and compare it with its receipt.

    Parameters
    ----------
    receipt : Receipt or Path
        The receipt, its file, or the folder of a run or of its copy. A receipt that lies in a
        copy is held against that copy, wherever it is now.

    Returns
    -------
    list of str
        What is wrong, one line a file; empty if all is well.

    Raises
    ------
    StorageError
        If there is no readable receipt.
    """
    if isinstance(receipt, Receipt):
        return find_problems(Path(receipt.target), receipt.files)
    found = Receipt.read(receipt)
    place = receipt.resolve() if receipt.is_dir() else receipt.resolve().parent.parent
    is_copy = (place / MANIFEST_NAME).is_file()
    return find_problems(place if is_copy else Path(found.target), found.files)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _check_places(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise StorageError(f"no run folder {source}; nothing to archive")
    real_source, real_target = source.resolve(), target.resolve()
    if real_target.is_relative_to(real_source) or real_source.is_relative_to(real_target):
        raise StorageError(
            f"the archive {target} and the run folder {source} lie inside each other;"
            " choose an archive root outside the data root"
        )


def _survey(source: Path) -> dict[str, os.stat_result]:
    """List the files to copy, sorted by relative path."""
    files = {}
    for path in _walk(source):
        name = path.relative_to(source).as_posix()
        first = name.split("/", 1)[0]
        if first == RECEIPTS_FOLDER or first.startswith("ledger.sqlite"):
            continue
        if any(part.endswith(PARTIAL_SUFFIX) for part in name.split("/")):
            continue
        if path.is_symlink() or not path.is_file():
            raise StorageError(
                f"{path} is a link or no file, which an archive cannot hold; move it"
            )
        files[name] = path.stat()
    return dict(sorted(files.items()))


def _walk(source: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise StorageError(f"cannot list {error.filename}: {error.strerror}") from error

    for place, folders, names in os.walk(source, onerror=refuse):
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        yield from (Path(place) / name for name in [*names, *linked])


def _check_unchanged(source: Path, before: dict[str, os.stat_result]) -> None:
    after = _survey(source)
    changed = sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before
        or name not in after
        or file_identity(before[name]) != file_identity(after[name])
    )
    if changed:
        raise StorageError(
            f"{', '.join(changed[:5])} in {source} changed while the run was archived;"
            " wait until the run is finished and archive it again"
        )


def _kept(target: Path, names: set[str]) -> list[ReceiptFile]:
    """Files that an earlier receipt of this copy lists and the run folder has no longer."""
    if not (target / RECEIPTS_FOLDER / RECEIPT_NAME).is_file():
        return []
    kept = tuple(entry for entry in Receipt.read(target).files if entry.path not in names)
    if problems := find_problems(target, kept):
        raise StorageError(
            f"the archive {target} no longer holds what its receipt says: {'; '.join(problems)}"
        )
    return list(kept)


def _seal(target: Path, receipt: Receipt) -> None:
    """Write manifest and receipt, and make the names of all files durable."""
    with atomic_file(target / MANIFEST_NAME) as partial:
        lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in receipt.files)
        partial.write_text(lines, encoding="utf-8")
    write_json(target / RECEIPTS_FOLDER / RECEIPT_NAME, receipt.model_dump(mode="json"))
    for folder, _, _ in os.walk(target):
        sync_directory(Path(folder))
    for place in (target.parent, target.parent.parent):
        sync_directory(place)
