"""Jungfrau, as slsReceiver sends it (docs/reference/jungfrau-stream.md): one socket per module."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import numpy as np
import xxhash
from numpy.typing import NDArray

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.streaming._jungfrau_header import parse_header
from apsber_bluesky.streaming._jungfrau_modules import (
    DEFAULT_WINDOW,
    DEFAULT_WINDOW_BYTES,
    JoinedImage,
    ModuleAssembler,
    ModulePart,
    Place,
)
from apsber_bluesky.streaming._jungfrau_thinning import ThinningDetector
from apsber_bluesky.streaming._series_messages import Frame, Message, SeriesEnd, SeriesStart

logger = logging.getLogger(__name__)

PACKET_BYTES: Final = 8192

_TICK_S: Final = 1e-7
# What slsReceiver puts where a packet did not come.
_FILLING: Final = 0xFFFF


class JungfrauReader:
    """Read the messages of one series, of all modules in any order; a `FrameReader`.

    Parameters
    ----------
    wanted : SeriesStart
        What the plan asked for; the first header must fit it, and so must all others.
    grid : (int, int)
        Rows and columns of modules, or of half modules if each has two interfaces.
    sources : int
        Sockets that are read: one for each module, or 1 that carries all of them.
    first_frame : int
        The detector's number of the first frame; it counts from 1 unless it was told otherwise.
    file_index : int, optional
        The acquisition's file index; that of the first header if not given.
    clock_zero_s : float
        Unix time when the detector's clock was zero [s], for timestamps.
    window, window_bytes : int
        Frames that may be under way between the first module's part and the last one's, and the
        memory that they may take [byte].

    Attributes
    ----------
    counts : Counter of str
        What was not as it should be, by reason.
    incomplete : dict of int to str
        Frames that were delivered without all their pixels, and why.
    missing : list of int
        Frames of which nothing was delivered.
    warnings : list of str
        What is wrong with the detector's settings, as far as its messages tell.

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
        sources: int = 1,
        first_frame: int = 1,
        file_index: int | None = None,
        clock_zero_s: float = 0.0,
        window: int = DEFAULT_WINDOW,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
    ) -> None:
        _check_series(wanted, grid, sources)
        if first_frame < 0 or window < 1 or window_bytes < 1:
            raise InputError(
                f"first_frame is {first_frame}, window {window} frames or {window_bytes} bytes;"
                " give 0, 1 and 1 or more"
            )
        self._wanted = wanted
        self._grid = grid
        self._shape = (wanted.rows // grid[0], wanted.columns // grid[1])
        self._sources = sources
        self._first_frame = first_frame
        self._file_index = file_index
        self._clock_zero_s = clock_zero_s
        self._assembler = ModuleAssembler(wanted, grid, window=window, window_bytes=window_bytes)
        self._thinning = ThinningDetector()
        self._place_of: dict[int, Place] = {}
        self._begun = False
        self._announced = False
        self._ended = False
        self._ends: set[int] = set()
        self.warnings: list[str] = []

    @property
    def counts(self) -> Counter[str]:
        """What was not as it should be, by reason."""
        return self._assembler.counts

    @property
    def incomplete(self) -> dict[int, str]:
        """Frames that were delivered without all their pixels, and why."""
        return self._assembler.incomplete

    @property
    def missing(self) -> list[int]:
        """Frames of which nothing was delivered."""
        return self._assembler.missing

    def read(self, parts: Sequence[bytes | memoryview], source: int = 0) -> list[Message]:
        """Read one multipart message off the wire.

        Parameters
        ----------
        parts : sequence of bytes-like
            The parts of the message.
        source : int
            Number of the socket that it came from. Where each module has its own, a module is
            known by its socket and by its header, and the two must agree.

        Returns
        -------
        list of SeriesStart, Frame or SeriesEnd
            Nothing while modules of the frame are awaited. A frame whose parts did not all come
            is not `Frame.complete`, and the pixels of those parts are zero.

        Raises
        ------
        FrameError
            If it is no such message or does not fit the series.
        """
        header = self._parse(parts)
        if header["data"] == 0:
            return self._end(source)
        part = self._part(header, parts, source)
        if self._sources > 1:
            # A module that goes on after its end had repeated that of the acquisition before.
            self._ends.discard(source)
        self._warn(self._thinning.saw(part.place, part.number))
        messages = [*self._announce(), *self._frames(self._assembler.add(part))]
        return messages + (self._say_end() if self._assembler.whole else [])

    def finish(self) -> list[Message]:
        """Deliver what is still under way: the series is over and nothing more will come.

        Returns
        -------
        list of Frame
            Images that waited for a part, which are not `Frame.complete`.
        """
        for text in self._thinning.finish():
            self._warn(text)
        if self.incomplete:
            logger.warning(
                "series %d: %d images are incomplete", self._wanted.series, len(self.incomplete)
            )
        return self._frames(self._assembler.finish())

    def _frames(self, images: list[JoinedImage]) -> list[Message]:
        return [self._frame(image) for image in images]

    def _frame(self, image: JoinedImage) -> Frame:
        if image.fault and len(self.incomplete) == 1:
            # One line tells what goes wrong; the books name the others.
            logger.warning("frame %d is incomplete: %s", image.number, image.fault)
        pixels = np.ascontiguousarray(image.pixels).data.cast("B")
        return Frame(
            series=self._wanted.series,
            number=image.number,
            timestamp_s=image.timestamp_s,
            angle_deg=float("nan"),
            checksum=xxhash.xxh3_64_intdigest(pixels),
            pixels=pixels,
            complete=not image.fault,
        )

    def _warn(self, text: str) -> None:
        # All modules are set alike; the first that is wrong speaks for them.
        if text and not self.warnings:
            self.warnings.append(text)

    def _end(self, source: int) -> list[Message]:
        if not self._begun:
            # That of the acquisition before: it is sent again until somebody stops it.
            self.counts["stale_end"] += 1
            return []
        modules = self._grid[0] * self._grid[1]
        if self._sources < modules:
            # Nothing tells whose end it is, and parts of other modules may still be on their way.
            self._ends.add(len(self._ends))
            return self._say_end() if len(self._ends) == modules else []
        self._ends.add(source)
        if len(self._ends) == modules:
            return [*self._frames(self._assembler.finish()), *self._say_end()]
        if source not in self._place_of:
            return []
        return self._frames(self._assembler.passed_all(self._place_of[source]))

    def _say_end(self) -> list[Message]:
        if self._ended:
            return []
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

    def _part(
        self, header: dict[str, Any], parts: Sequence[bytes | memoryview], source: int
    ) -> ModulePart:
        number = header["frameNumber"] - self._first_frame
        if not 0 <= number < self._wanted.num_frames:
            last = self._first_frame + self._wanted.num_frames - 1
            self._refuse(
                "outside_series",
                f"frameNumber {header['frameNumber']} is not in {self._first_frame}..{last}",
            )
        self._check_geometry(header, number)
        place = (header["row"], header["column"])
        if self._sources > 1:
            self._check_source(source, place)
        if self._file_index is None:
            self._file_index = header["fileIndex"]
        if header["fileIndex"] != self._file_index:
            self._refuse(
                "other_acquisition",
                f"frame {number} is of acquisition {header['fileIndex']} while"
                f" {self._file_index} is being received",
            )
        self._begun = True
        pixels, fault = self._pixels(header, parts[1], number, place)
        pixels = pixels.reshape(self._shape)
        return ModulePart(
            number=number,
            place=place,
            timestamp_s=self._clock_zero_s + header["timestamp"] * _TICK_S,
            pixels=pixels[::-1] if header["flipRows"] else pixels,
            fault=fault,
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

    def _check_source(self, source: int, place: Place) -> None:
        known = self._place_of.get(source)
        if known == place:
            return
        if known is not None:
            self._refuse(
                "wrong_place",
                f"socket {source} sent module {known} and now says it is {place}; was its"
                " slsReceiver started anew with another position?",
            )
        other = next((s for s, taken in self._place_of.items() if taken == place), None)
        if other is not None:
            self._refuse(
                "wrong_place",
                f"sockets {other} and {source} both send module {place}; does"
                " streaming.frame_address name one slsReceiver twice?",
            )
        self._place_of[source] = place

    def _pixels(
        self, header: dict[str, Any], data: bytes | memoryview, number: int, place: Place
    ) -> tuple[NDArray[Any], str]:
        """The pixels of a part, zero where they did not come, and why if so."""
        packets, came = -(-header["size"] // PACKET_BYTES), header["packetNumber"]
        if len(data) != header["size"]:
            why = f"{len(data)} bytes of data instead of {header['size']}"
            self._assembler.refuse(number, place, why)
            self._refuse("truncated", f"frame {number}: module {place} has {why}")
        if came > packets:
            self._refuse("bad_header", f"frame {number}: packetNumber is {came} of {packets}")
        pixels = np.frombuffer(data, dtype="<u2")
        if came == packets and header["completeImage"]:
            return pixels, ""
        self.counts["packets_missing" if came < packets else "incomplete_image"] += 1
        return (
            _without_filling(pixels, packets - came),
            f"{came} of {packets} packets" if came < packets else "completeImage 0",
        )

    def _refuse(self, count: str, why: str) -> NoReturn:
        self.counts[count] += 1
        raise FrameError(f"Jungfrau series {self._wanted.series}: {why}")


def _check_series(wanted: SeriesStart, grid: tuple[int, int], sources: int) -> None:
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
    if sources not in (1, grid[0] * grid[1]):
        raise InputError(
            f"{sources} addresses for a grid of {grid} modules; give one for each module, or one"
            " that carries all of them"
        )


def _without_filling(pixels: NDArray[Any], lost: int) -> NDArray[Any]:
    """Pixels with zeros in the packets that were lost; all zero if it cannot be told which."""
    starts = np.arange(0, len(pixels), PACKET_BYTES // 2)
    # A packet of which every bit is set is what slsReceiver filled in.
    filled = np.flatnonzero(np.bitwise_and.reduceat(pixels, starts) == _FILLING)
    if len(filled) != lost or not lost:
        return np.zeros_like(pixels)
    kept = pixels.copy()
    for packet in filled:
        kept[starts[packet] : starts[packet] + PACKET_BYTES // 2] = 0
    return kept
