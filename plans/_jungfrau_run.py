"""What the plans of a Jungfrau share: settings that are put back, and a run that ends safely."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import FailedPause, Msg, MsgGenerator, RunEngineControlException

from apsber_bluesky.core import InputError, StreamName
from apsber_bluesky.devices import (
    FastShutter,
    FrameSeries,
    JungfrauDetector,
    RotationStage,
    Trigger,
)

#: Time the detector needs between exposures [s] when the plan is not told the period.
READOUT_MARGIN_S = 0.002
_FLUSH_S = 0.25


@dataclass(frozen=True, slots=True)
class ChipSettings:
    """What a plan sets of a Jungfrau.

    Attributes
    ----------
    gain_mode, setting : str
        How pixels choose their gain, and the setting of the preamplifier.
    extra_storage_cells, storage_cell_start : int
        Storage cells that an exposure fills beside its first one, and which that is.
    """

    gain_mode: str
    setting: str
    extra_storage_cells: int
    storage_cell_start: int

    def apply(self, detector: JungfrauDetector) -> MsgGenerator[None]:
        """Have the next series take them."""
        yield from bps.mv(
            detector.gain_mode,
            self.gain_mode,
            detector.setting,
            self.setting,
            detector.extra_storage_cells,
            self.extra_storage_cells,
            detector.storage_cell_start,
            self.storage_cell_start,
        )

    @classmethod
    def of(cls, detector: JungfrauDetector) -> ChipSettings:
        """Those of the detector now."""
        return cls(
            detector.gain_mode.get(),
            detector.setting.get(),
            detector.extra_storage_cells.get(),
            detector.storage_cell_start.get(),
        )


@dataclass(frozen=True, slots=True)
class Exposures:
    """Frames of one series.

    Attributes
    ----------
    num_frames : int
        Frames, those of all storage cells counted.
    exposure_s, period_s : float
        Exposure time and time between the beginnings of two exposures [s].
    trigger : str
        What begins an exposure.
    """

    num_frames: int
    exposure_s: float
    period_s: float
    trigger: Trigger = "internal"

    def series(self, uid: str, stream: StreamName) -> FrameSeries:
        """The request for the detector."""
        return FrameSeries(
            run_uid=uid,
            stream=stream,
            num_frames=self.num_frames,
            exposure_s=self.exposure_s,
            period_s=self.period_s,
            trigger=self.trigger,
        )


def check_exposures(
    num_frames: int,
    exposure_s: float,
    frame_period_s: float | None,
    images_per_exposure: int = 1,
    trigger: Trigger = "internal",
) -> Exposures:
    """Check the numbers of a series, and work out its period.

    Raises
    ------
    InputError
        If one is wrong; it names the argument.
    """
    if type(num_frames) is not int or num_frames < 1:
        raise InputError(f"num_frames is {num_frames!r}; give 1 or more")
    for name, value in (("exposure_s", exposure_s), ("frame_period_s", frame_period_s)):
        number = isinstance(value, int | float) and type(value) is not bool
        if value is None and name == "frame_period_s":
            continue
        if not (number and math.isfinite(value or 0) and (value or 0) > 0):
            raise InputError(f"{name} is {value!r}; give a positive number of seconds")
    period_s = frame_period_s or images_per_exposure * exposure_s + READOUT_MARGIN_S
    return Exposures(num_frames, exposure_s, period_s, trigger)


def jungfrau_run(
    detector: JungfrauDetector,
    shutter: FastShutter,
    rotation: RotationStage | None,
    settings: ChipSettings,
    body: Generator[Msg, Any, str],
) -> Generator[Msg, Any, str]:
    """Apply settings, run `body`, and put them back as they were, whatever happens.

    Shutter, detector and rotation are left safe.
    """
    before = ChipSettings.of(detector)

    def whole() -> Generator[Msg, Any, str]:
        yield from settings.apply(detector)
        return (yield from body)

    def close_up() -> MsgGenerator[None]:
        yield from bpp.finalize_wrapper(
            bps.abs_set(shutter, "close", wait=True),
            lambda: bpp.finalize_wrapper(_stop(detector, rotation), lambda: before.apply(detector)),
        )

    uid: str = yield from bpp.finalize_wrapper(whole(), close_up)
    return uid


def _stop(detector: JungfrauDetector, rotation: RotationStage | None) -> MsgGenerator[None]:
    if rotation is not None:
        yield from bps.stop(rotation)
    yield from bps.stop(detector)


def recorded_run(
    detector: JungfrauDetector,
    rotation: RotationStage | None,
    metadata: dict[str, Any],
    take: Any,
) -> Generator[Msg, Any, str]:
    """One run around ``take(uid)``, closed with what became of it.

    Returns
    -------
    str
        Bluesky run uid.
    """
    uid: str = yield from bps.open_run(metadata)
    staged = [detector] if rotation is None else [detector, rotation]
    # Staged inside the run: unstaging closes the spool, so the stop document finds it closed.
    yield from bpp.contingency_wrapper(
        bpp.stage_wrapper(take(uid), staged),
        except_plan=_close_failed_run,
        else_plan=bps.close_run,
    )
    return uid


def _close_failed_run(error: Exception) -> MsgGenerator[None]:
    if isinstance(error, FailedPause):
        reason = "paused within a series, which cannot be resumed; take it again"
        yield from bps.close_run(exit_status="abort", reason=reason)
    elif isinstance(error, RunEngineControlException):
        yield from bps.close_run(exit_status=error.exit_status)
    else:
        yield from bps.close_run(exit_status="fail", reason=str(error) or type(error).__name__)


def begin_series() -> MsgGenerator[None]:
    """A pause that waits for its moment comes here; one that does not ends the run.

    Frames of a series belong together: resumed, it would be another one.
    """
    yield from bps.checkpoint()
    yield from bps.clear_checkpoint()


def take_series(
    detector: JungfrauDetector, series: FrameSeries, *, declared: bool = False
) -> MsgGenerator[None]:
    """Take a series that needs nothing else to move."""
    yield from begin_series()
    yield from bps.prepare(detector, series, wait=True)
    if not declared:
        yield from bps.declare_stream(detector, name=series.stream, collect=True)
    yield from bps.kickoff(detector, wait=True)
    yield from collect(detector, [detector], series.stream)


def collect(
    detector: JungfrauDetector, flyers: list[Any], stream: StreamName
) -> MsgGenerator[None]:
    """Announce frames as they come, until every flyer is done."""
    yield from bps.collect_while_completing(
        flyers, [detector], flush_period=_FLUSH_S, stream_name=stream
    )
