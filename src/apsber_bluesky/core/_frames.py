"""Frames: what they are called and how they are numbered."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from apsber_bluesky.core._errors import InputError

StreamName = Literal["primary", "flats", "darks"]


class ImageKey(enum.IntEnum):
    """What a frame shows, as NeXus' ``NXtomo/instrument/detector/image_key`` numbers it."""

    PROJECTION = 0
    FLAT = 1
    DARK = 2
    INVALID = 3


STREAM_OF_KEY: dict[ImageKey, StreamName] = {
    ImageKey.PROJECTION: "primary",
    ImageKey.FLAT: "flats",
    ImageKey.DARK: "darks",
}
#: NumPy dtype strings that pixels may have.
PIXEL_DTYPES = ("|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f4", "<f8")

KEY_OF_STREAM: dict[StreamName, ImageKey] = {name: key for key, name in STREAM_OF_KEY.items()}


@dataclass(frozen=True, slots=True)
class SeriesRequest:
    """One series of frames that a plan is about to take.

    Attributes
    ----------
    run_uid : str
        Bluesky run uid that the frames belong to.
    stream : {"primary", "flats", "darks"}
        Bluesky stream the frames go to; decides their `ImageKey`.
    num_frames : int
        Number of frames to expect.
    rows, columns : int
        Frame size [pixel].
    dtype : str
        NumPy dtype string of the pixels, e.g. ``"<u2"``.
    detector : str
        Name of the detector, if it has a receiver and a spool of its own.
    first_index : int or None
        Place of its first frame in the stream; None for behind those of the series before. Frames
        of a place that an earlier series had are taken again, unless they are on disk.
    retakes : bool
        Whether frames that are missing in the end will be asked for again; until then they are
        not given up, and no frame behind them is announced.
    angle_deg, step_deg : float or None
        Angle of the first frame, and from frame to frame [deg], of a detector that latches the
        angle with each frame: one that comes with the angle of another place belongs there,
        because the detector has missed a trigger pulse.

    Raises
    ------
    InputError
        If there is no such stream or dtype, or a number is not positive.
    """

    run_uid: str
    stream: StreamName
    num_frames: int
    rows: int
    columns: int
    dtype: str
    detector: str = ""
    first_index: int | None = None
    retakes: bool = False
    angle_deg: float | None = None
    step_deg: float | None = None

    def __post_init__(self) -> None:
        if self.stream not in KEY_OF_STREAM:
            raise InputError(f"stream is {self.stream!r}; give one of {', '.join(KEY_OF_STREAM)}")
        for name in ("num_frames", "rows", "columns"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} of a series is {value!r}; give 1 or more")
        if self.dtype not in PIXEL_DTYPES:
            raise InputError(
                f"dtype of a series is {self.dtype!r}; give one of {', '.join(PIXEL_DTYPES)}"
            )

    @property
    def image_key(self) -> ImageKey:
        """What the frames of this series show."""
        return KEY_OF_STREAM[self.stream]

    @property
    def frame_bytes(self) -> int:
        """Size of one plain image [byte]."""
        return self.rows * self.columns * np.dtype(self.dtype).itemsize

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they travel between processes."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SeriesTicket:
    """Where the frames of a series will be found.

    Attributes
    ----------
    uri : str
        ``file://localhost/...`` of the HDF5 file.
    dataset : str
        Path of the ``(frame, row, column)`` dataset inside it.
    first_index : int
        Index in the dataset of the first frame of this series.
    series : int
        Number that the series has on the wire; frames of other series are refused.
    """

    uri: str
    dataset: str
    first_index: int
    series: int


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Frames ``start`` to ``stop`` (excluded) of one stream, as documents announce them.

    Attributes
    ----------
    run_uid : str
        Bluesky run uid.
    stream : {"primary", "flats", "darks"}
        Bluesky stream.
    start, stop : int
        Indices in the dataset.
    uri, dataset : str
        Where the frames lie on disk.
    detector : str
        Name of the detector; empty if it is not known.
    """

    run_uid: str
    stream: StreamName
    start: int
    stop: int
    uri: str
    dataset: str
    detector: str = ""

    @property
    def image_key(self) -> ImageKey:
        """What the frames show."""
        return KEY_OF_STREAM[self.stream]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they travel between processes."""
        return asdict(self)
