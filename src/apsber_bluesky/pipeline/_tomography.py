"""Tomography runs: projections are accumulated as they come, then reconstructed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from apsber_bluesky.core import (
    ConfigurationError,
    FrameSource,
    InputError,
    ProcessingSettings,
    RunDescription,
    StageProgress,
)
from apsber_bluesky.pipeline._accumulation import Accumulation
from apsber_bluesky.pipeline._assess import Assess
from apsber_bluesky.pipeline._captures import Captures
from apsber_bluesky.pipeline._context import RunContext, Stage
from apsber_bluesky.pipeline._draw_figures import DrawFigures
from apsber_bluesky.pipeline._energy_frames import FrameCalibration
from apsber_bluesky.pipeline._followers import FinishFollower
from apsber_bluesky.pipeline._live_slices import LiveSlices
from apsber_bluesky.pipeline._quantify import Quantify
from apsber_bluesky.pipeline._reconstruct import FindCentre, Reconstruct
from apsber_bluesky.pipeline._run_pipeline import Gathering, RunPipeline
from apsber_bluesky.processing import prepare_engine

logger = logging.getLogger(__name__)

_OF_A_CAPTURE = (FindCentre, Reconstruct, FinishFollower, Quantify, Assess, DrawFigures)


class TomographyPipeline(RunPipeline):
    """Process tomography runs.

    Parameters
    ----------
    data_root : Path
        Folder below which runs are kept.
    source : FrameSource
        Where frames are read.
    settings : ProcessingSettings
        Engine, filter, chunk and slab sizes.
    stages : sequence of Stage
        What happens after the last frame, in order.
    progress : StageProgress
        Who is told.
    calibration : FrameCalibration, optional
        What turns raw frames into those that are normalised.
    live : LiveSlices, optional
        Shows slices of the volume while frames come; closed by who made it.
    """

    def __init__(
        self,
        data_root: Path,
        source: FrameSource,
        settings: ProcessingSettings,
        stages: Sequence[Stage],
        progress: StageProgress,
        calibration: FrameCalibration | None = None,
        live: LiveSlices | None = None,
    ) -> None:
        super().__init__(data_root, source, progress)
        self._settings = settings
        self._stages = tuple(stages)
        self._calibration = calibration
        self._live = live

    def prepare(self) -> None:
        """Load and compile engine and models, so that the first run does not wait for that."""
        made = [stage for stage in self._stages if isinstance(stage, Reconstruct)]
        followers = [follower for stage in made for follower in stage.followers]
        parts: list[Callable[[], Any]] = [follower.prepare for follower in followers]
        parts.insert(0, functools.partial(prepare_engine, self._settings.engine))
        for prepare in parts:
            try:
                prepare()
            except (InputError, ConfigurationError) as error:
                # Each run that needs it will fail and say so.
                logger.warning("%s", error)

    def _gather(self, context: RunContext) -> Gathering:
        if self._live is not None:
            self._live.begin_run(context.run)
        how = (self._source, self._settings, self._calibration, self._live)
        if context.run.scan.capture_projections is None:
            return Accumulation(context, *how)
        # The others look at the whole run, of which they make one record.
        stages = [stage for stage in self._stages if isinstance(stage, _OF_A_CAPTURE)]
        return Captures(context, stages, *how)

    def _stages_of(self, run: RunDescription) -> Sequence[Stage]:
        return self._stages

    def _frames_over(self, context: RunContext) -> None:
        if self._live is not None:
            self._live.frames_over(context.run.uid)

    def _run_over(self, context: RunContext) -> None:
        centre = context.findings.centre_px
        if self._live is None:
            return
        self._live.frames_over(context.run.uid)
        if centre is not None:
            self._live.remember_centre(context.run.scan.columns, centre)
