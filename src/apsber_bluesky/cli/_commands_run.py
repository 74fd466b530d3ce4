"""``apsber demo`` and ``apsber run``: acquire."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from apsber_bluesky.cli._execute import execute
from apsber_bluesky.cli._output import (
    DataRootOption,
    JsonOption,
    Output,
    ProfileOption,
    profile_with,
    simulated_profile,
)
from apsber_bluesky.cli._plan_arguments import bind, find_plan, parse_arguments
from apsber_bluesky.cli._report import add_paths, report_run
from apsber_bluesky.core import RunFolder, RunState
from apsber_bluesky.session import Session, prepare_epics


def run(
    plan: Annotated[str, typer.Argument(help="Name of the plan, e.g. fly_tomography.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments of the plan, e.g. exposure_s=0.05.")
    ] = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a plan, reconstruct while it runs, keep and catalogue the result."""
    output = Output(as_json=as_json)
    settings = profile_with(profile, data_root)
    # Plans import ophyd, which then knows where PVs are.
    prepare_epics(settings)
    chosen = find_plan(plan)
    values = parse_arguments(chosen, arguments or [], settings.device_names)
    summary = execute(settings, lambda session: bind(chosen, session.devices, values), output)
    _finish(output, summary)


def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Recorded scan (DXchange or NXtomo) in place of the phantom."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Rows and columns of the camera.")] = None,
    projections: Annotated[int | None, typer.Option(help="Number of projections.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the simulated noise.")] = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep serving the catalogue until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take a tomography scan at the simulated beamline, from first photon to archive."""
    output = Output(as_json=as_json)
    simulation: dict[str, Any] = {}
    if data is not None:
        simulation["data"] = str(data.absolute())
    if size is not None:
        simulation |= {"rows": size, "columns": size}
    if seed is not None:
        simulation["seed"] = seed
    settings, simulated = simulated_profile(profile, data_root, simulation)
    values: dict[str, Any] = {"sample": data.stem if data else simulated.phantom}
    if projections is not None:
        values["num_projections"] = projections

    def make_plan(session: Session) -> Any:
        recorded = session.beamline.get("recorded") or {}
        known = (
            "num_projections",
            "rotation_start_deg",
            "rotation_stop_deg",
            "num_flats",
            "num_darks",
        )
        scan = {key: recorded[key] for key in known if key in recorded}
        return bind(find_plan("fly_tomography"), session.devices, {**scan, **values})

    def afterwards(session: Session, summary: dict[str, Any]) -> None:
        _check_served(session, summary)
        if keep:
            output.say(f"catalogue {session.tiled_uri}  (Ctrl-C ends it)")
            try:
                while True:
                    session.check()
                    _pause()
            except KeyboardInterrupt:
                output.say("ending")

    _finish(output, execute(settings, make_plan, output, afterwards))


def _pause() -> None:
    import time

    time.sleep(0.5)


def _check_served(session: Session, summary: dict[str, Any]) -> None:
    """Read back through the catalogue what was just made: what a remote user would see."""
    if summary["volume_shape"] is None:
        return
    volume = session.processed[summary["uid"]]["volume"]
    middle = volume.shape[0] // 2
    slab = volume[middle]
    frames = session.catalog[summary["uid"]]["primary"]
    summary["catalogue"] = {
        "volume": f"processed/{summary['uid']}/volume",
        "volume_shape": list(volume.shape),
        "middle_slice_mean": float(slab.mean()),
        "raw": f"raw/{summary['uid']}",
        "raw_keys": sorted(frames),
    }


def _finish(output: Output, summary: dict[str, Any]) -> None:
    runs = summary.get("runs", [summary])
    for own in (*runs, summary):
        add_paths(own, RunFolder(Path(own["folder"])))
    report_run(output, summary)
    output.result(summary)
    good = (RunState.COMPLETE, RunState.INCOMPLETE)
    for own in runs:
        if RunState(own["state"]) not in good:
            output.error(f"run {own['uid']} {own['state']}: {own['reason']}")
            raise typer.Exit(1)
