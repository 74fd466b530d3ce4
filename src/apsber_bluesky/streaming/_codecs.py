"""How compressed pixels are checked, decoded, encoded, and stored as they came.

The framing is that of the HDF5 filters, which is also what an EIGER sends: bitshuffle with LZ4
(filter 32008; Masui et al., Astronomy and Computing 12, 2015) and LZ4 (filter 32004).
"""

from __future__ import annotations

import struct
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.streaming._series_messages import MAXIMUM_FRAME_BYTES, Codec

CODECS: Final[tuple[Codec, ...]] = get_args(Codec)

_HEADER: Final = struct.Struct(">QI")
_LENGTH: Final = struct.Struct(">I")
# Neither code makes a frame much larger; with blocks of one byte each, most of it is lengths.
_MAXIMUM_OVERHEAD_BYTES: Final = 64
_BITSHUFFLE_FILTER: Final = 32008
_BITSHUFFLE_LZ4: Final = 2
_LZ4_FILTER: Final = 32004
_BITSHUFFLE_ELEMENTS: Final = 8  # bitshuffle works on this many elements at a time


def check_encoded(pixels: memoryview, codec: Codec, *, frame_bytes: int, itemsize: int) -> None:
    """Check that the blocks of an encoded frame are those of a frame of this size.

    Only the framing is read: the size in the header, the size of the blocks, and the length of
    each block, which together must fill the bytes exactly. Whether the content of a block is what
    the detector meant, no code can tell: there is no checksum in these formats.

    Parameters
    ----------
    pixels : memoryview
        The encoded frame.
    codec : {"none", "bslz4", "lz4"}
        How it is encoded.
    frame_bytes : int
        Size of the decoded frame [byte].
    itemsize : int
        Size of a pixel [byte].

    Raises
    ------
    FrameError
        If the frame is of another size, cut short, or followed by other bytes.
    """
    size = len(pixels)
    if codec == "none":
        if size != frame_bytes:
            raise FrameError(f"data: {size} bytes of pixels, not {frame_bytes}")
        return
    if size > 2 * frame_bytes + _MAXIMUM_OVERHEAD_BYTES:
        raise FrameError(f"data: {size} bytes of {codec} for a frame of {frame_bytes}")
    if size < _HEADER.size:
        raise FrameError(f"data: {size} bytes of {codec} are too few for a header")
    raw_bytes, block_bytes = _HEADER.unpack_from(pixels)
    if raw_bytes != frame_bytes:
        raise FrameError(f"data: {codec} header says {raw_bytes} bytes, not {frame_bytes}")
    if codec == "lz4":
        if not block_bytes:
            raise FrameError("data: lz4 block size is 0")
        blocks, rest = -(-frame_bytes // block_bytes), 0
    else:
        step = _BITSHUFFLE_ELEMENTS * itemsize
        if not block_bytes or block_bytes % step:
            raise FrameError(
                f"data: bslz4 block size {block_bytes} is not a multiple of {step} bytes"
            )
        # Whole groups of 8 elements are compressed; what is left over follows as it is.
        rest = frame_bytes % step
        blocks = -(-(frame_bytes - rest) // block_bytes)
    _check_blocks(pixels, codec, blocks, rest)


def _check_blocks(pixels: memoryview, codec: Codec, blocks: int, rest: int) -> None:
    size = len(pixels)
    # Each block has a length and a byte at least, so a huge count is refused at once.
    if blocks * (_LENGTH.size + 1) + rest > size - _HEADER.size:
        raise FrameError(f"data: {size} bytes of {codec} are too few for {blocks} blocks")
    place, unpack, step = _HEADER.size, _LENGTH.unpack_from, _LENGTH.size
    last = size - step
    for block in range(blocks):
        if place > last:
            raise FrameError(f"data: {codec} block {block} of {blocks} is cut short")
        (length,) = unpack(pixels, place)
        if not length:
            raise FrameError(f"data: {codec} block {block} of {blocks} is empty")
        place += step + length
    if place + rest != size:
        raise FrameError(f"data: {codec} blocks end at byte {place + rest} of {size}")


def decode(
    pixels: bytes | memoryview,
    codec: Codec,
    *,
    rows: int,
    columns: int,
    dtype: str,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Decode the pixels of one frame.

    Parameters
    ----------
    pixels : bytes-like
        The frame as it left the detector.
    codec : {"none", "bslz4", "lz4"}
        How it is encoded.
    rows, columns : int
        Frame size [pixel].
    dtype : str
        NumPy dtype string of the pixels.
    out : ndarray, shape (rows, columns), optional
        Where to put them, C-contiguous and of `dtype`; a new array if not given.

    Returns
    -------
    ndarray, shape (rows, columns)
        The pixels; `out` if that was given, else read-only.

    Raises
    ------
    FrameError
        If the bytes are not a frame of this size in this encoding.
    InputError
        If `out` does not fit.
    """
    shape, kind = (rows, columns), np.dtype(dtype)
    frame_bytes = rows * columns * kind.itemsize
    if min(rows, columns) < 1 or frame_bytes > MAXIMUM_FRAME_BYTES:
        raise FrameError(f"frame of {rows} x {columns} {dtype} is not 1..{MAXIMUM_FRAME_BYTES} B")
    if out is not None and not (
        out.shape == shape and out.dtype == kind and out.flags.c_contiguous
    ):
        raise InputError(f"out is {out.dtype.str} {out.shape}, not C-contiguous {dtype} {shape}")
    view = memoryview(pixels).cast("B")
    check_encoded(view, codec, frame_bytes=frame_bytes, itemsize=kind.itemsize)
    raw = view if codec == "none" else _decompress(view, codec, kind.itemsize)
    if len(raw) != frame_bytes:
        raise FrameError(f"data: {codec} decodes to {len(raw)} bytes, not {frame_bytes}")
    decoded = np.frombuffer(raw, kind).reshape(shape)
    if out is None:
        decoded.flags.writeable = False
        return decoded
    np.copyto(out, decoded)
    return out


def _decompress(pixels: memoryview, codec: Codec, itemsize: int) -> bytes:
    try:
        # The detector maker's own decoder takes a third of the time, but must be compiled where it
        # is installed (extra "eiger"). It is not needed by who only stores frames.
        from dectris.compression import decompress
    except ImportError:
        return _decompress_with_hdf5(pixels, codec, itemsize)
    try:
        raw: bytes = decompress(pixels, codec, elem_size=itemsize)
    # The library has no exception of its own; a broken block is a RuntimeError or a ValueError.
    except (RuntimeError, ValueError) as error:
        raise FrameError(f"data: {codec} cannot be decoded: {error}") from error
    return raw


def _decompress_with_hdf5(pixels: memoryview, codec: Codec, itemsize: int) -> bytes:
    import h5py

    frame_bytes, _ = _HEADER.unpack_from(pixels)
    dtype = f"<u{itemsize}"
    shape = (frame_bytes // itemsize,)
    # In memory only; the name is not that of a file.
    with h5py.File("decode", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset(
            "data", shape, dtype, chunks=shape, **hdf5_filter(codec, dtype)
        )
        dataset.id.write_direct_chunk((0,), pixels)
        try:
            raw: bytes = dataset[:].tobytes()
        except OSError as error:
            raise FrameError(f"data: {codec} cannot be decoded: {error}") from error
    return raw


def encode(array: NDArray[Any], codec: Codec) -> bytes:
    """Encode an array as one HDF5 chunk.

    Parameters
    ----------
    array : ndarray
        The pixels.
    codec : {"none", "bslz4", "lz4"}
        How to encode them.

    Returns
    -------
    bytes
        What `decode` reads, and what `hdf5_filter` lets a file hold.
    """
    if codec == "none":
        return array.tobytes()
    import h5py

    # In memory only; the name is not that of a file.
    with h5py.File("encode", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset(
            "data", data=array, chunks=array.shape, **hdf5_filter(codec, array.dtype.str)
        )
        skipped, chunk = dataset.id.read_direct_chunk((0,) * array.ndim)
    if skipped:
        raise FrameError(f"{array.dtype.str} {array.shape} cannot be encoded as {codec}")
    return bytes(chunk)


def hdf5_filter(codec: Codec, dtype: str) -> dict[str, Any]:
    """What ``h5py.Group.create_dataset`` needs for chunks written by ``write_direct_chunk``.

    Parameters
    ----------
    codec : {"none", "bslz4", "lz4"}
        How the chunks are encoded. One dataset holds one codec.
    dtype : str
        NumPy dtype string of the dataset.

    Returns
    -------
    dict
        Keyword arguments. The size of the blocks stands in each chunk, so any is read right.

    Raises
    ------
    InputError
        If the codec is unknown, or has no meaning for the dtype.
    """
    if codec not in CODECS:
        raise InputError(f"codec {codec!r} is not one of {', '.join(CODECS)}")
    if np.dtype(dtype).byteorder == ">":
        raise InputError(f"dtype {dtype} is big-endian; frames are stored little-endian")
    if codec == "none":
        return {}
    import hdf5plugin

    filters = {"bslz4": lambda: hdf5plugin.Bitshuffle(cname="lz4"), "lz4": hdf5plugin.LZ4}
    return dict(filters[codec]())


def stored_codec(dataset: Any) -> Codec | None:
    """How the frames of a dataset are encoded, if each is a chunk that `decode` can read.

    Parameters
    ----------
    dataset : h5py.Dataset
        Frames, shape ``(n, rows, columns)``.

    Returns
    -------
    {"bslz4", "lz4"} or None
        None for any other filter, and for chunks of another form; HDF5 reads those.
    """
    if dataset.chunks != (1, *dataset.shape[1:]):
        return None
    plist = dataset.id.get_create_plist()
    if plist.get_nfilters() != 1:
        return None
    number, _, values, _ = plist.get_filter(0)
    if number == _LZ4_FILTER:
        return "lz4"
    # Version twice, pixel size, block size, compressor.
    is_lz4 = number == _BITSHUFFLE_FILTER and len(values) > 4 and values[4] == _BITSHUFFLE_LZ4
    return "bslz4" if is_lz4 else None


def frame_lz4_block(block: memoryview, frame_bytes: int) -> bytes:
    """Put a raw LZ4 block into the framing of the HDF5 filter, without compressing again.

    Parameters
    ----------
    block : memoryview
        The whole frame as one LZ4 block (LZ4 block format description 1.6).
    frame_bytes : int
        Size of the decoded frame [byte].

    Returns
    -------
    bytes
        The frame, encoded as ``"lz4"``. The block is not decoded, so it is not checked either.

    Raises
    ------
    FrameError
        If the block is empty, or is as long as the frame, so that it has to be decoded, and
        cannot be.
    """
    if not block:
        raise FrameError("data: lz4 block is empty")
    content: bytes | memoryview = block
    if len(block) == frame_bytes:
        # The filter takes a block of just the decoded size for one that is not compressed.
        content = _decode_lz4_block(block, frame_bytes)
    return b"".join([_HEADER.pack(frame_bytes, frame_bytes), _LENGTH.pack(len(content)), content])


def _decode_lz4_block(block: memoryview, frame_bytes: int) -> bytes:
    """Decode a block that is as long as what it decodes to.

    A block ends in literals, so it may be continued: a match of 4 bytes and 12 literals make it
    longer than 1 and its content longer by 16, and the two lengths differ.
    """
    longer = bytes(block) + b"\x01\x00\xc0" + bytes(12)
    framed = _HEADER.pack(frame_bytes + 16, frame_bytes + 16) + _LENGTH.pack(len(longer)) + longer
    return _decompress(memoryview(framed), "lz4", 1)[:frame_bytes]
