"""Modules become images: parts with one frame number are joined, in a window that is bounded."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._series_messages import SeriesStart

logger = logging.getLogger(__name__)

DEFAULT_WINDOW: Final = 64


@dataclass(frozen=True, slots=True)
class ModulePart:
    """What one module saw of one frame.

    Attributes
    ----------
    number : int
        Number of the frame in its series, from 0.
    row, column : int
        Place of the module in the grid.
    timestamp_s : float
        Time of the exposure [s].
    pixels : ndarray, shape (module rows, module columns)
        The raw pixels.
    """

    number: int
    row: int
    column: int
    timestamp_s: float
    pixels: NDArray[Any]


@dataclass(slots=True)
class _Partial:
    image: NDArray[Any]
    timestamp_s: float
    places: set[tuple[int, int]] = field(default_factory=set)


class ModuleAssembler:
    """Join the modules of each frame.

    At most `window` frames are under way. When another begins, the one that began first is given
    up: its modules are named, and what still comes of it is counted as late.

    Parameters
    ----------
    start : SeriesStart
        The series; its frame size is that of the whole detector.
    grid : (int, int)
        Rows and columns of modules.
    window : int
        Frames that may be under way.

    Attributes
    ----------
    incomplete : dict of int to str
        Frames that were given up, and why.
    counts : Counter of str
        Parts and frames that were refused, by reason.
    """

    def __init__(
        self, start: SeriesStart, grid: tuple[int, int], *, window: int = DEFAULT_WINDOW
    ) -> None:
        self._start = start
        self._grid = grid
        self._window = window
        self._partial: dict[int, _Partial] = {}
        self._done: set[int] = set()
        self.incomplete: dict[int, str] = {}
        self.counts: Counter[str] = Counter()

    def add(self, part: ModulePart) -> tuple[NDArray[Any], float] | None:
        """Put a part at its place.

        Returns
        -------
        (ndarray, float) or None
            The whole image and its earliest timestamp [s], once the last module has come.

        Raises
        ------
        FrameError
            If the part came before, or its frame was given up.
        """
        place = (part.row, part.column)
        self._refuse_known(part.number, place)
        if self._grid == (1, 1):
            self._done.add(part.number)
            return part.pixels, part.timestamp_s
        partial = self._partial.get(part.number)
        if partial is None:
            partial = self._begin(part)
        rows, columns = part.pixels.shape
        top, left = part.row * rows, part.column * columns
        partial.image[top : top + rows, left : left + columns] = part.pixels
        partial.places.add(place)
        # The earliest: whichever module's part comes first, the frame has the same timestamp.
        partial.timestamp_s = min(partial.timestamp_s, part.timestamp_s)
        if len(partial.places) < self._grid[0] * self._grid[1]:
            return None
        del self._partial[part.number]
        self._done.add(part.number)
        return partial.image, partial.timestamp_s

    def _refuse_known(self, number: int, place: tuple[int, int]) -> None:
        if number in self.incomplete:
            self.counts["late_module"] += 1
            raise FrameError(f"module {place} of frame {number}, {self.incomplete[number]}")
        partial = self._partial.get(number)
        if number in self._done or (partial is not None and place in partial.places):
            self.counts["duplicate_module"] += 1
            raise FrameError(f"module {place} of frame {number} came twice")

    def _begin(self, part: ModulePart) -> _Partial:
        if len(self._partial) >= self._window:
            self._give_up_for_modules(next(iter(self._partial)))
        image = np.empty((self._start.rows, self._start.columns), dtype=self._start.dtype)
        partial = self._partial[part.number] = _Partial(image, part.timestamp_s)
        return partial

    def _give_up_for_modules(self, number: int) -> None:
        places = self._partial[number].places
        grid_rows, grid_columns = self._grid
        missing = [
            (row, column)
            for row in range(grid_rows)
            for column in range(grid_columns)
            if (row, column) not in places
        ]
        self.give_up(number, "module_missing", f"given up without modules {missing}")

    def give_up(self, number: int, count: str, why: str) -> None:
        """Give up a frame that can not become whole, unless it has been delivered or given up."""
        if number in self._done or number in self.incomplete:
            return
        self._partial.pop(number, None)
        self.incomplete[number] = why
        self.counts[count] += 1
        logger.warning("frame %d of series %d: %s", number, self._start.series, why)

    def finish(self) -> None:
        """Give up whatever is still under way."""
        for number in list(self._partial):
            self._give_up_for_modules(number)

    @property
    def whole(self) -> bool:
        """Whether every frame of the series was delivered or given up."""
        return len(self._done) + len(self.incomplete) == self._start.num_frames

    @property
    def missing(self) -> list[int]:
        """Frames that were not delivered."""
        return [number for number in range(self._start.num_frames) if number not in self._done]
