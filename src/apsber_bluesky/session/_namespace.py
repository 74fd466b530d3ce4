"""The names that a session gives to IPython, a notebook, a script or queueserver."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from apsber_bluesky.core import ConfigurationError
from apsber_bluesky.session._registry import DeviceRegistry

if TYPE_CHECKING:
    from apsber_bluesky.session._session import Session


def running_in_queueserver() -> bool:
    """Whether this process is the worker of a queueserver."""
    # Without the package nobody can have started one.
    try:
        from bluesky_queueserver import is_re_worker_active
    except ImportError:
        return False
    return bool(is_re_worker_active())


def make_namespace(session: Session) -> dict[str, Any]:
    """What users work with, in the order in which BITS' ``startup.py`` makes it.

    Parameters
    ----------
    session : Session
        A session that has started.

    Returns
    -------
    dict
        ``oregistry, bec, peaks, cat, RE, sd, bp, bps``, then the devices, then the plans, then the
        session itself.

    Raises
    ------
    ConfigurationError
        If a device has the name of something else.
    """
    import bluesky.plan_stubs as bps
    import bluesky.plans as bp

    names: dict[str, Any] = {"oregistry": DeviceRegistry(session.devices)}
    names["bec"] = bec = _best_effort()
    names["peaks"] = bec.peaks
    names["cat"] = session.catalog
    names["RE"] = session.RE
    names["sd"] = session.sd
    session.RE.subscribe(bec)
    names |= {"bp": bp, "bps": bps}
    plans = {name: getattr(session.plans, name) for name in session.plans.__all__}
    taken = {*names, *plans, "session", "devices", "plans"} & set(session.devices)
    if taken:
        raise ConfigurationError(
            f"devices cannot be called {', '.join(sorted(taken))}: the session has something else"
            " of that name"
        )
    extra = {"devices": session.devices, "plans": session.plans, "session": session}
    return {**names, **session.devices, **plans, **extra}


def _best_effort() -> Any:
    pyplot = sys.modules.get("matplotlib.pyplot")
    interactive = pyplot is not None and bool(pyplot.isinteractive())
    from bluesky.callbacks.best_effort import BestEffortCallback

    callback = BestEffortCallback()
    if not interactive:
        # Without a window a plot is only time that the next scan waits for.
        callback.disable_plots()
    return callback
