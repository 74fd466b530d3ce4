"""Copy one file so that it is known to be on the other disk: read it back and compare."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from apsber_bluesky.core import Cancellation, RunCancelled, StorageError, atomic_file
from apsber_bluesky.storage._receipt import ReceiptFile

_BLOCK_BYTES = 4 << 20

ArchiveProgress = Callable[[str, int, int], None]
"""Called with ("archive", bytes done, bytes in all); reading back counts as well as copying."""


class CopyJob:
    """Progress and cancellation of one archive run."""

    def __init__(
        self, total: int, progress: ArchiveProgress | None, cancelled: Cancellation | None
    ) -> None:
        self._total, self._done = total, 0
        self._progress, self._cancelled = progress, cancelled

    def advance(self, count: int) -> None:
        """Count bytes, tell the caller, and stop if asked to."""
        if self._cancelled is not None and self._cancelled.is_set():
            raise RunCancelled("archiving was cancelled; start it again to complete the copy")
        self._done += count
        if self._progress is not None:
            self._progress("archive", self._done, self._total)


def file_identity(status: os.stat_result) -> tuple[int, int, int]:
    """What is the same as long as nobody changes a file: inode, size, time of change."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def secure_file(
    source: Path, target: Path, name: str, status: os.stat_result, job: CopyJob
) -> ReceiptFile:
    """Have one file in the archive, read back and compared.

    A copy that is there already and holds the same is left as it is.

    Raises
    ------
    StorageError
        If the file changed while it was copied, or the copy reads back as something else.
    RunCancelled
        If the job was cancelled.
    """
    here, there = source / name, target / name
    if there.is_file() and there.stat().st_size == status.st_size:
        checksum = _digest(here, job)
        if _digest(there, job, from_disk=True) == checksum:
            return ReceiptFile(path=name, size=status.st_size, sha256=checksum)
        job.advance(-2 * status.st_size)
    with atomic_file(there) as partial:
        checksum = _copy(here, partial, job)
        if file_identity(here.stat()) != file_identity(status):
            raise StorageError(
                f"{here} changed while it was copied; wait until the run is finished and"
                " archive it again"
            )
        if (found := _digest(partial, job, from_disk=True)) != checksum:
            raise StorageError(
                f"the copy {there} reads back as sha256 {found}, not {checksum}: its disk"
                " does not keep what is written to it; replace it and archive again"
            )
    return ReceiptFile(path=name, size=status.st_size, sha256=checksum)


def _copy(here: Path, partial: Path, job: CopyJob) -> str:
    digest = hashlib.sha256()
    with here.open("rb", buffering=0) as reader, partial.open("wb", buffering=0) as writer:
        for block in _blocks(reader):
            digest.update(block)
            rest = memoryview(block)
            while rest:
                rest = rest[writer.write(rest) :]
            job.advance(len(block))
        os.fsync(writer.fileno())
    return digest.hexdigest()


def _digest(path: Path, job: CopyJob | None = None, *, from_disk: bool = False) -> str:
    """SHA-256 of a file; `from_disk` drops it from the page cache first, if the system can."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as reader:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.fdatasync(reader.fileno())
            os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for block in _blocks(reader):
            digest.update(block)
            if job is not None:
                job.advance(len(block))
    return digest.hexdigest()


def _blocks(reader: io.FileIO) -> Iterator[bytes]:
    while block := reader.read(_BLOCK_BYTES):
        yield block


def find_problems(place: Path, files: Sequence[ReceiptFile]) -> list[str]:
    """Read files of a copy and say what is wrong with each, one line a file."""
    problems = []
    for entry in files:
        path = place / entry.path
        try:
            size = path.stat().st_size
            if size != entry.size:
                problems.append(f"{path} has {size} bytes instead of {entry.size}")
            elif (checksum := _digest(path, from_disk=True)) != entry.sha256:
                problems.append(f"{path} has sha256 {checksum} instead of {entry.sha256}")
        except FileNotFoundError:
            problems.append(f"{path} is missing")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}")
    return problems
