"""Find the rotation centre and write the volume, slab by slab."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    InputError,
    ProcessingSettings,
    ReconstructionEngine,
    array_checksum,
)
from apsber_bluesky.pipeline._accumulation import central_rows
from apsber_bluesky.pipeline._centre_estimate import estimate_centre
from apsber_bluesky.pipeline._context import OpenVolume, RunContext
from apsber_bluesky.pipeline._followers import Following, SlabFollower


class FindCentre:
    """Find the rotation centre, or take the one that the profile gives.

    Parameters
    ----------
    settings : ProcessingSettings
        ``centre`` is a column [pixel] or ``"auto"``.
    """

    name = "centre"
    essential = True

    def __init__(self, settings: ProcessingSettings) -> None:
        self._settings = settings

    def run(self, context: RunContext) -> None:
        """Enter the centre in the findings."""
        started, findings = time.time(), context.findings
        if findings.sinograms is None or findings.angles_deg is None:
            raise InputError("no sinograms to find the rotation centre from")
        inputs = {"sinograms": array_checksum(findings.sinograms)}
        if self._settings.centre == "auto":
            estimate = estimate_centre(
                findings.sinograms,
                findings.angles_deg,
                engine=self._settings.engine,
                filter_name=self._settings.filter,
            )
            findings.centre_px = estimate.centre_px
            parameters = {
                "method": estimate.method,
                "centre_px": estimate.centre_px,
                "uncertainty_px": estimate.uncertainty_px,
            }
        else:
            findings.centre_px = float(self._settings.centre)
            parameters = {"method": "given by the profile", "centre_px": findings.centre_px}
        context.record(self.name, started, parameters, inputs=inputs)
        context.report(self.name, 1, 1)


class Reconstruct:
    """Turn the accumulated projections into the volume.

    Parameters
    ----------
    settings : ProcessingSettings
        Slab size and what the record should know.
    open_volume : OpenVolume
        Makes the place that slabs are written to.
    followers : sequence of SlabFollower
        Who takes the slabs further; each has a `FinishFollower` among the stages after this one.
    """

    name = "reconstruct"
    essential = True

    def __init__(
        self,
        settings: ProcessingSettings,
        open_volume: OpenVolume,
        followers: Sequence[SlabFollower] = (),
    ) -> None:
        self._settings = settings
        self._open_volume = open_volume
        self.followers = tuple(followers)

    def run(self, context: RunContext) -> None:
        """Write the volume and keep its three central slices."""
        started, findings = time.time(), context.findings
        engine, centre = findings.engine, findings.centre_px
        if engine is None or centre is None:
            raise InputError("the volume needs accumulated projections and a rotation centre")
        scan = context.run.scan
        collector = _SliceCollector(engine.shape)
        with (
            self._open_volume(context.folder, engine.shape, scan.pixel_size_um) as sink,
            self._followed(context, engine, centre) as follow,
        ):
            for start, slab in self._slabs(context, engine, centre):
                sink.write(start, slab)
                collector.take(start, slab)
                follow(start, slab)
        findings.volume_shape = engine.shape
        findings.ortho_slices = collector.ortho_slices
        findings.central_slices = collector.central_slices
        # The engine holds the filtered projections of the whole run: give the memory back.
        findings.engine = None
        context.record(
            self.name,
            started,
            {
                "engine": engine.name,
                "filter": self._settings.filter,
                "edges_extended": self._settings.extend_edges,
                "centre_px": centre,
                "num_projections": engine.accumulated,
                "rotation_start_deg": scan.rotation_start_deg,
                "rotation_stop_deg": scan.rotation_stop_deg,
                "pixel_size_um": scan.pixel_size_um or float("nan"),
            },
            inputs={f"{context.folder.raw.name} projections": findings.projections_checksum},
            outputs={context.folder.volume.name: sink.checksum},
        )

    @contextmanager
    def _followed(
        self, context: RunContext, engine: ReconstructionEngine, centre: float
    ) -> Iterator[Callable[[int, NDArray[np.float32]], None]]:
        """Who slabs are handed to; they are told if the volume does not become whole."""
        if not self.followers:
            yield lambda start, slab: None
            return
        # Models need the level of the whole volume before its first slab; the middle tells it.
        context.findings.central_slices = engine.finish(central_rows(engine.shape[0]), centre)
        context.following = following = Following(context, engine.shape, self.followers)
        try:
            yield following.take
        except BaseException:
            following.abandon()
            raise

    def _slabs(
        self, context: RunContext, engine: ReconstructionEngine, centre: float
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        slices = engine.shape[0]
        for start in range(0, slices, self._settings.slab_slices):
            context.check_cancelled(self.name)
            stop = min(start + self._settings.slab_slices, slices)
            yield start, engine.finish(slice(start, stop), centre)
            context.report(self.name, stop, slices)


class _SliceCollector:
    """Keep the central slices of a volume that is only ever seen slab by slab."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        slices, rows, columns = shape
        self._middle = (slices // 2, rows // 2, columns // 2)
        self._central = central_rows(slices)
        self._xz = np.zeros((slices, columns), np.float32)
        self._yz = np.zeros((slices, rows), np.float32)
        self.central_slices = np.zeros(
            (self._central.stop - self._central.start, rows, columns), np.float32
        )

    def take(self, start: int, slab: NDArray[np.float32]) -> None:
        _, y, x = self._middle
        stop = start + len(slab)
        self._xz[start:stop] = slab[:, y]
        self._yz[start:stop] = slab[:, :, x]
        first, last = max(start, self._central.start), min(stop, self._central.stop)
        if first < last:
            begin = self._central.start
            self.central_slices[first - begin : last - begin] = slab[first - start : last - start]

    @property
    def ortho_slices(self) -> dict[str, NDArray[np.float32]]:
        xy = self.central_slices[self._middle[0] - self._central.start]
        return {"xy": xy, "xz": self._xz, "yz": self._yz}
