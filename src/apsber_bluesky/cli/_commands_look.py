"""``apsber status`` and ``apsber show``: look."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from apsber_bluesky.cli._live_status import describe_session, print_session
from apsber_bluesky.cli._output import (
    DataRootOption,
    JsonOption,
    Output,
    ProfileOption,
    RunArgument,
    profile_with,
)
from apsber_bluesky.cli._report import quality_table
from apsber_bluesky.cli._run_filter import RunFilter
from apsber_bluesky.core import (
    FrameBooks,
    InputError,
    RunFolder,
    SeriesBooks,
    StorageError,
    describe_run,
    find_run,
    iter_runs,
)

REPORT_NAME = "report.png"
_PREVIEW_COLUMNS = 64


def _only(which: str) -> Any:
    return typer.Option(help=f"List only runs {which}.", rich_help_panel="Which runs to list")


def status(
    run: Annotated[
        str | None, typer.Argument(help="Run uid, the beginning of one, or 'latest'.")
    ] = None,
    sample: Annotated[str | None, _only("of this sample")] = None,
    proposal: Annotated[str | None, _only("of this proposal")] = None,
    since: Annotated[str | None, _only("that began then or later, e.g. 2026-11-22")] = None,
    until: Annotated[str | None, _only("that began before")] = None,
    scan: Annotated[int | None, _only("with this scan number")] = None,
    plan: Annotated[str | None, _only("of this plan")] = None,
    detector: Annotated[str | None, _only("with this detector")] = None,
    technique: Annotated[str | None, _only("of this technique")] = None,
    verdict: Annotated[
        str | None, _only("that quality control judged so: pass, warn, fail")
    ] = None,
    where: Annotated[
        list[str] | None, _only("whose quality is so, e.g. 'resolution<4' or 'ring_score=warn'")
    ] = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how a running session is doing and list the runs, or tell how far one run is."""
    output = Output(as_json=as_json)
    settings = profile_with(profile, data_root)
    root = settings.session.data_root
    wanted = RunFilter.of(
        sample=sample,
        proposal=proposal,
        since=since,
        until=until,
        scan=scan,
        plan=plan,
        detector=detector,
        technique=technique,
        verdict=verdict,
        where=where or (),
    )
    if run is not None:
        if wanted.is_given:
            raise InputError(f"give either the run {run!r} or what runs to list, not both")
        value = describe_run(find_run(root, run))
        _print_run(output, value)
        output.result(value)
        return
    session = describe_session(root, settings.streaming.limits)
    if session is not None:
        print_session(output, session)
    runs = [_describe_or_explain(folder) for folder in iter_runs(root)]
    num_all, runs = len(runs), [value for value in runs if wanted.matches(value)]
    table = Table("run", "scan", "sample", "plan", "state", "frames", "quality", "when", box=None)
    for value in runs:
        frames = value["frames"]
        table.add_row(
            value["uid"][:8],
            str(value["scan_id"] or ""),
            value["sample"],
            value["plan_name"],
            value["state"],
            f"{frames['written']}/{frames['expected']}",
            value["quality"].get("verdict", ""),
            _when(value["start_time_s"]),
        )
    nothing = f"none of the {num_all} runs" if num_all else "no runs"
    output.say(table if runs else f"{nothing} below {root}")
    output.result({"data_root": str(root), "session": session, "runs": runs})


def _describe_or_explain(folder: RunFolder) -> dict[str, Any]:
    """What is known of a run; one that cannot be read must not hide the others."""
    try:
        return describe_run(folder)
    except StorageError as error:
        keys = ("scan_id", "plan_name", "sample", "technique", "start_time_s")
        unknown = dict.fromkeys(keys)
        return {
            "uid": folder.uid,
            "proposal": folder.proposal,
            **unknown,
            "detectors": [],
            "state": "unreadable",
            "reason": str(error),
            "folder": str(folder.path),
            "frames": FrameBooks().to_dict(),
            "stages": [],
            "quality": {},
        }


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""


def _print_run(output: Output, value: dict[str, Any]) -> None:
    output.say_title(f"run {value['uid']}", f"{value['state']} {value['reason']}")
    counts = ("expected", "received", "written", "used")
    table = Table("stream", *counts, "missing", "incomplete", box=None)
    for name, plain in value["frames"]["streams"].items():
        books = SeriesBooks.from_dict(plain)
        numbers = (getattr(books, count) for count in counts)
        lost = (books.num_missing, books.num_incomplete)
        table.add_row(name, *map(str, (*numbers, *lost)))
    output.say(table)
    stages = Table("stage", "state", "seconds", box=None)
    for stage in value["stages"]:
        seconds = stage["seconds"]
        stages.add_row(stage["name"], stage["state"], "" if seconds is None else f"{seconds:.2f}")
    output.say(stages)
    for name, path in value["products"].items():
        output.say(f"{name:9} {path}")


def show(
    run: RunArgument = "latest",
    output_file: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Draw the report into this file (PNG)."),
    ] = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a report of a run: slices, histogram, sinogram, facts and quality numbers."""
    from apsber_bluesky.analysis import ImagePanel, draw_report
    from apsber_bluesky.viewers import FolderSource, half_blocks, report_of

    output = Output(as_json=as_json)
    folder = find_run(profile_with(profile, data_root).session.data_root, run)
    value = describe_run(folder)
    report = report_of(FolderSource(folder))
    path = output_file or folder.figures / REPORT_NAME
    draw_report(report, path)
    first = next((p for row in report.panels for p in row if isinstance(p, ImagePanel)), None)
    if first is not None and output.draws_pictures:
        output.say(half_blocks(first, min(_PREVIEW_COLUMNS, output.console.width)))
    if report.warning:
        output.say(report.warning)
    output.say(quality_table(value["quality"].get("metrics", [])))
    output.say(f"figure    {path}")
    output.result({**value, "figure": str(path.absolute())})
