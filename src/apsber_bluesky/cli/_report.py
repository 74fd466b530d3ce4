"""A run's outcome as a person reads it."""

from __future__ import annotations

from typing import Any, Final

from rich.table import Table
from rich.text import Text

from apsber_bluesky.cli._output import Output
from apsber_bluesky.core import RunFolder, product_paths

_COLOURS: Final = {"pass": "green", "warn": "yellow", "fail": "red"}


def add_paths(summary: dict[str, Any], folder: RunFolder) -> None:
    """Add where the products of a run are to its summary."""
    summary["products"] = {name: str(path) for name, path in product_paths(folder).items()}


def quality_table(metrics: list[dict[str, Any]]) -> Table:
    """The quality numbers and their verdicts."""
    table = Table("quality", "value", "unit", "verdict", box=None, pad_edge=False)
    for metric in metrics:
        value = metric["value"]
        verdict = metric["verdict"]
        table.add_row(
            metric["name"],
            "-" if value is None else f"{value:.4g}",
            metric["unit"],
            Text(verdict, _COLOURS[verdict]),
        )
    return table


def report_run(output: Output, summary: dict[str, Any]) -> None:
    """Tell where everything is and how good it is."""
    for earlier in summary.get("runs", [])[:-1]:
        output.say(f"run       {earlier['uid']}  {earlier['state']} {earlier['reason']}")
    frames = summary["frames"]
    output.say()
    output.say_title(f"run {summary['uid']}", f"{summary['state']} {summary['reason']}")
    output.say(
        f"frames    {frames['expected']} expected, {frames['received']} received,"
        f" {frames['used']} used"
    )
    if summary["volume_shape"]:
        shape = " x ".join(str(size) for size in summary["volume_shape"])
        output.say(f"volume    {shape}, rotation centre {summary['centre_px']:.2f} px")
    output.say(quality_table(list(summary["quality"].values())))
    for name, path in summary.get("products", {}).items():
        output.say(f"{name:9} {path}")
