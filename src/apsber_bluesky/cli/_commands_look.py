"""``apsber status`` and ``apsber show``: look."""

from __future__ import annotations

import json
import shutil
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
from apsber_bluesky.cli._report import add_paths, quality_table
from apsber_bluesky.cli._run_filter import RunFilter
from apsber_bluesky.core import (
    FrameBooks,
    InputError,
    RunFolder,
    RunLedger,
    SeriesBooks,
    StorageError,
    find_run,
    iter_runs,
)


def describe_run(folder: RunFolder) -> dict[str, Any]:
    """What the ledger and the folder say of a run, as plain JSON values."""
    with RunLedger(folder.ledger) as ledger:
        books = ledger.books
        description = ledger.description
        value: dict[str, Any] = {
            "uid": folder.uid,
            "proposal": folder.proposal,
            "scan_id": description.get("scan_id"),
            "plan_name": description.get("plan_name"),
            "sample": description.get("sample"),
            "technique": description.get("technique"),
            "detectors": description.get("detectors", []),
            "start_time_s": description.get("start_time_s"),
            "state": str(ledger.state),
            "reason": ledger.reason,
            "folder": str(folder.path),
            "frames": books.to_dict(),
            "stages": [
                {"name": stage.name, "state": stage.state, "seconds": stage.seconds}
                for stage in ledger.stages
            ],
        }
    value["quality"] = read_quality(folder)
    add_paths(value, folder)
    return value


def read_quality(folder: RunFolder) -> dict[str, Any]:
    """Contents of ``quality.json``; empty when the run has none."""
    if not folder.quality.exists():
        return {}
    try:
        return dict(json.loads(folder.quality.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {folder.quality}: {error}") from error


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
        Path | None, typer.Option("-o", "--output", help="Copy the picture to this file.")
    ] = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the slices of a run as a picture, and its quality numbers."""
    output = Output(as_json=as_json)
    folder = find_run(profile_with(profile, data_root).session.data_root, run)
    value = describe_run(folder)
    figure = value["products"].get("figure")
    if figure is None:
        raise StorageError(
            f"run {folder.uid} has no picture: it is {value['state']} {value['reason']}".rstrip()
        )
    if output_file is not None:
        shutil.copyfile(figure, output_file)
        figure = str(output_file.absolute())
    if fault := FrameBooks.from_dict(value["frames"]).fault:
        output.say(f"incomplete: {fault}")
    output.say(quality_table(value["quality"].get("metrics", [])))
    output.say(f"figure    {figure}")
    output.result({**value, "figure": figure})
