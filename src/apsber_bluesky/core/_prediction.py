"""What a plan will take, predicted before anything moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from apsber_bluesky.core._errors import InputError
from apsber_bluesky.core._tomography import TomographyScan

_GIGABYTE = 1e9
#: Part of the free disk that a scan may fill; the rest is for what else is written meanwhile.
_USABLE_DISK = 0.95


@runtime_checkable
class ScanResources(Protocol):
    """What this place has, and what a scan takes of it; the session provides it to detectors."""

    @property
    def free_disk_bytes(self) -> int:
        """Room for frames and results [byte]."""
        ...

    @property
    def free_memory_bytes(self) -> int:
        """Memory that processing may still take [byte]."""
        ...

    @property
    def first_slice_projections(self) -> int:
        """Projections that the first live slice waits for; 0 if none are shown."""
        ...

    def memory_bytes(self, scan: TomographyScan) -> int:
        """Memory that processing a scan takes [byte]."""
        ...

    def result_bytes(self, scan: TomographyScan) -> int:
        """Disk that the results of a scan take beside its frames [byte]."""
        ...


@dataclass(frozen=True, slots=True)
class ScanPrediction:
    """What a plan will take.

    Attributes
    ----------
    plan_name : str
        The plan.
    duration_s : float
        From its first to its last message [s].
    frames : int
        Frames of all series.
    disk_bytes : int
        Frames and results on disk [byte].
    beam_time_s : float
        Time that the sample is in the open beam, which its dose goes with [s].
    memory_bytes : int or None
        Memory that processing takes [byte]; None if nobody could say.
    first_slice_s : float or None
        Time until the first live slice [s]; None if there is none.
    free_disk_bytes, free_memory_bytes : int or None
        What is there [byte]; None if nobody could say.
    """

    plan_name: str
    duration_s: float
    frames: int
    disk_bytes: int
    beam_time_s: float
    memory_bytes: int | None = None
    first_slice_s: float | None = None
    free_disk_bytes: int | None = None
    free_memory_bytes: int | None = None

    @property
    def problems(self) -> list[str]:
        """What cannot fit, each with what to change; empty if all does."""
        found = []
        disk, memory = self.free_disk_bytes, self.free_memory_bytes
        if disk is not None and self.disk_bytes > _USABLE_DISK * disk:
            found.append(
                f"{self.frames} frames and what is made of them take"
                f" {self.disk_bytes / _GIGABYTE:.3g} GB of disk, {disk / _GIGABYTE:.3g} GB are"
                " free: take fewer frames, free space or choose another data root"
            )
        if memory is not None and self.memory_bytes is not None and self.memory_bytes > memory:
            found.append(
                f"reconstruction takes {self.memory_bytes / _GIGABYTE:.3g} GB of memory,"
                f" {memory / _GIGABYTE:.3g} GB are free: take fewer projections, bin the camera or"
                " read out fewer rows"
            )
        return found

    def refuse(self) -> None:
        """Refuse what cannot fit.

        Raises
        ------
        InputError
            If anything does not; the message says what to change.
        """
        if problems := self.problems:
            raise InputError(f"{self.plan_name} cannot fit: {'; '.join(problems)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the problems."""
        return {**asdict(self), "problems": self.problems}


_asked: ContextVar[list[ScanPrediction] | None] = ContextVar("_asked", default=None)


@contextmanager
def asking_for_predictions() -> Iterator[list[ScanPrediction]]:
    """Collect what plans predict instead of having them refuse.

    Yields
    ------
    list of ScanPrediction
        Filled by plans that begin meanwhile.
    """
    found: list[ScanPrediction] = []
    token = _asked.set(found)
    try:
        yield found
    finally:
        _asked.reset(token)


def submit_prediction(prediction: ScanPrediction) -> None:
    """Hand a plan's prediction to whoever asks for it, or refuse what cannot fit.

    Raises
    ------
    InputError
        If nobody asks, and the plan cannot fit.
    """
    asked = _asked.get()
    if asked is None:
        prediction.refuse()
    else:
        asked.append(prediction)
