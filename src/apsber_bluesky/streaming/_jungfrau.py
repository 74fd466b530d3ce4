"""Jungfrau, as slsReceiver sends it (docs/reference/jungfrau-stream.md): JSON and raw pixels.

The header is written by hand at the other end, and nothing in it is escaped; parsing is bounded,
and nothing is trusted before it is checked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import numpy as np
import xxhash

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.streaming._jungfrau_modules import DEFAULT_WINDOW, ModuleAssembler, ModulePart
from apsber_bluesky.streaming._series_messages import Frame, Message, SeriesEnd, SeriesStart

JSON_VERSION: Final = 5
DETECTOR_TYPE: Final = 3
PACKET_BYTES: Final = 8192
MAXIMUM_HEADER_BYTES: Final = 8192

_MAXIMUM_BRACKETS: Final = 64
_MAXIMUM_DIGITS: Final = 20
_TICK_S: Final = 1e-7
_U16, _U32, _U64 = 2**16 - 1, 2**32 - 1, 2**64 - 1
_INTEGERS: Final = {
    "bitmode": (16, 16),
    "fileIndex": (0, _U64),
    "size": (1, _U32),
    "acqIndex": (0, _U64),
    "frameIndex": (0, _U64),
    "completeImage": (0, 1),
    "frameNumber": (0, _U64),
    "expLength": (0, _U32),
    "packetNumber": (0, _U32),
    "detSpec1": (0, _U64),
    "timestamp": (0, _U64),
    "modId": (0, _U16),
    "row": (0, _U16),
    "column": (0, _U16),
    "detSpec2": (0, _U16),
    "detSpec3": (0, _U32),
    "detSpec4": (0, _U16),
    "detType": (DETECTOR_TYPE, DETECTOR_TYPE),
    "version": (0, 255),
    "flipRows": (0, 1),
    # Four quarters of Eigers make a quad; a Jungfrau has none.
    "quad": (0, 0),
}


class JungfrauReader:
    """Read the messages of one series, of all modules in any order; a `FrameReader`.

    Parameters
    ----------
    wanted : SeriesStart
        What the plan asked for; the first header must fit it, and so must all others.
    grid : (int, int)
        Rows and columns of modules, or of half modules if each has two interfaces.
    first_frame : int
        The detector's number of the first frame; it counts from 1 unless it was told otherwise.
    file_index : int, optional
        The acquisition's file index; that of the first header if not given.
    clock_zero_s : float
        Unix time when the detector's clock was zero [s], for timestamps.
    window : int
        Frames that may be under way between the first module's part and the last one's.

    Attributes
    ----------
    counts : Counter of str
        What was refused, by reason.
    incomplete : dict of int to str
        Frames that came without all their pixels, and why; they are never delivered.

    Raises
    ------
    InputError
        If the frames cannot be made of such a grid, or a number is out of range.
    """

    def __init__(
        self,
        wanted: SeriesStart,
        *,
        grid: tuple[int, int] = (1, 1),
        first_frame: int = 1,
        file_index: int | None = None,
        clock_zero_s: float = 0.0,
        window: int = DEFAULT_WINDOW,
    ) -> None:
        if min(grid) < 1 or wanted.rows % grid[0] or wanted.columns % grid[1]:
            raise InputError(
                f"frames of {wanted.rows} x {wanted.columns} pixels are not made of a grid of"
                f" {grid} modules; give the rows and columns of modules"
            )
        if wanted.dtype != "<u2" or len(wanted.channels) != 1:
            raise InputError(
                f"a Jungfrau sends one channel of '<u2', the plan asks for"
                f" {len(wanted.channels)} of {wanted.dtype!r}"
            )
        if first_frame < 0 or window < 1:
            raise InputError(f"first_frame is {first_frame}, window {window}; give 0 and 1 or more")
        self._wanted = wanted
        self._grid = grid
        self._shape = (wanted.rows // grid[0], wanted.columns // grid[1])
        self._first_frame = first_frame
        self._file_index = file_index
        self._clock_zero_s = clock_zero_s
        self._assembler = ModuleAssembler(wanted, grid, window=window)
        self._begun = False
        self._announced = False
        self._ended = False
        self._ends: set[object] = set()

    @property
    def counts(self) -> Counter[str]:
        """What was refused, by reason."""
        return self._assembler.counts

    @property
    def incomplete(self) -> dict[int, str]:
        """Frames that came without all their pixels, and why."""
        return self._assembler.incomplete

    @property
    def missing(self) -> list[int]:
        """Frames that were not delivered, also those of which nothing came."""
        return self._assembler.missing

    def read(
        self, parts: Sequence[bytes | memoryview], source: object | None = None
    ) -> list[Message]:
        """Read one multipart message off the wire.

        Parameters
        ----------
        parts : sequence of bytes-like
            The parts of the message.
        source : hashable, optional
            Which socket it came from. The message that ends an acquisition does not say who sends
            it, and it is sent again and again: without `source` each counts as another module's.

        Returns
        -------
        list of SeriesStart, Frame or SeriesEnd
            Nothing while modules of the frame are awaited.

        Raises
        ------
        FrameError
            If it is no such message, does not fit the series, or its image is incomplete.
        """
        header = self._parse(parts)
        if header["data"] == 0:
            return self._end(len(self._ends) if source is None else source)
        part = self._part(header, parts)
        start = self._announce()
        whole = self._assembler.add(part)
        if whole is None:
            return start
        image, timestamp_s = whole
        pixels = np.ascontiguousarray(image).data.cast("B")
        frame = Frame(
            series=self._wanted.series,
            number=part.number,
            timestamp_s=timestamp_s,
            angle_deg=float("nan"),
            checksum=xxhash.xxh3_64_intdigest(pixels),
            pixels=pixels,
        )
        return [*start, frame, *self._end_if_whole()]

    def finish(self) -> None:
        """Give up frames still under way: the series is over and nothing more will come."""
        self._assembler.finish()

    def _end(self, source: object) -> list[Message]:
        if not self._begun:
            # That of the acquisition before: it is sent again until somebody stops it.
            self.counts["stale_end"] += 1
            return []
        self._ends.add(source)
        if self._ended or len(self._ends) < self._grid[0] * self._grid[1]:
            return []
        return self._say_end()

    def _end_if_whole(self) -> list[Message]:
        return self._say_end() if self._assembler.whole and not self._ended else []

    def _say_end(self) -> list[Message]:
        self._ended = True
        return [*self._announce(), SeriesEnd(self._wanted.series, -1)]

    def _announce(self) -> list[Message]:
        if self._announced:
            return []
        self._announced = True
        return [self._wanted]

    def _parse(self, parts: Sequence[bytes | memoryview]) -> dict[str, Any]:
        if not parts or len(parts) > 2:
            self._refuse("bad_message", f"message of {len(parts)} parts instead of 1 or 2")
        try:
            header = parse_header(parts[0])
        except FrameError:
            self.counts["bad_header"] += 1
            raise
        if len(parts) != 1 + header["data"]:
            self._refuse(
                "bad_message", f"message of {len(parts)} parts whose data is {header['data']}"
            )
        return header

    def _part(self, header: dict[str, Any], parts: Sequence[bytes | memoryview]) -> ModulePart:
        number = header["frameNumber"] - self._first_frame
        if not 0 <= number < self._wanted.num_frames:
            last = self._first_frame + self._wanted.num_frames - 1
            self._refuse(
                "outside_series",
                f"frameNumber {header['frameNumber']} is not in {self._first_frame}..{last}",
            )
        self._check_geometry(header, number)
        if self._file_index is None:
            self._file_index = header["fileIndex"]
        if header["fileIndex"] != self._file_index:
            self._refuse(
                "other_acquisition",
                f"frame {number} is of acquisition {header['fileIndex']} while"
                f" {self._file_index} is being received",
            )
        self._begun = True
        self._check_complete(header, number, len(parts[1]))
        pixels = np.frombuffer(parts[1], dtype="<u2").reshape(self._shape)
        return ModulePart(
            number=number,
            row=header["row"],
            column=header["column"],
            timestamp_s=self._clock_zero_s + header["timestamp"] * _TICK_S,
            pixels=pixels[::-1] if header["flipRows"] else pixels,
        )

    def _check_geometry(self, header: dict[str, Any], number: int) -> None:
        rows, columns = self._shape
        grid_rows, grid_columns = self._grid
        # All three pairs are x before y.
        full = [[-1] * 4, [0, self._wanted.columns - 1, 0, self._wanted.rows - 1]]
        for key, allowed in (
            ("shape", [[columns, rows]]),
            ("detshape", [[grid_columns, grid_rows]]),
            ("size", [rows * columns * 2]),
            ("rx_roi", full),
        ):
            if header[key] not in allowed:
                self._refuse(
                    "wrong_geometry", f"frame {number}: {key} is {header[key]}, not {allowed[0]}"
                )
        if header["row"] >= grid_rows or header["column"] >= grid_columns:
            self._refuse(
                "wrong_geometry",
                f"frame {number}: module ({header['row']}, {header['column']}) in a grid of"
                f" {self._grid}",
            )

    def _check_complete(self, header: dict[str, Any], number: int, size: int) -> None:
        place = (header["row"], header["column"])
        packets = -(-header["size"] // PACKET_BYTES)
        if size != header["size"]:
            count, why = "truncated", f"{size} bytes of data instead of {header['size']}"
        elif header["packetNumber"] != packets:
            count, why = "packets_missing", f"{header['packetNumber']} of {packets} packets"
        elif not header["completeImage"]:
            count, why = "incomplete_image", "completeImage 0"
        else:
            return
        self._assembler.give_up(number, count, f"given up: module {place} has {why}")
        raise FrameError(f"frame {number}: module {place} has {why}")

    def _refuse(self, count: str, why: str) -> NoReturn:
        self.counts[count] += 1
        raise FrameError(f"Jungfrau series {self._wanted.series}: {why}")


def parse_header(packed: bytes | memoryview) -> dict[str, Any]:
    """Read a header, in bounded time and memory.

    Returns
    -------
    dict
        Every field of the format, checked for its type and range; of a header without data
        (the end of an acquisition) only ``jsonversion`` and ``data``.

    Raises
    ------
    FrameError
        If it is anything else; it names the field.
    """
    if len(packed) > MAXIMUM_HEADER_BYTES:
        raise FrameError(f"Jungfrau header of {len(packed)} bytes exceeds {MAXIMUM_HEADER_BYTES}")
    raw = bytes(packed)
    # Brackets bound the depth, before the parser would recurse.
    if raw.count(b"[") + raw.count(b"{") > _MAXIMUM_BRACKETS:
        raise FrameError("Jungfrau header is nested too deeply")
    try:
        header = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_int=_parse_integer,
            parse_constant=_refuse_constant,
        )
    except ValueError as error:
        raise FrameError(f"Jungfrau header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FrameError(f"Jungfrau header is a {type(header).__name__}, not a map")
    _check_integer("jsonversion", header.get("jsonversion"), JSON_VERSION, JSON_VERSION)
    _check_integer("data", header.get("data"), 0, 1)
    if header["data"]:
        _check_fields(header)
    return header


def _check_fields(header: dict[str, Any]) -> None:
    for key, (low, high) in _INTEGERS.items():
        _check_integer(key, header.get(key), low, high)
    for key, length, low in (("detshape", 2, 1), ("shape", 2, 1), ("rx_roi", 4, -1)):
        value = header.get(key)
        if not isinstance(value, list) or len(value) != length:
            raise FrameError(f"Jungfrau header: {key} = {value!r} is not {length} integers")
        for item in value:
            _check_integer(key, item, low, _U32)
    progress = header.get("progress")
    if isinstance(progress, bool) or not isinstance(progress, int | float):
        raise FrameError(f"Jungfrau header: progress = {progress!r} is not a number")
    if not isinstance(header.get("fname"), str):
        raise FrameError(f"Jungfrau header: fname = {header.get('fname')!r} is not a string")
    added = header.get("addJsonHeader", {})
    if not isinstance(added, dict) or not all(isinstance(value, str) for value in added.values()):
        raise FrameError("Jungfrau header: addJsonHeader is not a map of strings")


def _check_integer(key: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        wanted = str(low) if low == high else f"an integer in {low}..{high}"
        raise FrameError(f"Jungfrau header: {key} = {value!r} is not {wanted}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = Counter(key for key, _ in pairs)
        raise ValueError(f"{next(key for key in names if names[key] > 1)!r} comes twice")
    return result


def _parse_integer(digits: str) -> int:
    if len(digits) > _MAXIMUM_DIGITS:
        raise ValueError(f"integer of {len(digits)} digits")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
