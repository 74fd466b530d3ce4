"""Judge the run: quality numbers as data."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.analysis import Assessment, SegmentedSlices, assess_scan
from apsber_bluesky.core import (
    AnalysisSettings,
    InputError,
    ProcessingSettings,
    Verdict,
    write_json,
)
from apsber_bluesky.pipeline._context import Findings, RunContext
from apsber_bluesky.processing import Projector, reconstruct


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
        columns = findings.sinograms.shape[2]

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

        def project(
            slices: NDArray[np.float32], angles_deg: NDArray[np.float64]
        ) -> NDArray[np.float32]:
            return Projector(columns, angles_deg, centre).project(slices)

        assessment = assess_scan(
            slices=findings.central_slices,
            sinograms=findings.sinograms,
            angles_deg=findings.angles_deg,
            centre=centre,
            books=findings.books,
            pixel_size_um=context.run.scan.pixel_size_um,
            limits=self._analysis.limits,
            reconstruct_half=reconstruct_half,
            project=project,
            frames=findings.frame_sums,
            segmented=_segmented(findings),
        )
        write_assessment(context, assessment, self.name, started)


def write_assessment(
    context: RunContext, assessment: Assessment, name: str, started_s: float
) -> None:
    """Enter quality numbers in the findings, write ``quality.json``, and record both."""
    findings = context.findings
    findings.quality = assessment.metrics
    verdict = Verdict.worst([metric.verdict for metric in findings.quality])
    write_json(
        context.folder.quality,
        {
            "run_uid": context.run.uid,
            "verdict": str(verdict),
            "complete": findings.books.complete,
            "frames": findings.books.totals(),
            "metrics": [metric.to_dict() for metric in findings.quality],
            "left_out": assessment.left_out,
        },
    )
    parameters: dict[str, Any] = {"verdict": str(verdict)}
    parameters |= {f"no_{what}": why for what, why in assessment.left_out.items()}
    context.record(name, started_s, parameters)
    context.report(name, 1, 1)


def _segmented(findings: Findings) -> SegmentedSlices | None:
    if findings.central_labels is None:
        return None
    return SegmentedSlices(findings.classes, findings.central_labels, findings.central_uncertainty)
