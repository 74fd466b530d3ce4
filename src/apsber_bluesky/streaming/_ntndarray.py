"""areaDetector's NTNDArray over PV Access: updates become frames, whatever their codec.

PV Access shows the present and loses the past without a word: what was lost is told from the ids
that the series was expected to have, the first and the last included.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final, NoReturn

import numpy as np
import xxhash

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.streaming._ntndarray_pixels import (
    PixelForm,
    decode_pixels,
    read_form,
    read_integer,
)
from apsber_bluesky.streaming._series_messages import (
    Frame,
    Message,
    SeriesEnd,
    SeriesStart,
)

MAXIMUM_ID: Final = 2**31 - 1

_MAXIMUM_ATTRIBUTES: Final = 4096
_REAL: Final = (int, float, np.integer, np.floating)
_MALFORMED: Final = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)


class _WrongGeometry(FrameError):
    """Frames of another size or type than the series has."""


class NtndarrayReader:
    """Read the updates of one series.

    The first update after subscribing is the last frame of whatever was before; so subscribe,
    read that one, and only then let the detector begin.

    Parameters
    ----------
    series : int
        Number of the series in the messages.
    num_frames : int
        Frames to expect.
    first_id : int, optional
        ``uniqueId`` of the first frame. If not given, the counter runs on from the first update;
        if it then restarts before the series has begun, 1.
    shape : (int, int), optional
        Rows and columns that frames must have; those of the first frame if not given.
    dtype : str, optional
        NumPy dtype string that they must have, likewise.
    angle_attribute : str
        Name of the attribute that holds the rotation angle [deg].

    Attributes
    ----------
    ready : bool
        Whether the first update has come, so that the detector may begin.
    ended : bool
        Whether the series is over; frames after it are refused.
    epoch : int
        How often the source was restarted.
    counts : Counter of str
        Updates that were not delivered, by reason.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    def __init__(
        self,
        series: int,
        num_frames: int,
        *,
        first_id: int | None = None,
        shape: tuple[int, int] | None = None,
        dtype: str | None = None,
        angle_attribute: str = "RotAngle",
    ) -> None:
        if num_frames < 1 or not 0 <= (first_id or 0) <= MAXIMUM_ID - num_frames:
            raise InputError(
                f"{num_frames} frames from id {first_id}; give 1 frame or more, and a first id"
                f" from 0 whose last one is below {MAXIMUM_ID}"
            )
        self._series = series
        self._num_frames = num_frames
        self._first_id = first_id
        self._given_id = first_id
        self._shape = shape
        self._dtype = dtype
        self._angle_attribute = angle_attribute
        self._start: SeriesStart | None = None
        self._seen: set[int] = set()
        self._stale: tuple[int, float] | None = None
        self._highest: tuple[int, float] | None = None
        self._reconnected = False
        self.ready = False
        self.ended = False
        self.epoch = 0
        self.counts: Counter[str] = Counter()

    @property
    def missing(self) -> list[int]:
        """Frames that have not come, by their number in the series."""
        return [number for number in range(self._num_frames) if number not in self._seen]

    def disconnected(self) -> None:
        """Take note that the channel was lost: when it comes back it may be another one."""
        if self.ready:
            self.counts["disconnected"] += 1
            self._reconnected = True

    def read(self, value: Any) -> list[Message]:
        """Read one update.

        Parameters
        ----------
        value : p4p.Value
            The NTNDArray, not unwrapped (``Context("pva", nt=False)``).

        Returns
        -------
        list of SeriesStart, Frame or SeriesEnd
            Nothing for an update that is stale, a duplicate or out of order. Frames are decoded.

        Raises
        ------
        FrameError
            If the update is malformed or does not fit the series.
        """
        try:
            unique_id, time_s = _identity(value)
        except _MALFORMED as error:
            self._refuse("malformed", f"NTNDArray without id or time: {error!r:.300}")
        if not self.ready:
            return self._take_stale(unique_id, time_s)
        if self._reconnected and (unique_id, time_s) == self._stale:
            self._reconnected = False
            self.counts["stale"] += 1
            return []
        ends: list[Message] = []
        if unique_id <= self._highest_id:
            if not self._is_restart(unique_id, time_s):
                known = unique_id == self._highest_id or self._number(unique_id) in self._seen
                self.counts["duplicate" if known else "out_of_order"] += 1
                return []
            ends = self._restart()
        self._highest = (unique_id, time_s)
        self._reconnected = False
        if ends:
            return ends
        number = self._number(unique_id)
        if self.ended or not 0 <= number < self._num_frames:
            return self._take_outside(unique_id, number)
        return self._take(value, number, time_s)

    @property
    def _highest_id(self) -> int:
        return -1 if self._highest is None else self._highest[0]

    def _number(self, unique_id: int) -> int:
        return unique_id - (self._first_id or 0)

    def _take_stale(self, unique_id: int, time_s: float) -> list[Message]:
        self.ready = True
        self._stale = (unique_id, time_s)
        self.counts["stale"] += 1
        if self._first_id is None:
            self._first_id = unique_id + 1
            self._highest = (unique_id, time_s)
        return []

    def _is_restart(self, unique_id: int, time_s: float) -> bool:
        # An old update that comes late is older than the newest; a counter that began anew is not.
        # After a reconnection what comes first is the newest the server has.
        if self._highest is None:
            return False
        return time_s > self._highest[1] or (
            self._reconnected and (unique_id, time_s) != self._highest
        )

    def _restart(self) -> list[Message]:
        self.epoch += 1
        if not self._seen:
            self._first_id = 1 if self._given_id is None else self._given_id
            return []
        return self._end()

    def _end(self) -> list[Message]:
        if self.ended:
            return []
        self.ended = True
        return [SeriesEnd(self._series, -1)]

    def _take_outside(self, unique_id: int, number: int) -> list[Message]:
        self.counts["outside_series"] += 1
        if number >= self._num_frames and not self.ended:
            return self._end()
        raise FrameError(
            f"uniqueId {unique_id} is outside series {self._series} of {self._num_frames} frames"
            f" from {self._first_id}" + (", which is over" if self.ended else "")
        )

    def _take(self, value: Any, number: int, time_s: float) -> list[Message]:
        try:
            # Before the pixels are decoded, for that takes as much memory as the update says.
            form = read_form(value)
            start = self._start or self._new_start(form)
            self._check_fits(form, start, number)
            array, angle_deg = decode_pixels(value, form), _angle(value, self._angle_attribute)
        except _WrongGeometry as error:
            self._refuse("wrong_geometry", str(error))
        except FrameError as error:
            self._refuse("malformed", f"frame {number}: {error}")
        except _MALFORMED as error:
            self._refuse("malformed", f"frame {number}: malformed NTNDArray: {error!r:.300}")
        pixels = array.data.cast("B")
        frame = Frame(
            series=self._series,
            number=number,
            timestamp_s=time_s,
            angle_deg=angle_deg,
            checksum=xxhash.xxh3_64_intdigest(pixels),
            pixels=pixels,
        )
        begins: list[Message] = [] if self._start else [start]
        self._start = start
        self._seen.add(number)
        return [*begins, frame, *(self._end() if number == self._num_frames - 1 else [])]

    def _new_start(self, form: PixelForm) -> SeriesStart:
        rows, columns = self._shape or form.shape
        return SeriesStart(self._series, self._num_frames, rows, columns, self._dtype or form.dtype)

    def _check_fits(self, form: PixelForm, start: SeriesStart, number: int) -> None:
        if (*form.shape, form.dtype) != (start.rows, start.columns, start.dtype):
            raise _WrongGeometry(f"frame {number} is {form.dtype} {form.shape}, not {start}")

    def _refuse(self, count: str, why: str) -> NoReturn:
        self.counts[count] += 1
        raise FrameError(why)


def _identity(value: Any) -> tuple[int, float]:
    unique_id = read_integer(value["uniqueId"], 0, MAXIMUM_ID)
    stamp = value["dataTimeStamp"]
    seconds = read_integer(stamp["secondsPastEpoch"], -(2**40), 2**40)
    return unique_id, seconds + read_integer(stamp["nanoseconds"], 0, 10**9 - 1) * 1e-9


def _angle(value: Any, name: str) -> float:
    attributes = value["attribute"]
    if len(attributes) > _MAXIMUM_ATTRIBUTES:
        raise FrameError(f"{len(attributes)} attributes, more than {_MAXIMUM_ATTRIBUTES}")
    angles = [attribute["value"] for attribute in attributes if attribute["name"] == name]
    if len(angles) > 1:
        raise FrameError(f"attribute {name!r} is there {len(angles)} times")
    if not angles or isinstance(angles[0], bool) or not isinstance(angles[0], _REAL):
        return math.nan
    angle = float(angles[0])
    return angle if math.isfinite(angle) else math.nan
