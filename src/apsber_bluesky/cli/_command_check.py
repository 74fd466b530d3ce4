"""``apsber check``: what a plan will take, before anything moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from apsber_bluesky.cli._output import (
    DataRootOption,
    JsonOption,
    Output,
    ProfileOption,
    profile_with,
)
from apsber_bluesky.cli._plan_arguments import bind, find_plan, parse_arguments
from apsber_bluesky.core import InputError, ScanPrediction, asking_for_predictions
from apsber_bluesky.session import devices_alone, prepare_epics

_MEGABYTE = 1e6


def check(
    plan: Annotated[str, typer.Argument(help="Name of the plan, e.g. fly_tomography.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments of the plan, e.g. exposure_s=0.05.")
    ] = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict what a plan takes: time, frames, disk, memory, dose. Nothing moves."""
    output = Output(as_json=as_json)
    settings = profile_with(profile, data_root)
    # Plans import ophyd, which then knows where PVs are.
    prepare_epics(settings)
    chosen = find_plan(plan)
    values = parse_arguments(chosen, arguments or [], settings.device_names)
    with devices_alone(settings) as devices:
        missing = [f"{name}: {why}" for name, why in devices.missing.items()]
        prediction = predict(chosen, devices, values)
    _report(output, prediction)
    for line in missing:
        output.say(f"missing device  {' '.join(line.split())}")
    output.result(prediction.to_dict())
    if prediction.problems:
        for problem in prediction.problems:
            output.error(problem)
        raise typer.Exit(1)


def predict(
    plan: Callable[..., Any], devices: Mapping[str, Any], arguments: Mapping[str, Any]
) -> ScanPrediction:
    """Ask a plan what it will take.

    Its checks are run, and then it is ended before its first message is obeyed.

    Raises
    ------
    InputError
        If an argument is wrong, or the plan does not predict anything.
    """
    with asking_for_predictions() as found:
        messages = bind(plan, devices, arguments)
        try:
            next(messages)
        finally:
            messages.close()
    if not found:
        raise InputError(f"plan {plan.__name__} does not predict what it takes; its arguments fit")
    # The first is that of the whole plan; those of its parts may follow.
    return found[0]


def _report(output: Output, prediction: ScanPrediction) -> None:
    output.say_title(prediction.plan_name, f"{prediction.frames} frames")
    rows = [
        ("duration", _duration(prediction.duration_s)),
        ("sample in open beam", _duration(prediction.beam_time_s)),
        ("first live slice after", _duration(prediction.first_slice_s)),
        ("disk", _of(prediction.disk_bytes, prediction.free_disk_bytes)),
        ("memory", _of(prediction.memory_bytes, prediction.free_memory_bytes)),
    ]
    for name, value in rows:
        output.say(f"  {name:24s}{value}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _of(needed: int | None, free: int | None) -> str:
    if needed is None:
        return "-"
    text = f"{needed / _MEGABYTE:,.1f} MB"
    return text if free is None else f"{text} of {free / _MEGABYTE:,.0f} MB"
