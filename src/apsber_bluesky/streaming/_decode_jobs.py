"""What a decode worker is asked and what it answers: small packets of fixed form."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._codecs import CODECS
from apsber_bluesky.streaming._series_messages import DTYPES, MAXIMUM_FRAME_BYTES, Codec

#: No packet is longer.
MAXIMUM_PACKET_BYTES: Final = 8192

# offset, size, rows, columns, sequence, generation, tag, checksum, codec, dtype; then the path.
_JOB: Final = struct.Struct("<QQIIQQQQB3s")
_RESULT: Final = struct.Struct("<QB")


@dataclass(frozen=True, slots=True)
class DecodeJob:
    """A compressed frame to be decoded into the ring.

    Attributes
    ----------
    path : Path
        The spool, in which the frame already lies.
    offset, size : int
        Where its encoded bytes lie in the file [byte].
    codec : {"none", "bslz4", "lz4"}
        How they are encoded.
    rows, columns : int
        Frame size [pixel].
    dtype : str
        NumPy dtype string of the pixels.
    sequence, tag : int
        As `FrameRing.put`.
    checksum : int
        xxh3_64 of the encoded bytes.
    """

    path: Path
    offset: int
    size: int
    codec: Codec
    rows: int
    columns: int
    dtype: str
    sequence: int
    tag: int
    checksum: int

    def pack(self, generation: int) -> bytes:
        """The packet that asks for it, for a layout of the ring.

        Raises
        ------
        FrameError
            If a value is no frame's, or the path is too long for a packet.
        """
        if self.dtype not in DTYPES:
            raise FrameError(f"dtype {self.dtype!r} is not one of {', '.join(sorted(DTYPES))}")
        try:
            head = _JOB.pack(
                self.offset,
                self.size,
                self.rows,
                self.columns,
                self.sequence,
                generation,
                self.tag,
                self.checksum,
                CODECS.index(self.codec),
                self.dtype.encode("ascii"),
            )
        except (struct.error, ValueError) as error:
            raise FrameError(f"{self} is no job for a decode worker: {error}") from error
        packet = head + str(self.path).encode("utf-8", "surrogateescape")
        if len(packet) > MAXIMUM_PACKET_BYTES:
            raise FrameError(f"path of {len(str(self.path))} characters is too long: {self.path}")
        return packet


def unpack_job(packet: bytes) -> tuple[DecodeJob, int]:
    """The job in a packet, and the generation.

    Raises
    ------
    FrameError
        If it is none.
    """
    try:
        offset, size, rows, columns, sequence, generation, tag, checksum, codec, dtype = (
            _JOB.unpack_from(packet)
        )
        path = Path(packet[_JOB.size :].decode("utf-8", "surrogateescape"))
        job = DecodeJob(
            path,
            offset,
            size,
            CODECS[codec],
            rows,
            columns,
            dtype.decode("ascii"),
            sequence,
            tag,
            checksum,
        )
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise FrameError(f"packet of {len(packet)} bytes is no decode job: {error}") from error
    if size > MAXIMUM_FRAME_BYTES or job.dtype not in DTYPES:
        raise FrameError(f"decode job of {size} bytes of {job.dtype!r} is of no frame")
    return job, generation


def pack_result(tag: int, *, decoded: bool) -> bytes:
    """The packet that says how a job ended."""
    return _RESULT.pack(tag, decoded)


def unpack_result(packet: bytes) -> tuple[int, bool]:
    """Tag of the frame, and whether it was decoded."""
    tag, decoded = _RESULT.unpack(packet)
    return tag, bool(decoded)
