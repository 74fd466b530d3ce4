"""How the receiver is doing, as plain values, and what deserves a warning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from apsber_bluesky.core import ServiceError, StreamingLimits

WarningKind = Literal["failure", "ring", "disk", "backlog", "refused", "silent"]

_BIN_S: Final = 0.25
_BINS: Final = 12


@dataclass(frozen=True, slots=True)
class ReceiverHealth:
    """The receiver at one moment.

    Attributes
    ----------
    run_uid, stream : str
        The series that is armed, or was last; empty before the first.
    armed : bool
        Whether frames are expected now.
    expected, received, written, missing, duplicated, refused : int
        The books of the stream so far, as in `apsber_bluesky.core.SeriesBooks`; `missing` counts
        the gaps before the newest frame.
    newest : int
        Index in the stream of the newest frame in the ring; -1 for none.
    rows, columns : int
        Size of its frames [pixel]; 0 before the first series.
    dtype : str
        Type of its pixels.
    frame_rate_hz, data_rate_mb_s : float
        Frames and their stored bytes per second, over the last seconds [Hz, MB/s].
    silent_s : float
        Time since the last frame, or since the series was armed [s].
    backlog_frames : int
        Frames that were accepted and are not yet written.
    ring_slots : int
        Frames that the ring holds.
    ring_fill : float
        Part of the ring, 0 to 1, whose frames a consumer still has to take.
    spool_free_gb, spool_size_gb : float
        Room for further frames on the disk, and the size of the disk [GB]; what is preallocated
        for the series counts as room.
    spool_free_s : float or None
        Time until the disk is full at the present rate [s]; None while nothing comes.
    decode_pending, decoded : int
        Compressed frames that wait for a decode worker, and that are done.
    failure : str
        Why the receiver can write no more; empty while all is well.
    """

    run_uid: str = ""
    stream: str = ""
    armed: bool = False
    expected: int = 0
    received: int = 0
    written: int = 0
    missing: int = 0
    duplicated: int = 0
    refused: int = 0
    newest: int = -1
    rows: int = 0
    columns: int = 0
    dtype: str = ""
    frame_rate_hz: float = 0.0
    data_rate_mb_s: float = 0.0
    silent_s: float = 0.0
    backlog_frames: int = 0
    ring_slots: int = 0
    ring_fill: float = 0.0
    spool_free_gb: float = 0.0
    spool_size_gb: float = 0.0
    spool_free_s: float | None = None
    decode_pending: int = 0
    decoded: int = 0
    failure: str = ""

    @property
    def to_come(self) -> int:
        """Frames that may come yet: those expected that neither came nor were passed over."""
        came = self.received - self.duplicated - self.refused
        return max(self.expected - came - self.missing, 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they travel between processes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReceiverHealth:
        """Read what `to_dict` made.

        Raises
        ------
        ServiceError
            If a value is unknown, of another kind, or no finite number.
        """
        known = {field.name: field.default for field in fields(cls)}
        for name, value in values.items():
            if name not in known or not _is_of_kind(name, value, known[name]):
                raise ServiceError(f"health of the receiver: {name} is {value!r:.60}")
        return cls(**{name: _plain(value, known[name]) for name, value in values.items()})


def _is_of_kind(name: str, value: Any, default: Any) -> bool:
    if name == "spool_free_s":
        return value is None or _is_of_kind("", value, 0.0)
    if isinstance(default, float):
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        return numeric and math.isfinite(value)
    return type(value) is type(default)


def _plain(value: Any, default: Any) -> Any:
    return float(value) if isinstance(default, float) else value


def time_until_full_s(free_bytes: float, data_rate_mb_s: float) -> float | None:
    """How long the disk lasts at a rate [s]; None while nothing comes."""
    return free_bytes / (data_rate_mb_s * 1e6) if data_rate_mb_s > 0 else None


class HealthCounter:
    """Count frames as they come, and tell the rate of the last seconds.

    One thread counts; any thread may ask. What is told is at most a quarter of a second old.

    Parameters
    ----------
    clock : callable
        A clock that never jumps [s].
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Forget what came before: a series is armed."""
        self._began_s = self._last_s = self._clock()
        # Frames and bytes of the last quarter seconds, and which quarter second each bin is of.
        self._frames = [0] * _BINS
        self._bytes = [0] * _BINS
        self._numbers = [-1] * _BINS

    def frame(self, size_bytes: int) -> None:
        """Count a frame of so many stored bytes; the cost is some 0.3 us."""
        now = self._last_s = self._clock()
        number = int(now / _BIN_S)
        place = number % _BINS
        if self._numbers[place] != number:
            self._frames[place] = self._bytes[place] = 0
            self._numbers[place] = number
        self._frames[place] += 1
        self._bytes[place] += size_bytes

    def rates(self, now: float | None = None) -> tuple[float, float]:
        """Frames per second and MB/s over the last three seconds, or since `begin` if later."""
        moment = self._clock() if now is None else now
        oldest = int(moment / _BIN_S) - _BINS + 1
        recent = [place for place in range(_BINS) if self._numbers[place] >= oldest]
        # The oldest bin is whole, the present one has only begun.
        covered = min(moment - oldest * _BIN_S, moment - self._began_s)
        seconds = max(covered, _BIN_S)
        frames = sum(self._frames[place] for place in recent)
        size_bytes = sum(self._bytes[place] for place in recent)
        return frames / seconds, size_bytes / seconds / 1e6

    def silent_s(self, now: float | None = None) -> float:
        """Time since the last frame, or since `begin` [s]."""
        return (self._clock() if now is None else now) - self._last_s


@dataclass(frozen=True, slots=True)
class HealthWarning:
    """Something that a person should know.

    Attributes
    ----------
    kind : str
        What it is about; there is at most one of a kind.
    message : str
        One line for a person.
    serious : bool
        Whether frames are, or will be, lost.
    """

    kind: WarningKind
    message: str
    serious: bool = False


def find_warnings(
    health: ReceiverHealth, limits: StreamingLimits, earlier: ReceiverHealth | None = None
) -> list[HealthWarning]:
    """What deserves a warning, the most serious first.

    Parameters
    ----------
    health : ReceiverHealth
        The receiver now.
    limits : StreamingLimits
        From the profile.
    earlier : ReceiverHealth, optional
        The receiver some seconds ago; without it nothing is said of growth.
    """
    found = [
        _failure(health),
        _disk(health, limits),
        _backlog(health, limits, earlier),
        _refused(health),
        _ring(health, limits),
        _silent(health, limits),
    ]
    return sorted((each for each in found if each is not None), key=lambda each: not each.serious)


def _failure(health: ReceiverHealth) -> HealthWarning | None:
    return HealthWarning("failure", health.failure, serious=True) if health.failure else None


def _disk(health: ReceiverHealth, limits: StreamingLimits) -> HealthWarning | None:
    left_s = health.spool_free_s
    if left_s is not None and health.armed and health.frame_rate_hz > 0:
        needed_s = health.to_come / health.frame_rate_hz
        if left_s < needed_s:
            return HealthWarning(
                "disk",
                f"the disk will be full in {_time(left_s)}, the series needs {_time(needed_s)}",
                serious=True,
            )
    if left_s is not None and left_s < limits.spool_minutes * 60:
        return HealthWarning("disk", f"the disk will be full in {_time(left_s)} at this rate")
    percent = 100 * health.spool_free_gb / health.spool_size_gb if health.spool_size_gb else 100.0
    if percent < limits.spool_free_percent:
        room = f"{health.spool_free_gb:.1f} GB, {percent:.1f} %"
        return HealthWarning("disk", f"only {room} of the disk are free")
    return None


def _backlog(
    health: ReceiverHealth, limits: StreamingLimits, earlier: ReceiverHealth | None
) -> HealthWarning | None:
    waiting = health.backlog_frames
    if earlier is None or waiting <= max(limits.backlog_frames, earlier.backlog_frames):
        return None
    return HealthWarning(
        "backlog", f"the disk is too slow: {waiting} frames wait for it and become more"
    )


def _refused(health: ReceiverHealth) -> HealthWarning | None:
    if not health.refused:
        return None
    return HealthWarning("refused", f"{health.refused} frames of {health.stream} were refused")


def _ring(health: ReceiverHealth, limits: StreamingLimits) -> HealthWarning | None:
    if health.ring_fill <= limits.ring_fill:
        return None
    return HealthWarning(
        "ring",
        f"consumers are behind by {100 * health.ring_fill:.0f} % of the ring;"
        " they will be served from the spool",
    )


def _silent(health: ReceiverHealth, limits: StreamingLimits) -> HealthWarning | None:
    if not health.armed or not health.to_come or health.silent_s <= limits.silent_s:
        return None
    return HealthWarning(
        "silent",
        f"no frame for {health.silent_s:.0f} s, {health.to_come} of {health.expected} may yet come",
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
