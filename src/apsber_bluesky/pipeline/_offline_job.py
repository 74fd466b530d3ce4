"""What is to be reconstructed from a scan that is already on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import Cancellation, ImageKey, InputError, ReconstructionEngine
from apsber_bluesky.pipeline._offline_preparation import OfflinePreparation
from apsber_bluesky.pipeline._offline_scan import Scan
from apsber_bluesky.processing import (
    FrameGeometry,
    IterationReport,
    IterativeEngine,
    IterativeSettings,
    PaganinFilter,
    create_engine,
    engine_names,
    extend_edges,
    required_bytes,
)

#: Engines make this many slices at once, and chunks of a volume hold them.
BLOCK_SLICES = 16


@dataclass(frozen=True, slots=True)
class OfflineJob:
    """How to reconstruct a scan.

    Attributes
    ----------
    scan : Scan
        Where the frames are.
    geometry : FrameGeometry
        Centre, slices, binning, tilt.
    engine : str
        Name of the engine.
    filter_name : str
        Window of the ramp filter.
    region : tuple of int or None
        Pixels of each slice to keep, ``(x_first, x_stop, y_first, y_stop)``; None keeps all.
    iterative : IterativeSettings or None
        How to reconstruct iteratively; None means filtered back-projection. The engine then only
        helps to find the rotation centre.
    preparation : OfflinePreparation
        What is done to projections beside normalising them.
    """

    scan: Scan
    geometry: FrameGeometry
    engine: str
    filter_name: str = "ramp"
    region: tuple[int, int, int, int] | None = None
    iterative: IterativeSettings | None = None
    preparation: OfflinePreparation = field(default_factory=OfflinePreparation)

    def __post_init__(self) -> None:
        if self.iterative is not None and self.preparation.extend_edges:
            raise InputError(
                "edges are extended for filtered back-projection; an iterative method knows"
                " nothing of what lies outside the view"
            )
        # Numbers that are missing or senseless are refused before anything is read.
        self.phase_filter(self.scan.rows)
        if self.region is not None:
            x0, x1, y0, y1 = self.region
            size = self.geometry.size
            if not (0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size):
                raise InputError(
                    f"region {x0}:{x1},{y0}:{y1} is not within slices of {size} x {size} pixels"
                )

    @property
    def angles_deg(self) -> NDArray[np.float64]:
        """Angle of each projection [deg].

        Raises
        ------
        InputError
            If the file does not say.
        """
        angles = self.scan.angles_deg
        if angles is None:
            raise InputError(f"{self.scan.path} has no angles; give them with --angles")
        return angles

    @property
    def projections(self) -> int:
        """Projections used."""
        return self.scan.count(ImageKey.PROJECTION)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the volume."""
        size = self.geometry.size
        x0, x1, y0, y1 = self.region or (0, size, 0, size)
        return self.geometry.slices, y1 - y0, x1 - x0

    @property
    def local_engine(self) -> str:
        """The engine, or the best one here if only the workers of a cluster have it."""
        return self.engine if self.engine in engine_names() else "auto"

    @property
    def holds_centre(self) -> bool:
        """Whether projections are added for this centre alone, because that takes less memory.

        Asked of the job, not of a slab: slices must not depend on how the volume is cut.
        """
        if self.iterative is not None:
            return False
        needed = [
            required_bytes(16, self.geometry.size, self.projections, name=self.engine, held=held)
            for held in (False, True)
        ]
        return needed[1] < needed[0]

    def phase_filter(self, rows: int) -> PaganinFilter | None:
        """The filter for some rows of the projections, if the phase is retrieved.

        Raises
        ------
        InputError
            If a number is missing or makes no sense.
        """
        return self.preparation.phase_filter(rows, self.scan.columns, self.scan.pixel_size_um)

    @property
    def halo_rows(self) -> int:
        """Rows above and below those that are used which their preparation looks at."""
        made = self.phase_filter(self.scan.rows)
        zingers = self.preparation.zingers is not None
        return int(zingers) + (0 if made is None else made.halo)

    def rows_read(self, geometry: FrameGeometry, first: int, stop: int) -> range:
        """Rows of the recorded frame that slices `first` to `stop` are prepared from."""
        rows, halo = geometry.recorded_rows(first, stop), self.halo_rows
        return range(max(rows.start - halo, 0), min(rows.stop + halo, self.scan.rows))

    def extend(self, projections: NDArray[np.float32]) -> None:
        """Extend the edges of projections as the engine takes them, if that is asked for."""
        if self.preparation.extend_edges:
            extend_edges(projections)

    def make_engine(
        self,
        slices: int,
        threads: int,
        cancelled: Cancellation | None = None,
        *,
        progress: Callable[[IterationReport], None] | None = None,
    ) -> ReconstructionEngine:
        """An engine for some slices of the job.

        Parameters
        ----------
        slices : int
            How many.
        threads : int
            Threads to work with.
        cancelled : Cancellation, optional
            Asked before each iteration.
        progress : callable, optional
            Told of each iteration.

        Raises
        ------
        InputError
            If memory would not suffice, or there is no such engine.
        """
        size, angles = self.geometry.size, self.angles_deg
        if self.iterative is not None:
            return IterativeEngine(
                slices,
                size,
                angles,
                self.iterative,
                threads,
                progress=progress,
                cancelled=cancelled,
            )
        engine = create_engine(
            self.engine,
            rows=slices,
            columns=size,
            angles_deg=angles,
            filter_name=self.filter_name,
            threads=threads,
        )
        if self.holds_centre:
            engine.hold_centre(self.geometry.engine_centre_px)
        return engine

    def engine_bytes(self, slices: int, threads: int) -> int:
        """Memory that an engine for some slices needs [byte]."""
        size = self.geometry.size
        if self.iterative is not None:
            return IterativeEngine.required_bytes(
                self.iterative, slices, size, self.projections, threads
            )
        return required_bytes(
            slices, size, self.projections, name=self.local_engine, threads=threads
        )

    def slices_at_once(self, threads: int) -> int:
        """Slices that are finished together: threads share blocks of an iterative method only."""
        return BLOCK_SLICES * (threads if self.iterative is not None else 1)

    def keep(self, slab: NDArray[np.float32]) -> NDArray[np.float32]:
        """The region of a slab of whole slices."""
        if self.region is None:
            return slab
        x0, x1, y0, y1 = self.region
        return np.ascontiguousarray(slab[:, y0:y1, x0:x1])
