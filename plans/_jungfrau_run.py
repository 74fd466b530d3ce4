"""What the plans of a Jungfrau share: times, and settings of the chips that are put back."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.devices import JungfrauChip, JungfrauDetector
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._scan import check_timing

#: Time the detector needs between exposures [s] when the plan is not told the period.
READOUT_MARGIN_S: Final = 0.002


def exposure_timing(chip: JungfrauChip, exposure_s: float, frame_period_s: float | None) -> Timing:
    """Check the times of a series, and work out its period.

    Raises
    ------
    InputError
        If one is wrong; it names the argument.
    """
    timing = check_timing(exposure_s, frame_period_s)
    if frame_period_s is not None:
        return timing
    return Timing(exposure_s, chip.exposure_s(exposure_s) + READOUT_MARGIN_S)


def set_chip(detector: JungfrauDetector, chip: JungfrauChip) -> MsgGenerator[None]:
    """Have the next series set this."""
    yield from bps.mv(
        detector.gain_mode,
        chip.gain_mode,
        detector.setting,
        chip.setting,
        detector.extra_storage_cells,
        chip.extra_storage_cells,
        detector.storage_cell_start,
        chip.storage_cell_start,
        detector.storage_cell_delay_s,
        chip.storage_cell_delay_s,
    )


def with_chip(
    detector: JungfrauDetector, chip: JungfrauChip, plan: Generator[Msg, Any, str]
) -> Generator[Msg, Any, str]:
    """Set the chips, do a plan, and have them as they were, whatever happens.

    Returns
    -------
    str
        What the plan returns.
    """
    before = detector.chip

    def whole() -> Generator[Msg, Any, str]:
        yield from set_chip(detector, chip)
        return (yield from plan)

    uid: str = yield from bpp.finalize_wrapper(whole(), lambda: set_chip(detector, before))
    return uid
