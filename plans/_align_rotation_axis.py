"""Bring the rotation axis to a column of the camera, and upright."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator
from ophyd import Signal

from apsber_bluesky.core import AxisEstimate, AxisFinder, InputError, PlanError, submit_prediction
from apsber_bluesky.devices import Camera, FastShutter, RotationStage, SampleStage
from apsber_bluesky.plans._checks import check_count, check_number
from apsber_bluesky.plans._detector_run import DetectorRun, detector_run, run_metadata
from apsber_bluesky.plans._preflight import motion_s, predict_series, series_s
from apsber_bluesky.plans._scan import check_timing

_UM_PER_MM: Final = 1000.0
# Below this a step says more about noise than about the stage.
_LEAST_STEP_PX: Final = 2.0
_LEAST_STEP_DEG: Final = 0.2


@dataclass(slots=True)
class _Axis:
    """Steps of one motor towards a goal; how much it moves what is seen is learnt on the way.

    The sign of a stage and the size of a pixel are easily wrong by configuration; the second step
    knows better than the first.
    """

    gain: float
    least_step: float
    _last: tuple[float, float] | None = field(default=None)

    def step(self, error: float, seen: float) -> float:
        """How far to move the motor [its unit], `error` being what is wanted less what is seen."""
        if self._last is not None:
            moved, before = self._last
            changed = seen - before
            if abs(changed) > self.least_step and moved != 0:
                self.gain = changed / moved
        step = error / self.gain
        self._last = (step, seen)
        return step


def align_rotation_axis(
    camera: Camera,
    rotation: RotationStage,
    shutter: FastShutter,
    sample_stage: SampleStage,
    *,
    wanted_column_px: float | None = None,
    tolerance_px: float = 0.5,
    tolerance_roll_deg: float = 0.05,
    correct_roll: bool = True,
    max_iterations: int = 6,
    exposure_s: float = 0.05,
    num_darks: int = 3,
    num_flats: int = 3,
    sample_in_mm: float | None = None,
    sample_out_mm: float = 8.0,
    rotation_start_deg: float = 0.0,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, str]:
    """Move the rotation axis to a column of the camera, and stand it upright.

    Two projections half a turn apart are mirror images about the axis. They are taken, the axis is
    found in them, `sample_stage` is moved, and so on until the axis is where it is wanted. A stage
    with an axis ``roll`` is also leaned until the axis is upright; without one the lean is only
    told. What was found is stream ``axis`` of the run.

    Parameters
    ----------
    camera : Camera
        Camera to expose.
    rotation : RotationStage
        Stage whose axis is aligned.
    shutter : FastShutter
        Shutter, closed after the run.
    sample_stage : SampleStage
        Stage below the rotation stage, with axis ``x`` and perhaps ``roll``.
    wanted_column_px : float, optional
        Column for the axis, in the middle row [pixel]; the middle of the camera when not given.
    tolerance_px : float
        How far from there it may be at the end [pixel].
    tolerance_roll_deg : float
        How far it may lean at the end [deg], if the stage can lean it.
    correct_roll : bool
        Whether to use the axis ``roll`` of the stage.
    max_iterations : int
        Pairs of projections to take at most.
    exposure_s : float
        Exposure time of each frame [s].
    num_darks, num_flats : int
        Darks and flats to take first, 1 or more.
    sample_in_mm : float, optional
        Position of ``sample_stage.x`` to begin at [mm]; where it stands when not given.
    sample_out_mm : float
        Position of ``sample_stage.x`` with the sample out of the beam [mm].
    rotation_start_deg : float
        Angle of the first projection of each pair [deg]; the other is half a turn on.
    sample : str
        Name of the sample.
    md : dict, optional
        Further metadata of the run.

    Yields
    ------
    Msg
        Messages for the RunEngine.

    Returns
    -------
    str
        Bluesky run uid.

    Raises
    ------
    InputError
        If an argument is wrong, before anything moves; or projections match about no axis.
    PlanError
        If the axis is not where it is wanted after all iterations; it says where it is.
    """
    timing = check_timing(exposure_s, None)
    _rows, columns = camera.frame_shape
    wanted_px = (columns - 1) / 2 if wanted_column_px is None else wanted_column_px
    check_number("wanted_column_px", wanted_px, 0, columns - 1, "pixel")
    check_number("tolerance_px", tolerance_px, 0.01, columns, "pixel")
    check_number("tolerance_roll_deg", tolerance_roll_deg, 0.001, 90, "deg")
    in_mm = float(sample_stage.x.position) if sample_in_mm is None else sample_in_mm
    check_number("sample_in_mm", in_mm, -1e4, 1e4, "mm")
    check_number("sample_out_mm", sample_out_mm, -1e4, 1e4, "mm")
    if in_mm == sample_out_mm:
        raise InputError(f"the sample would be at sample_out_mm, {in_mm:g}, for projections, too")
    for name, value in (
        ("max_iterations", max_iterations),
        ("num_darks", num_darks),
        ("num_flats", num_flats),
    ):
        check_count(name, value)
    finder = sample_stage.axis_finder
    if finder is None:
        raise InputError(f"{sample_stage.name} has no axis finder; start a session")
    if camera.pixel_size_um is None:
        raise InputError(f"{camera.name} has no pixel_size_um; give it in the profile")
    leans = correct_roll and hasattr(sample_stage, "roll")
    pair_s = 2 * (exposure_s + series_s(1, timing)) + motion_s(rotation, 180.0)
    took_s = series_s(num_darks, timing) + series_s(num_flats, timing)
    took_s += 2 * motion_s(sample_stage.x, sample_out_mm - in_mm) + max_iterations * pair_s
    frames = num_darks + num_flats + 2 * max_iterations
    submit_prediction(
        predict_series("align_rotation_axis", camera, frames, took_s, max_iterations * pair_s)
    )
    alignment = _Alignment(camera, rotation, shutter, sample_stage, finder, num_darks, num_flats)
    goal = _Goal(wanted_px, tolerance_px, tolerance_roll_deg if leans else None, max_iterations)

    def body(run: DetectorRun) -> MsgGenerator[None]:
        yield from alignment.references(run, in_mm, sample_out_mm)
        yield from alignment.approach(run, goal, rotation_start_deg)

    conditions = {
        "purpose": "align_rotation_axis",
        "wanted_column_px": wanted_px,
        "tolerance_px": tolerance_px,
        "tolerance_roll_deg": tolerance_roll_deg if leans else None,
        "exposure_s": exposure_s,
    }
    metadata = run_metadata(
        "align_rotation_axis", "detector", camera, 0, conditions, sample=sample, md=md
    )
    metadata = {"motors": [rotation.name], **metadata}
    stops = (rotation, sample_stage)
    return (yield from detector_run(camera, shutter, timing, metadata, body, stops))


@dataclass(frozen=True, slots=True)
class _Goal:
    column_px: float
    tolerance_px: float
    tolerance_roll_deg: float | None
    iterations: int

    def reached(self, found: AxisEstimate) -> bool:
        upright = self.tolerance_roll_deg is None or abs(found.roll_deg) <= self.tolerance_roll_deg
        return upright and abs(found.column_px - self.column_px) <= self.tolerance_px


class _Alignment:
    """The parts of the plan that share its devices."""

    def __init__(
        self,
        camera: Camera,
        rotation: RotationStage,
        shutter: FastShutter,
        stage: SampleStage,
        finder: AxisFinder,
        num_darks: int,
        num_flats: int,
    ) -> None:
        self._camera, self._rotation, self._shutter, self._stage = camera, rotation, shutter, stage
        self._finder = finder
        self._num_darks, self._num_flats = num_darks, num_flats
        self._column = Signal(name="axis_column_px", value=0.0)
        self._roll = Signal(name="axis_roll_deg", value=0.0)

    def references(
        self, run: DetectorRun, sample_in_mm: float, sample_out_mm: float
    ) -> MsgGenerator[None]:
        """Darks and flats; then the sample is in the beam."""
        yield from run.take("darks", self._num_darks, beam=False)
        yield from bps.mv(self._stage.x, sample_out_mm)
        yield from run.take("flats", self._num_flats, beam=True)
        yield from bps.mv(self._stage.x, sample_in_mm)

    def approach(self, run: DetectorRun, goal: _Goal, start_deg: float) -> MsgGenerator[None]:
        """Look and move, until the goal is reached."""
        pixel_um = self._camera.pixel_size_um
        assert pixel_um is not None
        x = _Axis(_UM_PER_MM / pixel_um, _LEAST_STEP_PX)
        roll = _Axis(1.0, _LEAST_STEP_DEG)
        for number in range(goal.iterations):
            found = yield from self._look(run, 2 * number, start_deg)
            if goal.reached(found):
                return
            if number == goal.iterations - 1:
                break
            yield from bps.checkpoint()
            step_mm = x.step(goal.column_px - found.column_px, found.column_px)
            yield from bps.mvr(self._stage.x, step_mm)
            if goal.tolerance_roll_deg is not None:
                step_deg = roll.step(-found.roll_deg, found.roll_deg)
                yield from bps.mvr(self._stage.roll, step_deg)
        raise PlanError(
            f"after {goal.iterations} pairs of projections the rotation axis is at column"
            f" {found.column_px:.2f}, {goal.column_px:.2f} is wanted, and leans by"
            f" {found.roll_deg:.3f} deg; allow more iterations or a larger tolerance"
        )

    def _look(self, run: DetectorRun, first: int, start_deg: float) -> MsgGenerator[AxisEstimate]:
        """Take two opposite projections and find the axis in them."""
        series = run.series("primary", 2, "step")
        yield from bps.checkpoint()
        yield from bps.prepare(self._camera, series, wait=True)
        for number in (0, 1):
            yield from bps.checkpoint()
            # All that a point needs: bluesky repeats it after a pause, which closes the shutter.
            yield from bps.mv(self._shutter, "open", self._rotation, start_deg + 180.0 * number)
            yield from bps.mv(self._camera.next_frame, number)
            yield from bps.trigger_and_read([self._camera, self._rotation, self._stage.x])
        yield from bps.mv(self._shutter, "close")
        yield from bps.checkpoint()
        found = yield from self._find(run.uid, first)
        yield from bps.mv(self._column, found.column_px, self._roll, found.roll_deg)
        yield from bps.create(name="axis")
        for signal in (self._column, self._roll, self._stage.x):
            yield from bps.read(signal)
        yield from bps.save()
        return found

    def _find(self, uid: str, first: int) -> MsgGenerator[AxisEstimate]:
        """Do the sums in a thread: the RunEngine goes on listening."""
        results: list[AxisEstimate] = []
        failures: list[Exception] = []

        def work() -> None:
            try:
                results.append(
                    self._finder.find(
                        uid, first, num_darks=self._num_darks, num_flats=self._num_flats
                    )
                )
            except Exception as error:  # noqa: BLE001 - raised again where the plan can see it
                failures.append(error)

        yield from bps.wait_for([lambda: asyncio.ensure_future(asyncio.to_thread(work))])
        if failures:
            raise failures[0]
        return results[-1]
