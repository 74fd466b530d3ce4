"""The pixels of an NTNDArray: which codec, which type, which shape."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._codecs import decode
from apsber_bluesky.streaming._series_messages import (
    DTYPES,
    MAXIMUM_FRAME_BYTES,
    MAXIMUM_PIXELS_PER_SIDE,
    Codec,
)

# pvData's codes of scalar types, as codec.parameters holds them.
_DTYPE_OF_CODE: Final = dict(
    enumerate(["|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f4", "<f8"], start=1)
)
_DTYPE_OF_SIZE: Final = {1: "|u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_BITSHUFFLE_BLOCK_BYTES: Final = 8192


def read_integer(value: Any, low: int, high: int) -> int:
    """An integer in a range.

    Raises
    ------
    TypeError, ValueError
        If it is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{value!r:.80} is not an integer")
    if not low <= value <= high:
        raise ValueError(f"{value!r:.80} is not in {low}..{high}")
    return int(value)


@dataclass(frozen=True, slots=True)
class PixelForm:
    """What an update says of its pixels.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    dtype : str
        NumPy dtype string, little-endian.
    codec : str
        How they are compressed; empty if they are not.
    """

    shape: tuple[int, int]
    dtype: str
    codec: str

    @property
    def frame_bytes(self) -> int:
        """Size of the decoded frame [byte]."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


def read_form(value: Any) -> PixelForm:
    """Read what an update says of its pixels; nothing is decoded.

    Parameters
    ----------
    value : p4p.Value
        The NTNDArray, not unwrapped.

    Raises
    ------
    FrameError
        If that makes no sense, or frames would be too large.
    TypeError, KeyError, ValueError, ...
        If the structure is not that of an NTNDArray.
    """
    data = value["value"]
    if not isinstance(data, np.ndarray) or data.ndim != 1:
        raise FrameError("it holds no array")
    shape = _shape(value["dimension"])
    codec = value["codec"]["name"]
    # The codec's name decides: compressedSize stays at what it was when a codec is taken off.
    if codec == "":
        dtype = data.dtype.newbyteorder("<").str
    else:
        if data.dtype.itemsize != 1:
            raise FrameError(f"codec {codec!r:.80} with {data.dtype.str} elements instead of bytes")
        code = read_integer(value["codec"]["parameters"], 0, 255)
        dtype = _DTYPE_OF_CODE.get(code, f"type code {code}")
        if codec not in _DECODERS:
            raise FrameError(f"codec {codec!r:.80} is not one of {', '.join(sorted(_DECODERS))}")
    if dtype not in DTYPES:
        raise FrameError(f"dtype {dtype!r:.80} is not one of {', '.join(sorted(DTYPES))}")
    form = PixelForm(shape, dtype, codec)
    if form.frame_bytes > MAXIMUM_FRAME_BYTES:
        raise FrameError(f"{form.frame_bytes} bytes exceed {MAXIMUM_FRAME_BYTES}")
    if codec == "" and data.nbytes != form.frame_bytes:
        raise FrameError(f"{data.nbytes} bytes of pixels instead of {form.frame_bytes}")
    return form


def decode_pixels(value: Any, form: PixelForm) -> NDArray[Any]:
    """Decode the pixels of an update; the memory it takes is that of a frame of `form`.

    Parameters
    ----------
    value : p4p.Value
        The NTNDArray, not unwrapped.
    form : PixelForm
        What `read_form` found.

    Returns
    -------
    ndarray, shape (rows, columns)
        The pixels, C-contiguous and little-endian.

    Raises
    ------
    FrameError
        If they are not what `form` says.
    """
    data, size, itemsize = value["value"], form.frame_bytes, np.dtype(form.dtype).itemsize
    if form.codec == "":
        plain: NDArray[Any] = np.ascontiguousarray(data, dtype=form.dtype)
    else:
        packed = np.ascontiguousarray(data).data.cast("B")
        plain = np.frombuffer(_DECODERS[form.codec](packed, size, itemsize), dtype="|u1")
    if plain.nbytes != size:
        raise FrameError(f"{plain.nbytes} bytes of pixels instead of {size}")
    pixels: NDArray[Any] = plain.view(form.dtype).reshape(form.shape)
    return pixels


def _shape(dimensions: Any) -> tuple[int, int]:
    # The fastest comes first. One dimension is a single row: one channel's spectrum.
    sizes = [read_integer(dim["size"], 1, MAXIMUM_PIXELS_PER_SIDE) for dim in dimensions[:3]]
    if len(sizes) not in (1, 2):
        raise FrameError(f"{len(dimensions)} dimensions; a frame has rows and columns")
    return (sizes[1] if len(sizes) == 2 else 1), sizes[0]


def _zlib(packed: memoryview, size: int, itemsize: int) -> bytes:
    decoder = zlib.decompressobj()
    try:
        plain = decoder.decompress(packed, size)
        # The checksum at the end is looked at only when one asks for more.
        more = decoder.decompress(decoder.unconsumed_tail, 1)
    except zlib.error as error:
        raise FrameError(f"zlib: {error}") from error
    if more or not decoder.eof or decoder.unused_data:
        raise FrameError(f"zlib: the stream does not end after {size} bytes")
    return plain


def _blosc(packed: memoryview, size: int, itemsize: int) -> bytes:
    from numcodecs import blosc  # type: ignore[import-untyped]

    # Its header: 4 bytes of versions, then sizes of plain, block and packed data.
    if len(packed) < 16:
        raise FrameError(f"blosc: {len(packed)} bytes are no header")
    sizes = [int.from_bytes(packed[at : at + 4], "little") for at in (4, 12)]
    if sizes != [size, len(packed)]:
        raise FrameError(f"blosc: sizes {sizes} instead of {[size, len(packed)]}")
    return _call("blosc", blosc.decompress, bytes(packed))


def _lz4(packed: memoryview, size: int, itemsize: int) -> bytes:
    from numcodecs import lz4

    # numcodecs wants the plain size first; LZ4 itself never writes beyond it.
    return _call("lz4", lz4.decompress, size.to_bytes(4, "little") + bytes(packed))


def _call(name: str, decoder: Callable[[bytes], bytes], packed: bytes) -> bytes:
    try:
        return decoder(packed)
    except (RuntimeError, ValueError) as error:
        raise FrameError(f"{name}: {error}") from error


def _lz4hdf5(packed: memoryview, size: int, itemsize: int) -> memoryview:
    return _hdf5(packed, "lz4", size, itemsize)


def _bslz4(packed: memoryview, size: int, itemsize: int) -> memoryview:
    # areaDetector takes the 12-byte header of HDF5 chunks off, and blocks are of the default
    # size. No block has length 0, so a first word that says the size is a header.
    if int.from_bytes(packed[:8], "big") != size:
        block = _BITSHUFFLE_BLOCK_BYTES // itemsize * itemsize
        header = size.to_bytes(8, "big") + block.to_bytes(4, "big")
        packed = memoryview(header + bytes(packed))
    return _hdf5(packed, "bslz4", size, itemsize)


def _hdf5(packed: memoryview, codec: Codec, size: int, itemsize: int) -> memoryview:
    return decode(
        packed, codec, rows=1, columns=size // itemsize, dtype=_DTYPE_OF_SIZE[itemsize]
    ).data.cast("B")


_DECODERS: Final[dict[str, Callable[[memoryview, int, int], bytes | memoryview]]] = {
    "blosc": _blosc,
    "bslz4": _bslz4,
    "lz4": _lz4,
    "lz4hdf5": _lz4hdf5,
    "zlib": _zlib,
}
