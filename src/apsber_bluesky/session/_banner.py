"""What a user sees first: what is connected, where data go, what was measured last."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from apsber_bluesky.session._session import Session


def make_banner(session: Session) -> RenderableType:
    """The state of a session, for a rich console.

    Parameters
    ----------
    session : Session
        A session that has started.

    Returns
    -------
    rich renderable
        Devices, data root, catalogue, last scan, plans.
    """
    profile, missing = session.profile, session.devices.missing
    facts = Table.grid(padding=(0, 2))
    facts.add_row("data", Text(str(profile.session.data_root / profile.session.proposal)))
    # The key opens the catalogue; it is for whoever asks, not for every screenshot.
    address = session.tiled_uri.partition("?")[0]
    facts.add_row("tiled", Text(f"{address}  (with its key: session.tiled_uri)"))
    facts.add_row("last scan", Text(_last_scan(session.catalog)))
    facts.add_row("plans", Text(", ".join(session.plans.__all__)))
    count = len(session.devices)
    title = f"{profile.session.instrument_name}: {count - len(missing)} of {count} devices"
    return Panel(
        Group(facts, "", _devices(session)),
        title=Text(title, "bold red" if missing else "bold green"),
        title_align="left",
    )


def print_banner(session: Session, console: Console | None = None) -> None:
    """Print `make_banner` on the terminal."""
    (console or Console(highlight=False)).print(make_banner(session))


def _devices(session: Session) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("device", "class", "prefix", "labels", ""):
        table.add_column(heading, overflow="fold")
    for name, device in session.devices.items():
        reason = session.devices.missing.get(name)
        state = Text("connected", "green") if reason is None else Text(f"missing: {reason}", "red")
        labels = ", ".join(sorted(getattr(device, "_ophyd_labels_", ())))
        prefix = Text(str(getattr(device, "prefix", "")))
        table.add_row(name, type(device).__name__, prefix, labels, state)
    return table


def _last_scan(catalog: Any) -> str:
    if not len(catalog):
        return "none yet"
    metadata = catalog.values().last().metadata
    start, stop = metadata["start"], metadata.get("stop") or {}
    began = datetime.fromtimestamp(start["time"]).astimezone()
    words = [
        f"{start.get('scan_id', '?')}",
        str(start.get("plan_name", "")),
        str(start.get("sample", "")),
        began.strftime("%Y-%m-%d %H:%M"),
        str(stop.get("exit_status", "not closed")),
        str(start["uid"])[:8],
    ]
    return "  ".join(word for word in words if word)
