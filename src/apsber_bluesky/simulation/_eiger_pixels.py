"""Pixels as an EIGER compresses them, in blocks of 8 KiB.

Written without the receiver's code, so that one mistake cannot be made at both ends.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

EigerCodec = Literal["none", "bslz4", "lz4"]

BLOCK_BYTES: Final = 8192
_HDF5_HEADER: Final = 16  # size of the frame and of the blocks, length of the first block
_LITERALS: Final = 15


def compress(array: NDArray[Any], codec: EigerCodec) -> bytes:
    """Compress an image with the framing of the HDF5 filters."""
    if codec == "none":
        return array.tobytes()
    if codec == "bslz4":
        elements = BLOCK_BYTES // array.itemsize
        return _chunk(array, hdf5plugin.Bitshuffle(nelems=elements, cname="lz4"))
    return _chunk(array, hdf5plugin.LZ4(nbytes=BLOCK_BYTES))


def compress_block(array: NDArray[Any]) -> bytes:
    """Compress an image to one raw LZ4 block, as the legacy stream does."""
    chunk = _chunk(array, hdf5plugin.LZ4(nbytes=array.nbytes))
    block = chunk[_HDF5_HEADER:]
    # The filter leaves as it is what it cannot make smaller; that is no LZ4 block yet.
    return _literals(block) if len(block) == array.nbytes else block


def _literals(content: bytes) -> bytes:
    if len(content) < _LITERALS:
        return bytes([len(content) << 4]) + content
    full, rest = divmod(len(content) - _LITERALS, 255)
    return bytes([_LITERALS << 4]) + b"\xff" * full + bytes([rest]) + content


def _chunk(array: NDArray[Any], options: Any) -> bytes:
    whole = np.ascontiguousarray(array)
    with h5py.File("pixels", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset("data", data=whole, chunks=whole.shape, **options)
        return bytes(dataset.id.read_direct_chunk((0,) * whole.ndim)[1])
