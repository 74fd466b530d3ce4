"""EIGER, legacy Stream V1: multipart JSON over ZMQ (docs/reference/eiger-stream.md).

Format: DECTRIS SIMPLON API, "stream"; read from public clients (areaDetector ADEiger, 2026-06-22).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xxhash

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._codecs import check_encoded, frame_lz4_block
from apsber_bluesky.streaming._eiger_fields import (
    MAXIMUM_SERIES,
    dtype_of,
    integer,
    shown,
)
from apsber_bluesky.streaming._eiger_header1 import Expectation, parse_json, read_header
from apsber_bluesky.streaming._series_messages import (
    Codec,
    Frame,
    Message,
    SeriesEnd,
    SeriesStart,
)

_ENCODING: Final = re.compile(r"(?:bs(8|16|32|64))?-?(lz4)?([<>])", re.ASCII)
_MD5: Final = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)


class EigerStream1Reader:
    """Read what an EIGER sends with ``stream/config/format`` set to ``legacy``.

    The header says what is to come, and every image is held against it. A series stays open after
    its end message, until another starts.

    Parameters
    ----------
    expectation : Expectation, optional
        What a series will be, where the detector's own header does not say so or is not to be
        believed: needed when ``stream/config/header_detail`` is ``none``.
    check_hash : bool
        Whether the MD5 sum of the pixels is checked where it is given. It costs 1.4 ms for each
        MB, and is the only guard this format has.
    """

    warnings: tuple[str, ...] = ()

    def __init__(self, expectation: Expectation | None = None, *, check_hash: bool = True) -> None:
        self._expectation = expectation or Expectation()
        self._check_hash = check_hash
        self._start: SeriesStart | None = None
        self._origin_s = 0.0

    def read(self, parts: Sequence[bytes | memoryview], source: int = 0) -> list[Message]:
        """Read one multipart message off the wire.

        Parameters
        ----------
        parts : sequence of bytes-like
            The parts. An appendix may follow the parts of a header or an image; it is not read.
        source : int
            Number of the socket that it came from; of no concern here.

        Returns
        -------
        list of SeriesStart, Frame or SeriesEnd
            One message. The pixels of a frame are a view of its part, except those of a raw LZ4
            block, which are a copy in the framing of HDF5; its checksum is computed here. An end
            has ``num_sent`` -1.

        Raises
        ------
        FrameError
            If it is no message of this format or does not fit its series; it names the field.
        """
        if not parts:
            raise FrameError("stream V1 message without parts")
        header = parse_json(parts[0], "first part")
        kind = header.get("htype")
        if kind == "dheader-1.0":
            self._start, self._origin_s = read_header(header, parts, self._expectation)
            return [self._start]
        if kind == "dimage-1.0":
            return [self._read_image(header, parts)]
        if kind == "dseries_end-1.0":
            if len(parts) != 1:
                raise FrameError(f"dseries_end-1.0 message of {len(parts)} parts instead of 1")
            return [SeriesEnd(self._series(header, "dseries_end-1.0").series, -1)]
        raise FrameError(f"htype = {shown(kind)} is not dheader, dimage or dseries_end-1.0")

    def finish(self) -> list[Message]:
        """What is still held at the end of a series: nothing."""
        return []

    def _series(self, header: Mapping[str, Any], what: str) -> SeriesStart:
        if self._start is None:
            raise FrameError(f"{what} before the dheader-1.0 of its series")
        series = integer(header, "series", 0, MAXIMUM_SERIES)
        if series != self._start.series:
            raise FrameError(f"series = {series} while series {self._start.series} is open")
        return self._start

    def _read_image(self, header: Mapping[str, Any], parts: Sequence[bytes | memoryview]) -> Frame:
        start = self._series(header, "dimage-1.0")
        number = integer(header, "frame", 0, start.num_frames - 1)
        if len(parts) not in (4, 5):
            raise FrameError(f"frame {number}: {len(parts)} parts instead of 4 or 5")
        layout = parse_json(parts[1], "second part", htype="dimage_d-1.0")
        config = parse_json(parts[3], "fourth part", htype="dconfig-1.0")
        blob = memoryview(parts[2]).cast("B")
        try:
            _check_layout(layout, start, len(blob))
            self._check_md5(header, blob)
            pixels, codec = _pixels(layout, blob, start)
        except FrameError as error:
            raise FrameError(f"frame {number}: {error}") from error
        start_ns = integer(config, "start_time", 0, 2**64 - 1)
        return Frame(
            series=start.series,
            number=number,
            timestamp_s=self._origin_s + start_ns / 1e9,
            angle_deg=math.nan,
            checksum=xxhash.xxh3_64_intdigest(pixels),
            pixels=pixels,
            codec=codec,
        )

    def _check_md5(self, header: Mapping[str, Any], blob: memoryview) -> None:
        given = header.get("hash", "")
        # Some firmware leaves the field empty.
        if given == "":
            return
        if not isinstance(given, str) or _MD5.fullmatch(given) is None:
            raise FrameError(f"hash = {shown(given)} is not an MD5 sum")
        if self._check_hash:
            found = hashlib.md5(blob, usedforsecurity=False).hexdigest()
            if found != given.lower():
                raise FrameError(f"hash = {given} is not that of the pixels, {found}")


def _check_layout(layout: Mapping[str, Any], start: SeriesStart, blob_bytes: int) -> None:
    shape = layout.get("shape")
    wanted = [start.columns, start.rows]
    # A third dimension counts channels, of which this format has one.
    if not isinstance(shape, list) or any(type(n) is not int for n in shape):
        raise FrameError(f"shape = {shown(shape)} is not a list of integers")
    if shape not in (wanted, [*wanted, 1]):
        raise FrameError(f"shape = {shape[:3]} is not {wanted}, columns first")
    dtype = dtype_of(layout, "type")
    if dtype != start.dtype:
        raise FrameError(f"type = {layout['type']!r} is not {start.dtype}")
    size = layout.get("size")
    if type(size) is not int or size != blob_bytes:
        raise FrameError(f"size = {shown(size)} is not the {blob_bytes} bytes that came")


def _pixels(
    layout: Mapping[str, Any], blob: memoryview, start: SeriesStart
) -> tuple[memoryview, Codec]:
    encoding = layout.get("encoding")
    match = _ENCODING.fullmatch(encoding) if isinstance(encoding, str) else None
    if match is None:
        raise FrameError(f"encoding = {shown(encoding)} is not like '<', 'lz4<' or 'bs16-lz4<'")
    bits, compression, order = match.groups()
    itemsize = np.dtype(start.dtype).itemsize
    if order == ">":
        raise FrameError(f"encoding = {encoding!r}: pixels must be little-endian")
    if bits is not None and int(bits) != 8 * itemsize:
        raise FrameError(f"encoding = {encoding!r} shuffles {bits} bits of {start.dtype} pixels")
    if bits is not None and compression is None:
        raise FrameError(f"encoding = {encoding!r}: bitshuffle without LZ4 is not supported")
    codec: Codec = "none" if compression is None else "bslz4" if bits else "lz4"
    if codec == "lz4":
        blob = memoryview(frame_lz4_block(blob, start.frame_bytes))
    check_encoded(blob, codec, frame_bytes=start.frame_bytes, itemsize=itemsize)
    return blob, codec
