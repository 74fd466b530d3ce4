"""Stages that look at each frame of a run while the frames come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import FrameRange, InputError
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.pipeline._series_energies import SERIES_RUN

_CHUNK_FRAMES: Final = 16


class FrameWork(Protocol):
    """What is done to the frames of one run."""

    def look(self, first: int, images: NDArray[Any]) -> None:
        """Look at frames, shape ``(n, rows, columns)``; `first` is the number of the first."""
        ...

    def finish(self) -> None:
        """No more come: keep what was found, and record it."""
        ...

    def close(self) -> None:
        """Remove what is not finished."""
        ...


class FrameStage(ABC):
    """Look at the frames of stream ``primary``, each once and in order.

    A Jungfrau's raw frames mean nothing before they are energies: of a run of ``jungfrau_series``
    the stage takes what `energies` is given, which is for `SeriesEnergies` to call.
    """

    essential = False

    def __init__(self) -> None:
        self._uid = ""
        self._work: FrameWork | None = None
        self._done = 0
        self._failure: Exception | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the stage."""

    @abstractmethod
    def _begin(self, context: RunContext, shape: tuple[int, int], photon: float) -> FrameWork:
        """Start on a run: shape of its frames, and what a photon gives in a pixel."""

    def frames(self, context: RunContext, frames: FrameRange) -> None:
        """Look at frames that were announced; what goes wrong is told by `run`."""
        if frames.stream == "primary" and not _has_energies(context):
            self._attempt(context, lambda: self._read(context, frames))

    def energies(self, context: RunContext, number: int, image: NDArray[np.float32]) -> None:
        """Look at a frame of energies [keV]; what goes wrong is told by `run`."""

        def look() -> None:
            photon = context.run.conditions.get("photon_energy_keV")
            if not photon:
                raise InputError(
                    "the photon energy of this run is not known; give photon_energy_keV to the"
                    " detector in the profile"
                )
            self._look(context, number, image[None], float(photon))

        self._attempt(context, look)

    def run(self, context: RunContext) -> None:
        """Look at what is left, and keep what was found.

        Raises
        ------
        ApsberError
            If it cannot be done; the frames are on disk all the same.
        """
        try:
            for frames in context.findings.frames:
                self.frames(context, frames)
            if self._failure is not None:
                raise self._failure
            if self._work is not None:
                self._work.finish()
            elif context.findings.frames and _has_energies(context):
                raise InputError(
                    f"{self.name}: the frames of this Jungfrau did not become energies; set"
                    " processing.jungfrau.gain_file and take pedestals"
                )
        finally:
            self.over()

    def over(self) -> None:
        """Forget the run; a file that is not finished is removed."""
        work, self._work = self._work, None
        self._uid, self._done, self._failure = "", 0, None
        if work is not None:
            work.close()

    def _attempt(self, context: RunContext, work: Callable[[], None]) -> None:
        if self._uid != context.run.uid:
            self.over()
            self._uid = context.run.uid
        if self._failure is None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - raised again by run
                self._failure = error

    def _read(self, context: RunContext, frames: FrameRange) -> None:
        source = context.findings.source
        while source is not None and self._done < frames.stop:
            context.check_cancelled(self.name)
            stop = min(self._done + _CHUNK_FRAMES, frames.stop)
            self._look(
                context, self._done, source.read(replace(frames, start=self._done, stop=stop)), 1.0
            )

    def _look(self, context: RunContext, first: int, images: NDArray[Any], photon: float) -> None:
        if images.ndim != 3:
            raise InputError(f"{self.name} needs images, not frames of shape {images.shape[1:]}")
        if self._work is None:
            rows, columns = images.shape[1:]
            self._work = self._begin(context, (rows, columns), photon)
        self._work.look(first, images)
        self._done = first + len(images)


def _has_energies(context: RunContext) -> bool:
    return context.run.conditions.get("kind") == SERIES_RUN


def missing_frames_of(context: RunContext) -> list[int]:
    """Numbers of the frames of ``primary`` that are not on disk, so that zeros were looked at."""
    books = context.findings.books.streams
    return sorted(
        {n for name, book in books.items() if name.endswith("primary") for n in book.unusable}
    )
