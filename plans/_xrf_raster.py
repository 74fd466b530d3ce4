"""How the pixels of a fluorescence map are taken, and what they will take."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from bluesky.utils import Msg, MsgGenerator
from ophyd import EpicsMotor

from apsber_bluesky.core import FluorescenceMap, InputError, ScanPrediction
from apsber_bluesky.devices import FastShutter, FlyAxis, FlyLine, FrameSeries, VortexDetector
from apsber_bluesky.plans._checks import check_reach
from apsber_bluesky.plans._detector_run import DetectorRun, Flight, detector_run
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._preflight import (
    SERIES_S,
    SHUTTER_S,
    flight_s,
    motion_s,
    place_of,
    point_s,
    predict_series,
)


@dataclass(frozen=True, slots=True)
class Raster:
    """The devices of a map, and how it is taken.

    Attributes
    ----------
    vortex, fast_axis, slow_axis, shutter : devices
        The devices; only a `FlyAxis` flies.
    map : FluorescenceMap
        The pixels.
    timing : Timing
        Exposure time, and time from one pixel to the next [s].
    """

    vortex: VortexDetector
    fast_axis: FlyAxis | EpicsMotor
    slow_axis: EpicsMotor
    shutter: FastShutter
    map: FluorescenceMap
    timing: Timing

    @property
    def flies(self) -> bool:
        """Whether each row is a series, not each pixel a point."""
        return self.map.mode == "fly"

    def series(self, run: DetectorRun) -> FrameSeries:
        """The request for the next row, or for the whole map when it is stepped.

        A series for each row: a pulse that the detector misses shifts no pixel of the next row.
        """
        if self.flies:
            return run.series("primary", self.map.columns, "external")
        return run.series("primary", self.map.num_frames, "step")

    def line(self, row: int) -> FlyLine:
        """The motion along a row; pixels are in the middle of what is seen while it moves."""
        step_mm, first = self.map.fast_step_mm, self.map.fast_start_mm
        if self.map.is_backwards(row):
            first, step_mm = first + (self.map.columns - 1) * step_mm, -step_mm
        seen = step_mm * self.timing.exposure_s / self.timing.period_s
        return FlyLine(first - 0.5 * seen, step_mm, self.map.columns, self.timing.period_s)

    def check(self) -> None:
        """Refuse what cannot be done, before anything moves."""
        self.vortex.check(self.series(DetectorRun(self.vortex, self.shutter, self.timing, "")))
        check_reach(self.slow_axis, self.map.slow_mm.tolist())
        if not self.flies:
            check_reach(self.fast_axis, self.map.fast_mm.tolist())
        elif isinstance(self.fast_axis, FlyAxis):
            for row in range(min(self.map.rows, 2)):
                self.fast_axis.check(self.line(row))
        else:
            raise InputError(
                f"{self.fast_axis.name} gives no pulses, so it cannot fly; give a FlyAxis, or"
                " mode='step'"
            )

    def predict(self) -> ScanPrediction:
        """What the run will take; the shutter is open from the first row to the last."""
        slow_mm = self.map.slow_mm.tolist()
        took_s = motion_s(self.slow_axis, slow_mm[0] - place_of(self.slow_axis, slow_mm[0]))
        row_s = motion_s(self.slow_axis, self.map.slow_step_mm)
        width_mm = abs(self.map.fast_step_mm) * (self.map.columns - 1)
        back_s = 0.0 if self.map.snake else motion_s(self.fast_axis, width_mm)
        if self.flies:
            # Axis and detector are prepared together.
            between_s = max(row_s, back_s) + SERIES_S
            each_s = flight_s(self.fast_axis, self.map.columns * self.timing.period_s)
        else:
            between_s = max(row_s, back_s)
            step_s = motion_s(self.fast_axis, self.map.fast_step_mm)
            each_s = self.map.columns * (point_s(self.timing) + step_s)
        beam_s = self.map.rows * (each_s + between_s)
        took_s += beam_s + 2 * SHUTTER_S
        return predict_series("xrf_map", self.vortex, self.map.num_frames, took_s, beam_s)

    # -- messages

    def run(self, metadata: dict[str, Any]) -> Generator[Msg, Any, str]:
        """The run.

        Returns
        -------
        str
            Bluesky run uid.
        """
        return detector_run(
            self.vortex,
            self.shutter,
            self.timing,
            metadata,
            self._rows if self.flies else self._points,
            stops=(self.fast_axis, self.slow_axis),
            staged=(self.fast_axis,),
        )

    def _rows(self, run: DetectorRun) -> MsgGenerator[None]:
        for row, slow_mm in enumerate(self.map.slow_mm.tolist()):
            series = self.series(run)
            yield from run.take_series(
                series,
                beam=True,
                flight=self._flight(row, slow_mm, series),
                closes=row == self.map.rows - 1,
            )

    def _points(self, run: DetectorRun) -> MsgGenerator[None]:
        pixels = self.map.pixel_of_frame.tolist()
        slow_mm, fast_mm = self.map.slow_mm.tolist(), self.map.fast_mm.tolist()

        def places(number: int) -> list[Any]:
            row, column = divmod(pixels[number], self.map.columns)
            return [self.slow_axis, slow_mm[row], self.fast_axis, fast_mm[column]]

        axes = [self.fast_axis, self.slow_axis]
        yield from run.take_points(self.series(run), axes, places)

    def _flight(self, row: int, slow_mm: float, series: FrameSeries) -> Flight:
        """The fast axis along a row."""
        line, first = self.line(row), series.first_index or 0

        def motion(part: FrameSeries) -> FlyLine:
            return line.part((part.first_index or 0) - first, part.num_frames)

        return Flight(self.fast_axis, motion, (self.slow_axis, slow_mm))
