"""The picture of a run that people look at first."""

from __future__ import annotations

from apsber_bluesky.analysis import draw_ortho_slices
from apsber_bluesky.core import ORTHO_SLICES_NAME, InputError
from apsber_bluesky.pipeline._context import RunContext


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
