"""What the worker process of a queueserver makes of a session."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any, Final

from apsber_bluesky.core import ServiceError
from apsber_bluesky.session._queue_plans import queue_plan

if TYPE_CHECKING:
    from apsber_bluesky.session._session import Session

logger = logging.getLogger(__name__)

#: bluesky's own plans that a remote user needs beside ours.
STANDARD_PLANS: Final = ("count", "grid_scan", "list_scan", "rel_scan", "scan")
STANDARD_STUBS: Final = ("mv", "mvr", "sleep")

#: What is for people with a terminal, or would be taken for something else.
_NOT_REMOTE: Final = ("bp", "bps", "devices", "plans")


def adapt_to_queueserver(session: Session, names: dict[str, Any]) -> dict[str, Any]:
    """The namespace of the worker: plans with descriptions, and a way to end the session.

    Parameters
    ----------
    session : Session
        The session of the worker; closed with its process.
    names : dict
        What `make_namespace` gave.

    Returns
    -------
    dict
        The namespace, with every public plan, some of bluesky's, and ``close_session``.
    """
    import bluesky.plan_stubs as bps
    import bluesky.plans as bp

    # The worker is a process of multiprocessing, which does not care for atexit.
    Finalize(session, session.close, exitpriority=100)
    plans = {
        name: queue_plan(getattr(session.plans, name), session.devices)
        for name in session.plans.__all__
    }
    standard = {name: getattr(bp, name) for name in STANDARD_PLANS}
    stubs = {name: getattr(bps, name) for name in STANDARD_STUBS}
    kept = {name: value for name, value in names.items() if name not in _NOT_REMOTE}
    return {**standard, **stubs, **kept, **plans, "close_session": _closer(session)}


def _closer(session: Session) -> Callable[..., dict[str, Any]]:
    runs: list[str] = []

    def note(_: str, document: dict[str, Any]) -> None:
        # Others, such as a count, are not processed, so there is nothing to wait for.
        if {"technique", "tomography"} & document.keys():
            runs.append(document["uid"])

    session.RE.subscribe(note, "start")

    def close_session(timeout_s: float = 120.0) -> dict[str, Any]:
        """See the runs of the queue through to the archive, then end the session.

        The manager waits half a second for its worker to end, so this comes before.
        """
        deadline = time.monotonic() + timeout_s
        unfinished = []
        for uid in runs:
            try:
                session.wait(uid, max(deadline - time.monotonic(), 0.0))
            except ServiceError as error:
                logger.warning("run %s is not finished: %s", uid, error)
                unfinished.append(uid)
        session.close()
        return {"runs": len(runs), "unfinished": unfinished}

    return close_session
