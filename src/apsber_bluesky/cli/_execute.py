"""Run one plan in a fresh session and see it through to the archive."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

from apsber_bluesky.cli._display import RunDisplay
from apsber_bluesky.cli._interrupt import Interrupt, handle_interrupts
from apsber_bluesky.cli._output import Output
from apsber_bluesky.core import ApsberError, PlanError, Profile, RunCancelled, ServiceError
from apsber_bluesky.session import Session, check_data_root, start

logger = logging.getLogger(__name__)

#: How long the stages after a scan may take [s].
PROCESSING_TIMEOUT_S = 3600.0

MakePlan = Callable[[Session], Any]
Afterwards = Callable[[Session, dict[str, Any]], None]


def execute(
    profile: Profile, make_plan: MakePlan, output: Output, afterwards: Afterwards | None = None
) -> dict[str, Any]:
    """Run a plan and wait for everything that follows.

    Parameters
    ----------
    profile : Profile
        Where to run it.
    make_plan : callable
        Makes the plan from the session.
    output : Output
        Where to report.
    afterwards : callable, optional
        Called with the session and the summary while the session is still up.

    Returns
    -------
    dict
        The summary of the last run of the plan, with ``seconds`` of each part, and ``runs``, the
        summaries of all of them if there are several.

    Raises
    ------
    RunCancelled
        If Ctrl-C was pressed; the run is marked aborted and everything has stopped.
    ApsberError
        If anything else is wrong.
    """
    with _quiet_libraries(profile, output), handle_interrupts() as interrupt:
        try:
            return _execute(profile, make_plan, output, afterwards, interrupt)
        except KeyboardInterrupt:
            raise RunCancelled("interrupted; nothing was left running") from None


def _execute(
    profile: Profile,
    make_plan: MakePlan,
    output: Output,
    afterwards: Afterwards | None,
    interrupt: Interrupt,
) -> dict[str, Any]:
    began = time.monotonic()
    # An exception in the middle of starting a process could leave that process behind, so Ctrl-C
    # is only noted and checked for.
    with output.progress_console.status("starting the session"), interrupt.calls(lambda: None):
        session = start(profile, check=interrupt.check)
    with session:
        started = time.monotonic()
        display = RunDisplay(output.progress_console)
        session.board.listen(display)
        with display.live():
            uids = _acquire(session, make_plan(session), interrupt)
            scanned = time.monotonic()
            with interrupt.calls(session.cancel):
                summaries = [session.wait(uid, PROCESSING_TIMEOUT_S) for uid in uids]
        summary = dict(summaries[-1])
        if len(summaries) > 1:
            summary["runs"] = summaries
        finished = time.monotonic()
        summary["seconds"] = {
            "start": round(started - began, 3),
            "scan": round(scanned - started, 3),
            "after_scan": round(finished - scanned, 3),
            "total": round(finished - began, 3),
            "stages": summary["seconds"],
        }
        if interrupt.happened:
            raise RunCancelled(
                f"run {uids[-1]} was aborted; what arrived is in {summary['folder']}"
            )
        if afterwards is not None:
            afterwards(session, summary)
    return summary


@contextmanager
def _quiet_libraries(profile: Profile, output: Output) -> Iterator[None]:
    """Send what libraries print and log elsewhere: a terminal shows one line per error.

    Their logs, with tracebacks, go to a file below the data root.
    """
    own = check_data_root(profile.session.data_root)
    handler = logging.FileHandler(own / "session.log", delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        # bluesky prints; with --json standard output belongs to the one JSON object.
        with redirect_stdout(sys.stderr) if output.as_json else nullcontext():
            yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _acquire(session: Session, plan: Any, interrupt: Interrupt) -> list[str]:
    from bluesky.utils import RunEngineInterrupted

    engine = session.RE
    # The RunEngine's own handler would pause and wait for a person.
    engine.context_managers = []
    uids: list[str] = []

    def note(name: str, document: dict[str, Any]) -> None:
        uids.append(document["uid"])

    def abort() -> None:
        if engine.state != "idle":
            engine.abort(reason="interrupted from the terminal")

    token = engine.subscribe(note, "start")
    try:
        with interrupt.calls(abort):
            engine(plan)
    except RunEngineInterrupted:
        if not uids:
            raise RunCancelled("interrupted before the run had begun") from None
    except Exception as error:
        logger.info("the plan failed", exc_info=error)
        session.check()
        if uids:
            session.wait(uids[-1], PROCESSING_TIMEOUT_S)
        raise _explained(error) from error
    finally:
        engine.unsubscribe(token)
    if not uids:
        raise ServiceError("the plan opened no run, so there is nothing to process")
    return uids


def _explained(error: Exception) -> ApsberError:
    """What went wrong, on one line; the RunEngine wraps what a device said."""
    from bluesky.utils import FailedStatus

    if isinstance(error, FailedStatus) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, ApsberError):
        return error
    return PlanError(f"the plan failed: {type(error).__name__}: {error}")
