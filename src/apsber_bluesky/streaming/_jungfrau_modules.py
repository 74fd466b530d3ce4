"""Modules become images: parts with one frame number are joined, in a window that is bounded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._series_messages import SeriesStart

DEFAULT_WINDOW: Final = 256
DEFAULT_WINDOW_BYTES: Final = 256 << 20

# A socket keeps the order of its messages; what a module has passed by so far will not come.
_SLACK: Final = 16

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ModulePart:
    """What one module saw of one frame.

    Attributes
    ----------
    number : int
        Number of the frame in its series, from 0.
    place : (int, int)
        Row and column of the module in the grid.
    timestamp_s : float
        Time of the exposure [s].
    pixels : ndarray, shape (module rows, module columns)
        The raw pixels.
    fault : str
        Why some of the pixels are zero; empty if all came.
    """

    number: int
    place: Place
    timestamp_s: float
    pixels: NDArray[Any]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class JoinedImage:
    """The parts of one frame, put together; `fault` says what is missing, if anything is."""

    number: int
    timestamp_s: float
    pixels: NDArray[Any]
    fault: str = ""


@dataclass(slots=True)
class _Partial:
    image: NDArray[Any]
    timestamp_s: float
    places: set[Place] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


class ModuleAssembler:
    """Join the modules of each frame.

    A frame is let go when its last part has come; when each module that it waits for has sent
    parts of later frames; or when too many frames are under way, of which it began first. Then
    the pixels of missing parts are zero, and what still comes of them is refused as late.

    Parameters
    ----------
    start : SeriesStart
        The series; its frame size is that of the whole detector.
    grid : (int, int)
        Rows and columns of modules.
    window : int
        Frames that may be under way.
    window_bytes : int
        Memory that they may take [byte]; one frame always may.

    Attributes
    ----------
    incomplete : dict of int to str
        Frames that were let go with parts missing, and why.
    counts : Counter of str
        Parts and frames that were not as they should be, by reason.
    """

    def __init__(
        self,
        start: SeriesStart,
        grid: tuple[int, int],
        *,
        window: int = DEFAULT_WINDOW,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
    ) -> None:
        self._start = start
        self._places = tuple((row, column) for row in range(grid[0]) for column in range(grid[1]))
        self._module_shape = (start.rows // grid[0], start.columns // grid[1])
        self._window = max(1, min(window, window_bytes // start.frame_bytes))
        self._partial: dict[int, _Partial] = {}
        self._newest: dict[Place, int] = {}
        self._refused: dict[tuple[int, Place], str] = {}
        self._missed: dict[int, set[Place]] = {}
        self._done: set[int] = set()
        self.incomplete: dict[int, str] = {}
        self.counts: Counter[str] = Counter()

    def add(self, part: ModulePart) -> list[JoinedImage]:
        """Put a part at its place.

        Returns
        -------
        list of JoinedImage
            Images that are now let go.

        Raises
        ------
        FrameError
            If the part came before, or its frame was let go without it.
        """
        self._refuse_known(part.number, part.place)
        partial = self._partial.get(part.number)
        images = []
        if partial is None:
            if len(self._partial) >= self._window:
                images.append(self._let_go(next(iter(self._partial))))
            partial = _Partial(self._image_for(part), part.timestamp_s)
            self._partial[part.number] = partial
        self._put(partial, part)
        if len(partial.places) == len(self._places):
            images.append(self._let_go(part.number))
        return images + self.passed(part.place, part.number)

    def refuse(self, number: int, place: Place, why: str) -> None:
        """Note why a part could not be used; its frame waits for it no longer than for another."""
        if number not in self._done:
            self._refused[number, place] = why

    def passed(self, place: Place, number: int) -> list[JoinedImage]:
        """A module has sent a part of frame `number`; images that it is no longer awaited for."""
        self._newest[place] = max(number, self._newest.get(place, -1))
        images = []
        while self._partial:
            oldest = next(iter(self._partial))
            if oldest + _SLACK > number or not self._is_passed(oldest):
                break
            images.append(self._let_go(oldest))
        return images

    def passed_all(self, place: Place) -> list[JoinedImage]:
        """A module has said that it has sent everything; images that do not wait for another."""
        return self.passed(place, self._start.num_frames + _SLACK)

    def _is_passed(self, number: int) -> bool:
        return all(
            self._newest.get(place, -1) >= number + _SLACK
            for place in self._places
            if place not in self._partial[number].places
        )

    def _image_for(self, part: ModulePart) -> NDArray[Any]:
        # One module is the image itself; it is not copied.
        if len(self._places) == 1:
            return part.pixels
        return np.empty((self._start.rows, self._start.columns), dtype=self._start.dtype)

    def _put(self, partial: _Partial, part: ModulePart) -> None:
        if partial.image is not part.pixels:
            self._module(partial.image, part.place)[:] = part.pixels
        partial.places.add(part.place)
        # The earliest: whichever module's part comes first, the frame has the same timestamp.
        partial.timestamp_s = min(partial.timestamp_s, part.timestamp_s)
        if part.fault:
            partial.faults.append(f"module {part.place} has {part.fault}")

    def _module(self, image: NDArray[Any], place: Place) -> NDArray[Any]:
        rows, columns = self._module_shape
        top, left = place[0] * rows, place[1] * columns
        return image[top : top + rows, left : left + columns]

    def _refuse_known(self, number: int, place: Place) -> None:
        if place in self._missed.get(number, ()):
            self.counts["late_module"] += 1
            raise FrameError(f"module {place} of frame {number} came too late: it was let go")
        partial = self._partial.get(number)
        if number in self._done or (partial is not None and place in partial.places):
            self.counts["duplicate_module"] += 1
            raise FrameError(f"module {place} of frame {number} came twice")

    def _let_go(self, number: int) -> JoinedImage:
        partial = self._partial.pop(number)
        self._done.add(number)
        missing = [place for place in self._places if place not in partial.places]
        for place in missing:
            self._module(partial.image, place)[:] = 0
            why = self._refused.pop((number, place), "not come")
            partial.faults.append(f"module {place} has {why}")
        if missing:
            self._missed[number] = set(missing)
            self.counts["module_missing"] += len(missing)
        fault = "; ".join(partial.faults)
        if fault:
            self.incomplete[number] = fault
        return JoinedImage(number, partial.timestamp_s, partial.image, fault)

    def finish(self) -> list[JoinedImage]:
        """Let go of whatever is still under way, in the order of frames."""
        return [self._let_go(number) for number in sorted(self._partial)]

    @property
    def whole(self) -> bool:
        """Whether every frame of the series was let go."""
        return len(self._done) == self._start.num_frames

    @property
    def missing(self) -> list[int]:
        """Frames of which nothing has been let go."""
        return [number for number in range(self._start.num_frames) if number not in self._done]
