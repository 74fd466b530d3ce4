"""What every detector's stream comes down to: a series starts, frames come, it ends.

Each wire format has a reader that turns what the detector sends into these messages; the receiver
knows nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np

MAXIMUM_FRAME_BYTES: Final = 1 << 30
MAXIMUM_PIXELS_PER_SIDE: Final = 1 << 20
DTYPES: Final = frozenset(["|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f4", "<f8"])

Codec = Literal["none", "bslz4", "lz4"]
"""How the pixels of a frame are encoded, as in HDF5 files: plain; bitshuffle with LZ4 (filter
32008, with its 12-byte header); LZ4 (filter 32004, with its 16-byte header)."""


@dataclass(frozen=True, slots=True)
class SeriesStart:
    """A series begins: ``num_frames`` frames of ``(rows, columns)`` pixels of `dtype`.

    Attributes
    ----------
    series : int
        The source's own number of the series.
    num_frames : int
        Frames to come, each of all channels.
    rows, columns : int
        Frame size [pixel].
    dtype : str
        NumPy dtype string of the decoded pixels.
    channels : tuple of str
        Names of the channels (thresholds) that each frame has.
    """

    series: int
    num_frames: int
    rows: int
    columns: int
    dtype: str
    channels: tuple[str, ...] = ("",)

    @property
    def frame_bytes(self) -> int:
        """Size of one decoded frame of one channel [byte]."""
        return self.rows * self.columns * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of one channel.

    Attributes
    ----------
    series, number : int
        The source's own numbers; frames of a series count from 0.
    timestamp_s : float
        Unix time of the exposure [s].
    angle_deg : float
        Rotation angle latched with it [deg]; NaN when the detector does not say.
    checksum : int
        xxh3_64 of `pixels`.
    pixels : memoryview
        The bytes as they left the detector, encoded as `codec` says.
    codec : {"none", "bslz4", "lz4"}
        How they are encoded.
    channel : int
        Index into the channels of the series.
    complete : bool
        Whether the whole image came; pixels of parts that did not are zero.
    """

    series: int
    number: int
    timestamp_s: float
    angle_deg: float
    checksum: int
    pixels: memoryview
    codec: Codec = "none"
    channel: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class SeriesEnd:
    """A series ends; the source sent `num_sent` frames of it, or does not say (-1)."""

    series: int
    num_sent: int


Message = SeriesStart | Frame | SeriesEnd


class FrameReader(Protocol):
    """Turn what one detector sends in one series into messages.

    Attributes
    ----------
    warnings : sequence of str
        What the user should know of how the detector is set up.
    """

    @property
    def warnings(self) -> Sequence[str]:
        """What was noticed so far."""
        ...

    def read(self, parts: Sequence[bytes | memoryview], source: int = 0) -> list[Message]:
        """Read one multipart message off the wire, which came from socket number `source`.

        Raises
        ------
        FrameError
            If it is anything but a message of this format that fits its series.
        """
        ...

    def finish(self) -> list[Message]:
        """The series is over: what is still held, such as images that wait for a part."""
        ...
