"""Start a process of the session again when it dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from apsber_bluesky.core import ApsberError
from apsber_bluesky.session._services import ServiceProcess

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.1
_MOST_RESTARTS: Final = 5
_WINDOW_S: Final = 60.0


class Supervisor:
    """Watch one process from a thread, and put another in its place when it ends.

    The kernel ends a child with the thread that started it, so this thread lives as long as the
    session: `watch` when the process serves, `release` before it is stopped on purpose, and
    `close` after.

    Parameters
    ----------
    replace : callable
        Starts another process, which goes on with the work, and returns it when it serves.
    tell : callable
        Called with the number of the restart.
    """

    def __init__(
        self, replace: Callable[[], ServiceProcess], tell: Callable[[int], None] = lambda _: None
    ) -> None:
        self._replace = replace
        self._tell = tell
        self._service: ServiceProcess | None = None
        self._restarts_s: list[float] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def restarts(self) -> int:
        """How often the process was replaced."""
        return len(self._restarts_s)

    @property
    def gives_up(self) -> bool:
        """Whether it died so often, lately, that it is not started again."""
        since = time.monotonic() - _WINDOW_S
        return sum(moment > since for moment in self._restarts_s) >= _MOST_RESTARTS

    @property
    def is_watching(self) -> bool:
        """Whether the process is replaced when it dies."""
        return self._service is not None and not self.gives_up

    def watch(self, service: ServiceProcess) -> None:
        """Replace this process when it dies."""
        with self._lock:
            self._service = service

    def release(self) -> None:
        """Let it die; waits for a restart that is under way."""
        with self._lock:
            self._service = None

    def _run(self) -> None:
        while not self._closing.wait(_POLL_S):
            with self._lock:
                service = self._service
                if service is not None and not service.is_running and not self.gives_up:
                    self._restart(service)

    def _restart(self, service: ServiceProcess) -> None:
        self._restarts_s.append(time.monotonic())
        logger.warning("%s ended (log: %s); it is started again", service.name, service.log)
        try:
            self._service = self._replace()
        except ApsberError:
            # The next turn tries again, until it has failed too often.
            logger.exception("%s could not be started again", service.name)
            return
        self._tell(len(self._restarts_s))

    def close(self) -> None:
        """End the thread, and with it a process that it started and that still runs."""
        self._closing.set()
        self._thread.join()
