"""Open an HDF5 file again whose writer was killed.

A SWMR writer marks the file as open in its superblock, and a second writer is refused until
somebody clears the mark. HDF5's own tool for that, ``h5clear``, does not come with h5py. The
layout is that of version 3 in the "HDF5 File Format Specification Version 3.0", section II.A; its
checksum is Bob Jenkins' lookup3 (2006).
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Final

from apsber_bluesky.core import DataFileError, StorageError, explain_disk_errors

_SIGNATURE_3: Final = b"\x89HDF\r\n\x1a\n\x03"
_FLAGS_AT: Final = 11
_SWMR_WRITE: Final = 0x04

# signature and version; sizes of offsets and lengths, flags; four addresses; checksum
_LAYOUT: Final = struct.Struct("<9s3B4QI")
_END_OF_FILE: Final = 6
_MASK: Final = 0xFFFFFFFF
_ATTEMPTS: Final = 20
_POLL_S: Final = 0.001


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def lookup3(data: bytes) -> int:
    """Jenkins' lookup3 (``hashlittle``) of `data`, with initial value 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    blocks = max(-(-len(data) // 12), 1)
    words = struct.unpack(f"<{blocks * 3}I", data.ljust(blocks * 12, b"\0"))
    for block in range(blocks):
        a = (a + words[3 * block]) & _MASK
        b = (b + words[3 * block + 1]) & _MASK
        c = (c + words[3 * block + 2]) & _MASK
        if block == blocks - 1:
            break
        for bits in (4, 6, 8, 16, 19, 4):
            # One round turns (a, b, c) into (b, c, a); six of them mix all three.
            a = ((a - c) & _MASK) ^ _rotate(c, bits)
            c = (c + b) & _MASK
            a, b, c = b, c, a
    if data:
        for bits in (14, 11, 25, 16, 4, 14, 24):
            c = ((c ^ b) - _rotate(b, bits)) & _MASK
            a, b, c = b, c, a
        # Seven rounds leave the names turned by one.
        a, b, c = c, a, b
    return c


def grows(path: Path) -> bool:
    """Whether a SWMR writer has the file open, or ended without closing it.

    It stands in the superblock. Any other file is opened as usual, for then HDF5 notices when it
    was cut short; a SWMR reader gets zeros, without an error, or waits for ever, as it does when
    the superblock is damaged.

    Raises
    ------
    DataFileError
        If the superblock is damaged.
    """
    for _ in range(_ATTEMPTS):
        with path.open("rb") as stream:
            block = stream.read(_LAYOUT.size)
        if not block.startswith(_SIGNATURE_3) or not any(block[_FLAGS_AT : _FLAGS_AT + 1]):
            return False
        # With addresses of another size the checksum would stand elsewhere.
        whole = len(block) == _LAYOUT.size and block[_FLAGS_AT - 2 : _FLAGS_AT] == b"\x08\x08"
        if whole and lookup3(block[:-4]) == int.from_bytes(block[-4:], "little"):
            return bool(block[_FLAGS_AT] & _SWMR_WRITE)
        # Its writer may be at it just now.
        time.sleep(_POLL_S)
    raise DataFileError(f"{path} has a damaged superblock")


def release_dead_writer(path: Path) -> bool:
    """Clear the mark of a SWMR writer that no longer lives.

    The caller must know that it is dead. What it had flushed is kept; the file's end is set to
    where it really ends, for the superblock may be older than the last frames.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
        Whether there was such a mark.

    Raises
    ------
    StorageError
        If it is no HDF5 file with a superblock of version 3 and 8-byte addresses, its superblock
        is damaged, or it cannot be written.
    """
    with explain_disk_errors(path, "release the frame spool"), path.open("r+b") as file:
        block = file.read(_LAYOUT.size)
        if len(block) < _LAYOUT.size or not block.startswith(_SIGNATURE_3):
            raise StorageError(f"{path} is no HDF5 file with a superblock of version 3")
        fields = list(_LAYOUT.unpack(block))
        if fields[1:3] != [8, 8]:
            raise StorageError(f"{path} has addresses of {fields[1]} and {fields[2]} bytes, not 8")
        if lookup3(block[:-4]) != fields[-1]:
            raise StorageError(f"{path} has a damaged superblock")
        marked = bool(fields[3])
        fields[3] = 0
        fields[_END_OF_FILE] = max(fields[_END_OF_FILE], os.fstat(file.fileno()).st_size)
        body = _LAYOUT.pack(*fields)[:-4]
        file.seek(0)
        file.write(body + struct.pack("<I", lookup3(body)))
    return marked
