"""A run in Jupyter: a card with its slices, facts and quality numbers."""

from __future__ import annotations

import base64
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.analysis import RunReport, draw_report, render_report
from apsber_bluesky.viewers._run_image import RunImage
from apsber_bluesky.viewers._run_report import report_of
from apsber_bluesky.viewers._run_source import RunSource

_MARKS: Final = {"pass": "✓", "warn": "▲", "fail": "✗"}


class RunView:
    """A run to look at; Jupyter shows it as a card.

    Parameters
    ----------
    source : RunSource
        Where it comes from; `open_run` finds it.
    """

    def __init__(self, source: RunSource) -> None:
        self._source = source

    def __repr__(self) -> str:
        return f"<RunView {self.uid} in {self._source}>"

    @property
    def uid(self) -> str:
        """Bluesky run uid."""
        return self._source.uid

    @property
    def about(self) -> dict[str, Any]:
        """What is known of it now: state, frames, stages, quality numbers, transformations.

        Raises
        ------
        ApsberError
            If it cannot be read.
        """
        return self._source.describe()

    @property
    def image_names(self) -> tuple[str, ...]:
        """Which of ``volume``, ``denoised``, ``uncertainty`` and ``labels`` there are."""
        return self._source.image_names()

    def image(self, name: str = "volume") -> RunImage:
        """One of its volumes; its pixels are read when it is sliced.

        Raises
        ------
        ApsberError
            If there is none, or it cannot be read.
        """
        return self._source.image(name)

    def report(self) -> RunReport:
        """What `save_report` draws."""
        return report_of(self._source)

    def save_report(self, path: Path | str) -> Path:
        """Draw the report into a PNG file.

        Raises
        ------
        ApsberError
            If the run cannot be read or the file cannot be written.
        """
        draw_report(self.report(), Path(path))
        return Path(path)

    def _repr_png_(self) -> bytes:
        return render_report(self.report())

    def _repr_html_(self) -> str:
        return card_html(self.report())


def card_html(report: RunReport) -> str:
    """A report as a piece of HTML that needs nothing else; every text in it is escaped."""
    picture = render_report(replace(report, title="", warning="", facts=(), metrics=()))
    encoded = base64.b64encode(picture).decode("ascii")
    title = escape(report.title)
    warning = f"<p><strong>▲ {escape(report.warning)}</strong></p>" if report.warning else ""
    facts = "".join(_row([name, value]) for name, value in report.facts)
    head = _row(["quality", "value", "unit", "verdict"], "th")
    metrics = "".join(_metric(metric) for metric in report.metrics)
    quality = f"<table>{head}{metrics}</table>" if metrics else "<p>no quality numbers (yet)</p>"
    return (
        f'<div><h3>{title}</h3>{warning}<img alt="images of {title}" style="max-width:100%"'
        f' src="data:image/png;base64,{encoded}"><div style="display:flex;flex-wrap:wrap;gap:2em">'
        f"<table>{facts}</table><div>{quality}</div></div></div>"
    )


def _metric(metric: dict[str, Any]) -> str:
    value, verdict = metric.get("value"), str(metric.get("verdict", ""))
    told = "not measured" if value is None else f"{value:.4g}"
    name = str(metric.get("name", "")).replace("_", " ")
    return _row([name, told, str(metric.get("unit", "")), f"{_MARKS.get(verdict, '')} {verdict}"])


def _row(cells: list[str], kind: str = "td") -> str:
    return "<tr>" + "".join(f"<{kind}>{escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"
