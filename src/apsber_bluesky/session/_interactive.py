"""Start a session for whoever imports `apsber_bluesky.session.startup`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from apsber_bluesky.core import Profile, RunCancelled, ServiceError, load_profile
from apsber_bluesky.session._banner import print_banner
from apsber_bluesky.session._live_session import live_session
from apsber_bluesky.session._namespace import make_namespace, running_in_queueserver
from apsber_bluesky.session._session import start

PROFILE_VARIABLE: Final = "APSBER_PROFILE"
_OLD_SESSION_TIMEOUT_S: Final = 20.0


def begin() -> dict[str, Any]:
    """Start the session of the profile that ``APSBER_PROFILE`` names, and say so.

    Returns
    -------
    dict
        What `make_namespace` gives; in a queueserver with plans as its clients see them.

    Raises
    ------
    ApsberError
        If the session cannot start; nothing is left running.
    """
    profile = load_profile(os.environ.get(PROFILE_VARIABLE, "simulated"))
    in_queueserver = running_in_queueserver()
    with _interrupts_noted() as check:
        if in_queueserver:
            _wait_for_the_last(profile, check)
        session = start(profile, check=check)
    try:
        names = make_namespace(session)
        if in_queueserver:
            from apsber_bluesky.session._queue_worker import adapt_to_queueserver

            return adapt_to_queueserver(session, names)
        _register_magics()
        print_banner(session)
    except BaseException:
        session.close()
        raise
    return names


def _wait_for_the_last(profile: Profile, check: Callable[[], None]) -> None:
    """A queueserver may open an environment while the one before is still closing."""
    deadline = time.monotonic() + _OLD_SESSION_TIMEOUT_S
    while (other := live_session(profile.session.data_root)) is not None:
        check()
        if time.monotonic() > deadline:
            raise ServiceError(
                f"process {other.pid} has a session in {profile.session.data_root}; end it, or"
                " give the queue another data root"
            )
        time.sleep(0.1)


def _register_magics() -> None:
    """``%mov``, ``%wa``, ``%ct`` and so on, where this is IPython."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        from bluesky.magics import BlueskyMagics

        shell.register_magics(BlueskyMagics)


@contextmanager
def _interrupts_noted() -> Iterator[Callable[[], None]]:
    """Ctrl-C while the session starts ends it in good order, at the next call of what is given."""
    noted = threading.Event()

    def check() -> None:
        if noted.is_set():
            raise RunCancelled(
                "interrupted while the session was starting; nothing is left running"
            )

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGINT, lambda *_: noted.set())
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
