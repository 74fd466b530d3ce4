"""Judge the run: quality numbers as data, and the picture people look at first."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.analysis import assess_scan, draw_ortho_slices
from apsber_bluesky.core import (
    AnalysisSettings,
    InputError,
    ProcessingSettings,
    Verdict,
    write_json,
)
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.processing import reconstruct

ORTHO_SLICES_NAME = "ortho_slices.png"


class Assess:
    """Measure the quality of a run and write ``quality.json``.

    Parameters
    ----------
    analysis : AnalysisSettings
        Limits.
    processing : ProcessingSettings
        How half scans are reconstructed.
    """

    name = "quality"
    essential = True

    def __init__(self, analysis: AnalysisSettings, processing: ProcessingSettings) -> None:
        self._analysis = analysis
        self._processing = processing

    def run(self, context: RunContext) -> None:
        """Enter the quality numbers in the findings and write them down."""
        started, findings = time.time(), context.findings
        centre = findings.centre_px
        if findings.sinograms is None or findings.angles_deg is None or centre is None:
            raise InputError("quality needs sinograms and a rotation centre")
        if findings.central_slices is None:
            raise InputError("quality needs the reconstructed slices")

        def reconstruct_half(
            sinograms: NDArray[np.float32], angles_deg: NDArray[np.float64]
        ) -> NDArray[np.float32]:
            return reconstruct(
                sinograms,
                angles_deg,
                centre,
                engine=self._processing.engine,
                filter_name=self._processing.filter,
            )

        findings.quality = assess_scan(
            slices=findings.central_slices,
            sinograms=findings.sinograms,
            angles_deg=findings.angles_deg,
            centre=centre,
            books=findings.books,
            pixel_size_um=context.run.scan.pixel_size_um,
            limits=self._analysis.limits,
            reconstruct_half=reconstruct_half,
        )
        verdict = Verdict.worst([metric.verdict for metric in findings.quality])
        write_json(
            context.folder.quality,
            {
                "run_uid": context.run.uid,
                "verdict": str(verdict),
                "complete": findings.books.complete,
                "frames": findings.books.totals(),
                "metrics": [metric.to_dict() for metric in findings.quality],
            },
        )
        context.record(self.name, started, {"verdict": str(verdict)})
        context.report(self.name, 1, 1)


class DrawFigures:
    """Draw the three orthogonal slices."""

    name = "figures"
    essential = True

    def run(self, context: RunContext) -> None:
        """Write ``figures/ortho_slices.png``."""
        slices = context.findings.ortho_slices
        if not slices:
            raise InputError("figures need a reconstructed volume")
        run, fault = context.run, context.findings.books.fault
        title = f"{run.sample or 'sample'}, scan {run.scan_id} ({run.uid[:8]})"
        context.folder.figures.mkdir(exist_ok=True)
        draw_ortho_slices(
            slices["xy"],
            slices["xz"],
            slices["yz"],
            context.folder.figures / ORTHO_SLICES_NAME,
            title=f"{title}\nincomplete: {fault}" if fault else title,
            unit="1/pixel",
            pixel_size_um=run.scan.pixel_size_um,
        )
        context.report(self.name, 1, 1)
