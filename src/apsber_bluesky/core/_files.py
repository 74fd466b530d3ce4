"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from apsber_bluesky.core._errors import StorageError

PARTIAL_SUFFIX = ".partial"
_BLOCK_BYTES = 1 << 20


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable: a rename survives a power cut only after this."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the contents of a closed file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explain_disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn the operating system's disk errors into a `StorageError` that names the path.

    Parameters
    ----------
    path : Path
        What was being written.
    doing : str
        What for, as in ``"write the volume"``.

    Raises
    ------
    StorageError
        For a full, read-only, forbidden or broken place.
    """
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full; free space or choose another data root",
            errno.EDQUOT: "the disk quota is used up; free space or choose another data root",
            errno.EFBIG: "the file would be larger than the disk or a limit of the system allows",
            errno.EACCES: "permission denied; choose a data root that you may write to",
            errno.EPERM: "operation not permitted; choose a data root that you may write to",
            errno.EROFS: "the file system is read-only; choose another data root",
            errno.EEXIST: "something of that name is there already and is not overwritten",
            errno.ENOENT: "there is no such place; choose another data root",
            errno.ENOTDIR: "a part of the path is a file; choose another data root",
        }.get(error.errno or 0, str(error))
        raise StorageError(f"cannot {doing} at {path}: {advice}") from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file under a partial name; it takes its own name only when whole and durable.

    Yields
    ------
    Path
        The partial path to write to. It is removed when the body raises.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        sync_file(partial)
        partial.replace(path)
        sync_directory(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Fill a directory under a partial name; it takes its own name only when whole and durable.

    A directory that already has the name is replaced.

    Yields
    ------
    Path
        The partial directory, empty. It is removed when the body raises.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                sync_file(Path(folder) / name)
            sync_directory(Path(folder))
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
        sync_directory(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write plain values as an indented JSON file, whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def file_checksum(path: Path) -> str:
    """``"sha256:hex"`` of a file's bytes, as archives and manifests use it."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def tree_checksum(path: Path) -> str:
    """``"sha256:hex"`` over the relative names and checksums of all files of a directory."""
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_checksum(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """The values in C order as bytes; `memoryview.cast` refuses an empty array."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def array_checksum(array: NDArray[Any]) -> str:
    """``"xxh3_128:hex"`` of an array's dtype, shape and values in C order."""
    digest = xxhash.xxh3_128(f"{array.dtype.str}{array.shape}".encode())
    digest.update(_bytes_of(array))
    return f"xxh3_128:{digest.hexdigest()}"


class ArrayDigest:
    """`array_checksum` of an array that is only ever seen slab by slab, in C order."""

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._digest = xxhash.xxh3_128(f"{dtype.str}{shape}".encode())

    def update(self, slab: NDArray[Any]) -> None:
        """Add the next values."""
        self._digest.update(_bytes_of(slab))

    def checksum(self) -> str:
        """The checksum of everything added so far."""
        return f"xxh3_128:{self._digest.hexdigest()}"
