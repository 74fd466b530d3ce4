"""One picture that tells how a run went: images, curves, facts and quality numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from apsber_bluesky.analysis._report_panels import Panel, plain_text
from apsber_bluesky.core import atomic_file, explain_disk_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI: Final = 110
_WIDTH_IN: Final = 13.5
_PANEL_HEIGHT_IN: Final = 4.1
_LINE_HEIGHT_IN: Final = 0.27
_TITLE_HEIGHT_IN: Final = 0.75
# Colours that differ in lightness too; the mark and the word say the same without any colour.
_VERDICTS: Final = {
    "pass": ("✓ pass", "#d8efe6", "#00543c"),
    "warn": ("▲ warn", "#f6c667", "#3d2a00"),
    "fail": ("✗ fail", "#a83200", "#ffffff"),
}


@dataclass(frozen=True, slots=True)
class RunReport:
    """What the picture shows.

    Attributes
    ----------
    title : str
        Heading; empty for none.
    warning : str
        What is wrong or not there yet; drawn below the heading.
    panels : sequence of sequence of Panel
        Rows of up to three panels.
    facts : sequence of tuple of str
        Names and values; without them and without `metrics` there are no tables.
    metrics : sequence of dict
        Quality numbers, as ``quality.json`` has them.
    """

    title: str
    warning: str = ""
    panels: Sequence[Sequence[Panel]] = ()
    facts: Sequence[tuple[str, str]] = ()
    metrics: Sequence[dict[str, Any]] = field(default_factory=tuple)


def draw_report(report: RunReport, path: Path) -> None:
    """Draw a report into a PNG file, which appears whole or not at all.

    Raises
    ------
    StorageError
        If the place is full, forbidden or read-only.
    """
    with explain_disk_errors(path, "draw the report"), atomic_file(path) as partial:
        partial.write_bytes(render_report(report))


def render_report(report: RunReport) -> bytes:
    """Draw a report; gives the bytes of a PNG file. Equal reports give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    title_height = _TITLE_HEIGHT_IN if report.title else 0.0
    lines = 1 + max(len(report.facts), len(report.metrics) or 1)
    heights = [_PANEL_HEIGHT_IN] * len(report.panels)
    if tabled := bool(report.facts or report.metrics):
        heights.append(lines * _LINE_HEIGHT_IN)
    height = title_height + sum(heights)
    below_title = ConstrainedLayoutEngine(rect=(0.0, 0.0, 1.0, 1 - title_height / height))
    figure = Figure(figsize=(_WIDTH_IN, height), layout=below_title)
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    for row, part in zip(report.panels, parts[:, 0], strict=False):
        for panel, axes in zip(row, part.subplots(1, max(3, len(row))).flat, strict=False):
            panel.draw(axes)
        for axes in part.axes:
            axes.set_visible(axes.has_data() or bool(axes.texts))
    if tabled:
        _draw_tables(parts[-1, 0], report, lines)
    if report.title:
        _draw_title(figure, report)
    file = io.BytesIO()
    # The name of the drawing program is left out, so equal reports give equal bytes.
    FigureCanvasAgg(figure).print_figure(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()


def _draw_title(figure: Figure, report: RunReport) -> None:
    height = float(figure.get_figheight())
    figure.text(0.015, 1 - 0.32 / height, plain_text(report.title, 110), fontsize=16, weight="bold")
    if report.warning:
        text = f"▲ {plain_text(report.warning, 170)}"
        figure.text(0.015, 1 - 0.62 / height, text, fontsize=11, color="#a83200")


def _draw_tables(part: Any, report: RunReport, lines: int) -> None:
    left, right = part.subplots(1, 2, width_ratios=(1.0, 1.45))
    for axes in (left, right):
        axes.set_axis_off()
    facts = [(plain_text(name, 24), plain_text(value, 62)) for name, value in report.facts]
    _table(left, [("run", ""), *facts], (0.24, 0.76), lines)
    if not report.metrics:
        right.text(0.0, 0.98, "no quality numbers (yet)", va="top", color="0.35", style="italic")
        return
    rows: list[tuple[str, ...]] = [("quality", "value", "unit", "verdict", "limits")]
    rows += [_metric_row(metric) for metric in report.metrics]
    table = _table(right, rows, (0.34, 0.14, 0.16, 0.13, 0.23), lines)
    for number, metric in enumerate(report.metrics, start=1):
        _, background, text = _VERDICTS.get(metric["verdict"], ("", "white", "black"))
        cell = table[number, 3]
        cell.visible_edges = "closed"
        cell.set_facecolor(background)
        cell.get_text().set_color(text)
        cell.get_text().set_weight("bold")


def _metric_row(metric: dict[str, Any]) -> tuple[str, ...]:
    value, verdict = metric.get("value"), str(metric.get("verdict", ""))
    warn, fail = metric.get("warn_limit"), metric.get("fail_limit")
    limits = "" if warn is None or fail is None else f"warn {warn:.3g}, fail {fail:.3g}"
    return (
        plain_text(str(metric.get("name", "")).replace("_", " "), 40),
        "not measured" if value is None else f"{value:.4g}",
        plain_text(str(metric.get("unit", "")), 20),
        _VERDICTS.get(verdict, (plain_text(verdict, 12),))[0],
        limits,
    )


def _table(
    axes: Axes, rows: Sequence[tuple[str, ...]], widths: tuple[float, ...], lines: int
) -> Any:
    from matplotlib.transforms import Bbox

    height = len(rows) / lines
    table = axes.table(
        cellText=[list(row) for row in rows],
        colWidths=list(widths),
        cellLoc="left",
        bbox=Bbox.from_bounds(0.0, 1 - height, 1.0, height),
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    for (row, _), cell in table.get_celld().items():
        cell.set_edgecolor("0.85")
        cell.set_clip_on(False)
        if row == 0:
            cell.get_text().set_fontweight("bold")
    return table
