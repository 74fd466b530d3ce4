"""A run that leaves the beamline safe and is closed with its reason, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import FailedStatus, Msg, MsgGenerator, RunEngineControlException

from apsber_bluesky.core import ApsberError
from apsber_bluesky.devices import FastShutter


def safe_run(
    metadata: dict[str, Any],
    body: Callable[[str], MsgGenerator[None]],
    *,
    staged: Sequence[Any],
    close_up: Callable[[], MsgGenerator[None]],
) -> Generator[Msg, Any, str]:
    """One run around `body`; whatever happens, the beamline is left safe and the run closed.

    Parameters
    ----------
    metadata : dict
        Of the start document.
    body : callable
        What happens in the run; called with its uid.
    staged : sequence of device
        What is staged meanwhile.
    close_up : callable
        Leaves the beamline safe; done at the end, and at once when something fails.

    Returns
    -------
    str
        Bluesky run uid.
    """
    uid: str = yield from bps.open_run(metadata)
    # Safe before anything else is cleaned up, which may take its time.
    safe = bpp.contingency_wrapper(named_failures(body(uid)), except_plan=lambda _: close_up())
    # Staged inside the run: unstaging closes the spool, so the stop document finds it closed.
    yield from bpp.contingency_wrapper(
        bpp.finalize_wrapper(bpp.stage_wrapper(safe, list(staged)), close_up),
        except_plan=_close_failed_run,
        else_plan=bps.close_run,
    )
    return uid


def leave_safe(shutter: FastShutter, devices: Sequence[Any]) -> MsgGenerator[None]:
    """Close the shutter and stop everything: nothing turns, no exposure, no pulses.

    A device that fails here does not keep the others from being stopped.
    """
    yield from bpp.finalize_wrapper(
        bps.abs_set(shutter, "close", wait=True), lambda: _stop_all(devices)
    )


def _stop_all(devices: Sequence[Any]) -> MsgGenerator[None]:
    if devices:
        yield from bpp.finalize_wrapper(bps.stop(devices[0]), lambda: _stop_all(devices[1:]))


def named_failures(plan: MsgGenerator[None]) -> MsgGenerator[None]:
    """Raise what a device said went wrong, not only that one of its statuses failed."""
    try:
        yield from plan
    except FailedStatus as error:
        if isinstance(error.__cause__, ApsberError):
            raise error.__cause__ from None
        raise


def _close_failed_run(error: Exception) -> MsgGenerator[None]:
    if isinstance(error, RunEngineControlException):
        yield from bps.close_run(exit_status=error.exit_status)
    else:
        yield from bps.close_run(exit_status="fail", reason=str(error) or type(error).__name__)
