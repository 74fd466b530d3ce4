"""Wait for beam: what a RunEngine or a plan watches while it works."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec

import bluesky.preprocessors as bpp
from bluesky.suspenders import SuspendBoolLow, SuspenderBase, SuspendFloor
from bluesky.utils import MsgGenerator

from apsber_bluesky.core import InputError
from apsber_bluesky.devices._beamline import StorageRing

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")


def beam_suspenders(
    ring: StorageRing | None,
    *,
    ring_current_mA: float | None = 50.0,
    resume_mA: float | None = None,
    permit: bool = True,
    settle_s: float = 0.0,
) -> list[SuspenderBase]:
    """Make suspenders that hold plans while there is no beam.

    Parameters
    ----------
    ring : StorageRing or None
        Whose current and permit are watched. Without a ring, or one that is not connected, there
        are no suspenders, and a note in the log says so.
    ring_current_mA : float or None
        Plans are suspended below this current [mA]; None leaves the current alone.
    resume_mA : float, optional
        They go on above this current [mA]; by default a fifth more.
    permit : bool
        Whether plans are suspended while shutters may not be opened.
    settle_s : float
        How long beam has to be back before plans go on [s].

    Returns
    -------
    list of SuspenderBase
        For ``RE.install_suspender``, `bluesky.preprocessors.suspend_wrapper` or `suspended`.

    Raises
    ------
    InputError
        If plans would go on below the current at which they are suspended.
    """
    if ring is None or not ring.connected:
        name = "no storage ring" if ring is None else f"{ring.name} is not connected"
        logger.warning("%s: plans do not wait for beam", name)
        return []
    found: list[Any] = []
    if ring_current_mA is not None:
        resume = 1.2 * ring_current_mA if resume_mA is None else resume_mA
        if resume < ring_current_mA:
            raise InputError(
                f"resume_mA is {resume:g}; it must be at least ring_current_mA, {ring_current_mA:g}"
            )
        found.append(
            SuspendFloor(
                ring.current,
                ring_current_mA,
                resume_thresh=resume,
                sleep=settle_s,
                tripped_message=f"ring current below {ring_current_mA:g} mA",
            )
        )
    if permit:
        found.append(
            SuspendBoolLow(
                ring.permit, sleep=settle_s, tripped_message="shutters may not be opened"
            )
        )
    return found


def with_beam(
    plan: MsgGenerator[Any], ring: StorageRing | None, **limits: Any
) -> MsgGenerator[Any]:
    """Have one plan wait for beam, on any RunEngine.

    Parameters
    ----------
    plan : generator
        The plan, e.g. ``fly_tomography(camera, ...)``.
    ring : StorageRing or None
        Whose current and permit are watched; without one the plan does not wait.
    **limits
        As for `beam_suspenders`.

    Yields
    ------
    Msg
        Those of the plan, with the suspenders installed before and removed after them.
    """
    suspenders = beam_suspenders(ring, **limits)
    if not suspenders:
        return (yield from plan)
    return (yield from bpp.suspend_wrapper(plan, suspenders))


def waits_for_beam(
    ring: StorageRing | None, **limits: Any
) -> Callable[[Callable[_P, MsgGenerator[Any]]], Callable[_P, MsgGenerator[Any]]]:
    """Decorate a plan so that it waits for beam; see `with_beam`."""

    def decorate(plan: Callable[_P, MsgGenerator[Any]]) -> Callable[_P, MsgGenerator[Any]]:
        @functools.wraps(plan)
        def waiting(*args: _P.args, **kwargs: _P.kwargs) -> MsgGenerator[Any]:
            return (yield from with_beam(plan(*args, **kwargs), ring, **limits))

        return waiting

    return decorate
