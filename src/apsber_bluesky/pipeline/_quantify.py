"""Measure what the labels of a run show."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apsber_bluesky.core import InputError, write_json
from apsber_bluesky.pipeline._context import RunContext

Measure = Callable[[Any, tuple[str, ...], float | None], dict[str, Any]]
"""(labels, classes, voxel size [um]) -> plain JSON values."""


class Quantify:
    """Write ``quantities.json``: porosity, connected parts, thickness.

    Parameters
    ----------
    measure : Measure
        Does the measuring.
    read : callable
        Opens a volume of the run, by its path.
    """

    name = "quantify"
    essential = False

    def __init__(self, measure: Measure, read: Callable[[Path], Any]) -> None:
        self._measure, self._read = measure, read

    def run(self, context: RunContext) -> None:
        """Measure the labels, and write down what was found."""
        started, findings = time.time(), context.findings
        path = context.folder.labels
        labelled = [record for record in findings.processes if path.name in record.outputs]
        if not labelled:
            raise InputError("the run has no labels to measure")
        voxel_size_um = context.run.scan.pixel_size_um
        measured = self._measure(self._read(path), findings.classes, voxel_size_um)
        write_json(context.folder.quantities, {"run_uid": context.run.uid, **measured})
        context.record(
            self.name,
            started,
            {"classes": list(findings.classes)},
            inputs={path.name: labelled[-1].outputs[path.name]},
        )
        context.report(self.name, 1, 1)
