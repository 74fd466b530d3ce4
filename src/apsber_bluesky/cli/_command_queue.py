"""``apsber queue``: plans that wait their turn, for users who are not at the beamline."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from apsber_bluesky.cli._background import run_in_background
from apsber_bluesky.cli._interrupt import handle_interrupts
from apsber_bluesky.cli._output import (
    DataRootOption,
    JsonOption,
    Output,
    ProfileOption,
    profile_with,
)
from apsber_bluesky.cli._plan_arguments import parse_words
from apsber_bluesky.core import InputError
from apsber_bluesky.session import QUEUE_PORT

if TYPE_CHECKING:
    from apsber_bluesky.session import QueueClient

_HISTORY_SHOWN = 5

AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="Queue server on another computer, tcp://HOST:PORT."),
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", help="File with the key of that server, .../queue/keys/manager.key."),
]

queue = typer.Typer(help="Run plans one after the other, from anywhere.", no_args_is_help=True)


def _client(
    profile: str, data_root: Path | None, address: str | None, key: Path | None
) -> QueueClient:
    from apsber_bluesky.session import QueueClient, QueueFolder
    from apsber_bluesky.streaming import load_public_key

    if address is not None:
        if key is None:
            raise InputError("give the key of the server at --address with --key FILE")
        return QueueClient(address, load_public_key(key).decode())
    root = profile_with(profile, data_root).session.data_root
    return QueueClient.at(QueueFolder(root.resolve()).running())


@queue.command()
def start(
    redis: Annotated[
        str | None,
        typer.Option(help="Redis to keep the queue in, HOST:PORT; one is started if not."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of the control socket on this computer; 0 for any."
            f" If not given, {QUEUE_PORT}, or any if that is taken."
        ),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Return when it is ready, and let it run.")
    ] = False,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start Redis, the RE manager and a session; runs until Ctrl-C or `apsber queue stop`."""
    from apsber_bluesky.session import QueueServer

    output = Output(as_json=as_json)
    settings = profile_with(profile, data_root)
    if background:
        _start_in_background(output, settings.session.data_root, profile, redis, port)
        return
    server = QueueServer(profile, settings, redis=redis, port=port)
    stop = threading.Event()
    with handle_interrupts() as interrupt:
        with output.progress_console.status("starting the queue"), interrupt.calls(lambda: None):
            address = server.start(interrupt.check)
        try:
            output.say(f"control   {address.control_address}")
            output.say(f"console   {address.info_address}")
            output.say(f"key       {server.folder.public_key_file}")
            output.say(f"profile   {settings.name}, data in {settings.session.data_root}")
            output.say("Add a plan from another terminal: apsber queue add PLAN name=value --start")
            output.result(
                {
                    "ready": True,
                    "control_address": address.control_address,
                    "info_address": address.info_address,
                    "key_file": str(server.folder.public_key_file),
                    "pid": os.getpid(),
                }
            )
            with interrupt.calls(stop.set):
                # A client may end the manager, which is as good as Ctrl-C.
                while not stop.wait(0.3) and server.exit_status != 0:
                    server.check()
        finally:
            with interrupt.calls(lambda: None):
                output.say("ending the queue")
                server.stop()


def _start_in_background(
    output: Output, data_root: Path, profile: str, redis: str | None, port: int | None
) -> None:
    words = ["queue", "start", "--profile", profile, "--data-root", str(data_root)]
    words += [] if port is None else ["--port", str(port)]
    words += [] if redis is None else ["--redis", redis]
    log = data_root / ".apsber" / "queue" / "server.log"
    with (
        handle_interrupts() as interrupt,
        interrupt.calls(lambda: None),
        output.progress_console.status("starting the queue"),
    ):
        answer, _ = run_in_background(words, log, interrupt.check)
    output.say(f"The queue runs, its log is {log}; 'apsber queue stop' ends it.")
    output.result(answer)


@queue.command()
def status(
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    address: AddressOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the environment, what runs, what waits, and what has run."""
    output = Output(as_json=as_json)
    with _client(profile, data_root, address, key) as client:
        now = client.status()
        waiting, running = client.queue()
        history = [_past(item) for item in client.history()]
    report = {
        "state": now["manager_state"],
        "environment": now["worker_environment_state"],
        "running": _item(running) if running else None,
        "queue": [_item(item) for item in waiting],
        "history": history,
    }
    output.say_title("state", f"{report['state']}, environment {report['environment']}")
    table = Table("", "plan", "arguments", "", box=None)
    for past in history[-_HISTORY_SHOWN:]:
        table.add_row(past["exit_status"], past["plan"], _words(past), past["message"])
    if running:
        table.add_row("running", running["name"], _words(_item(running)), "")
    for item in waiting:
        table.add_row("waits", item["name"], _words(_item(item)), "")
    output.say(table if table.row_count else "nothing has run, and nothing waits")
    output.result(report)


def _item(item: dict[str, Any]) -> dict[str, Any]:
    return {"uid": item["item_uid"], "plan": item["name"], "arguments": item.get("kwargs", {})}


def _past(item: dict[str, Any]) -> dict[str, Any]:
    result = item["result"]
    return {
        **_item(item),
        "exit_status": result["exit_status"],
        "runs": result["run_uids"],
        "message": " ".join(str(result["msg"]).split()),
        "seconds": round(result["time_stop"] - result["time_start"], 3),
    }


def _words(item: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in item["arguments"].items())


@queue.command()
def add(
    plan: Annotated[str, typer.Argument(help="Name of the plan, e.g. fly_tomography.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments of the plan, e.g. exposure_s=0.05.")
    ] = None,
    begin: Annotated[
        bool, typer.Option("--start", help="Run the queue, unless it runs already.")
    ] = False,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    address: AddressOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a plan at the end of the queue."""
    output = Output(as_json=as_json)
    with _client(profile, data_root, address, key) as client:
        values = _arguments(client, plan, arguments or [])
        uid = client.add(plan, values)
        started = begin and client.status()["manager_state"] == "idle"
        if started:
            client.start()
        waiting, _ = client.queue()
    output.say(f"queued    {plan}, item {uid}; {len(waiting)} wait")
    output.result({"uid": uid, "plan": plan, "arguments": values, "started": started})


def _arguments(client: QueueClient, plan: str, words: list[str]) -> dict[str, Any]:
    """Check the words as the plan's own annotations want; devices are found by their names."""
    from bluesky_queueserver import construct_parameters

    plans = client.plans()
    if plan not in plans:
        raise InputError(f"no plan {plan!r} in the queue; there are {', '.join(sorted(plans))}")
    described = plans[plan]["parameters"]
    annotations = {p.name: p.annotation for p in construct_parameters(described)}
    descriptions = {p["name"]: p.get("description", "") for p in described}
    values = parse_words(plan, words, annotations, descriptions)
    # A device is given by its name, which the annotation has as a member of an enumeration.
    plain = {name: getattr(value, "value", value) for name, value in values.items()}
    for parameter in described:
        name = parameter["name"]
        offered = [n for names in _device_lists(parameter) for n in names]
        if name not in plain and "default" not in parameter and name in offered:
            plain[name] = name
        elif name not in plain and "default" not in parameter and len(set(offered)) == 1:
            plain[name] = offered[0]
        elif name not in plain and "default" not in parameter and _must_be_given(parameter):
            raise InputError(
                f"plan {plan} needs {name}: {' '.join(descriptions[name].split())}"
                + (f" Give one of {', '.join(offered)}." if offered else "")
            )
    return plain


def _device_lists(parameter: dict[str, Any]) -> list[list[str]]:
    return list(parameter.get("annotation", {}).get("devices", {}).values())


def _must_be_given(parameter: dict[str, Any]) -> bool:
    return parameter["kind"]["name"] not in ("VAR_POSITIONAL", "VAR_KEYWORD")


@queue.command()
def stop(
    now: Annotated[
        bool, typer.Option("--now", help="Abort the plan that runs; else it runs to its end.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Stop the plans alone; the server goes on.")
    ] = False,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    address: AddressOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop the queue after the plan that runs, and end its server."""
    output = Output(as_json=as_json)
    with _client(profile, data_root, address, key) as client:
        with output.progress_console.status("stopping"):
            was_running = client.abort() if now else client.finish()
            if not keep:
                client.shut_down(now=now)
        waiting = client.queue()[0] if keep else []
    output.say("the queue has stopped" if keep else "the queue server has ended")
    output.result({"was_running": was_running, "server": keep, "waiting": len(waiting)})


@queue.command()
def keys(
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the keys of the server, if there are none, and say where they are."""
    from apsber_bluesky.session import QueueFolder

    output = Output(as_json=as_json)
    root = profile_with(profile, data_root).session.data_root
    folder = QueueFolder(root.resolve())
    public, _ = folder.make_keys()
    output.say(f"key       {public}")
    output.say(
        f"give      {folder.public_key_file}  to those who may use the queue, to nobody else"
    )
    output.say(f"keep      {folder.public_key_file}_secret")
    output.result({"public": public, "file": str(folder.public_key_file)})
