"""Ask the file system for room ahead of the frames, and give it back."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.core import StorageError

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_NOT_SUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS)
_BLOCK: Final = 1 << 20
_FREE_SPACE_FACTOR: Final = 1.05


@cache
def _fallocate() -> Any:
    """Linux' ``fallocate``; `os.posix_fallocate` would write blocks where it is not supported."""
    if not sys.platform.startswith("linux"):
        return None
    call = ctypes.CDLL(None, use_errno=True).fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return call


def _try(descriptor: int, mode: int, offset: int, size: int) -> bool:
    call = _fallocate()
    if call is None:
        return False
    while call(descriptor, mode, offset, size):
        code = ctypes.get_errno()
        if code in _NOT_SUPPORTED:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def reserve(descriptor: int, offset: int, size: int) -> None:
    """Take blocks for a part of a file; its size stays. Nothing where that is not supported.

    Raises
    ------
    OSError
        If there is no room for it.
    """
    _try(descriptor, _KEEP_SIZE, offset, size)


def blank(descriptor: int, offset: int, size: int) -> None:
    """Make a part of a file read as zeros, and give its blocks back where that is supported.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    if _try(descriptor, _KEEP_SIZE | _PUNCH_HOLE, offset, size):
        return
    for begin in range(offset, offset + size, _BLOCK):
        os.pwrite(descriptor, bytes(min(_BLOCK, offset + size - begin)), begin)


def check_space(data_root: Path, needed: int) -> None:
    """Refuse a series that will not fit the disk.

    Raises
    ------
    StorageError
        If so, or the data root cannot be used.
    """
    try:
        data_root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(data_root).free
    except OSError as error:
        raise StorageError(
            f"cannot use data root {data_root}: {error.strerror}; choose another"
        ) from error
    if needed * _FREE_SPACE_FACTOR > free:
        raise StorageError(
            f"the series needs {needed / 1e9:.2f} GB, {data_root} has"
            f" {free / 1e9:.2f} GB free; free space or choose another data root"
        )
