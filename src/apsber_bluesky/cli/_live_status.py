"""What ``apsber status`` says of a session that is running."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from apsber_bluesky.cli._output import Output
from apsber_bluesky.core import ServiceError, StreamingLimits

_ANSWER_S: Final = 2.0
_GROWTH_S: Final = 0.5


def describe_session(data_root: Path, limits: StreamingLimits) -> dict[str, Any] | None:
    """The session of a data root and the health of its receiver, as plain values.

    Parameters
    ----------
    data_root : Path
        Where it works.
    limits : StreamingLimits
        When health deserves a warning.

    Returns
    -------
    dict or None
        None if no session is running there. ``health`` is None if its receiver does not answer.
    """
    from apsber_bluesky.session import live_session
    from apsber_bluesky.streaming import ReceiverClient, find_warnings

    session = live_session(data_root)
    if session is None:
        return None
    value: dict[str, Any] = {
        "profile": session.profile,
        "pid": session.pid,
        "name_server": session.name_server,
        "health_prefix": session.health_prefix,
        "health": None,
        "warnings": [],
    }
    client = ReceiverClient(session.control_address, timeout_s=_ANSWER_S)
    try:
        health, earlier = client.health(), None
        if health.backlog_frames > limits.backlog_frames:
            time.sleep(_GROWTH_S)
            health, earlier = client.health(), health
        value["health"] = health.to_dict()
        value["warnings"] = [w.message for w in find_warnings(health, limits, earlier)]
    except ServiceError as error:
        value["warnings"] = [str(error)]
    finally:
        client.close()
    return value


def print_session(output: Output, value: dict[str, Any]) -> None:
    """Tell people about it."""
    output.say_title(f"session {value['profile']}", f"process {value['pid']}")
    health = value["health"]
    if health is not None:
        _print_health(output, health)
    output.say(
        f"PVs       {value['health_prefix']}*  EPICS_PVA_NAME_SERVERS={value['name_server']}"
    )
    for warning in value["warnings"]:
        output.say(f"warning   {warning}")
    output.say()


def _print_health(output: Output, health: dict[str, Any]) -> None:
    what = f"{health['run_uid'][:8]} {health['stream']}" if health["run_uid"] else "no run yet"
    output.say(f"receiver  {what}, {'armed' if health['armed'] else 'idle'}")
    output.say(
        f"frames    {health['expected']} expected, {health['received']} received,"
        f" {health['written']} written, {health['missing']} missing"
    )
    output.say(
        f"rate      {health['frame_rate_hz']:.1f} Hz, {health['data_rate_mb_s']:.1f} MB/s,"
        f" {health['backlog_frames']} frames wait for the disk"
    )
    output.say(
        f"ring      {100 * health['ring_fill']:.0f} % of {health['ring_slots']} frames are to be"
        " taken"
    )
    left = health["spool_free_s"]
    until = "" if left is None else f", full in {left / 60:.0f} min at this rate"
    output.say(f"disk      {health['spool_free_gb']:.1f} GB free{until}")
