"""The monitor: asks the receiver how it is, and shows that, the newest frame and slices as PVs.

PV Access is slow and has threads of its own, so it lives in this process and in no other of the
stream. Everything here may be late or left out; nothing waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from p4p.server import StaticProvider

from apsber_bluesky.core import ConfigurationError, ServiceError, StreamingSettings
from apsber_bluesky.streaming._client import ReceiverClient
from apsber_bluesky.streaming._health import HealthWarning, ReceiverHealth, find_warnings
from apsber_bluesky.streaming._live_slices_pvs import LiveSlicePvs
from apsber_bluesky.streaming._monitor_pvs import (
    LOOPBACK,
    HealthPvs,
    PreviewPv,
    serve_here,
    server_port,
)
from apsber_bluesky.streaming._ring import FrameRing, frame_tag, stream_key

logger = logging.getLogger(__name__)

POLL_S: Final = 0.5
#: How far back growth is judged from [s].
_GROWTH_S: Final = 5.0


class Monitor:
    """Show the health of a receiver and its newest frame, and tell of warnings.

    Parameters
    ----------
    client : ReceiverClient
        The receiver.
    ring : FrameRing
        Its ring.
    settings : StreamingSettings
        ``preview_hz``, ``health_prefix``, ``pva_port`` and ``limits``.
    report : callable
        Called once when a warning appears, and once when it goes, with plain values: ``type``
        (``health``), ``run_uid``, ``kind``, ``message`` and ``active``.
    live_slices : str, optional
        Where the worker shows slices of the volume.

    Attributes
    ----------
    name_server : str
        Where PV Access clients of this computer find the PVs (``EPICS_PVA_NAME_SERVERS``).

    Raises
    ------
    ConfigurationError
        If the port is taken.
    """

    def __init__(
        self,
        client: ReceiverClient,
        ring: FrameRing,
        settings: StreamingSettings,
        report: Callable[[dict[str, Any]], None],
        live_slices: str | None = None,
    ) -> None:
        self._client = client
        self._ring = ring
        self._settings = settings
        self._report = report
        self._active: dict[str, HealthWarning] = {}
        self._past: deque[tuple[float, ReceiverHealth]] = deque()
        self._run_uid = ""
        self._previewed: tuple[str, str, int] | None = None
        self._lost = False
        self._pvs = HealthPvs(settings.health_prefix)
        provider = StaticProvider("monitor")
        self._pvs.add_to(provider)
        self._preview = PreviewPv(settings.preview_pv) if settings.preview_hz else None
        if self._preview is not None:
            self._preview.add_to(provider)
        self._slices = LiveSlicePvs(settings.health_prefix, live_slices) if live_slices else None
        if self._slices is not None:
            self._slices.add_to(provider)
        try:
            self._server = serve_here(provider, settings.pva_port)
        except ConfigurationError:
            self._close_slices()
            raise
        if self._slices is not None:
            self._slices.start()
        self.name_server = f"{LOOPBACK}:{server_port(self._server)}"

    def serve(self, stop: threading.Event) -> None:
        """Watch until told to stop."""
        hertz = self._settings.preview_hz
        period_s = min(POLL_S, 1 / hertz) if hertz else POLL_S
        while not stop.wait(period_s):
            self.look()

    def look(self) -> None:
        """Ask once, and show what has changed."""
        try:
            health = self._client.health()
        except ServiceError as error:
            self._say_lost(str(error))
            return
        if self._lost:
            self._lost = False
            self._tell("receiver", "the receiver answers again", active=False)
        warnings = find_warnings(health, self._settings.limits, self._earlier(health))
        self._run_uid = health.run_uid
        self._pvs.show(health, warnings)
        self._say(warnings)
        if self._preview is not None:
            self._show_newest(self._preview, health)

    def _earlier(self, health: ReceiverHealth) -> ReceiverHealth | None:
        """The health of the same series some seconds ago."""
        now, past = time.monotonic(), self._past
        if past and (past[-1][1].run_uid, past[-1][1].stream) != (health.run_uid, health.stream):
            past.clear()
        while len(past) > 1 and past[1][0] <= now - _GROWTH_S:
            past.popleft()
        past.append((now, health))
        return past[0][1] if past[0][0] <= now - _GROWTH_S else None

    def _say(self, warnings: list[HealthWarning]) -> None:
        present: dict[str, HealthWarning] = {warning.kind: warning for warning in warnings}
        for kind, warning in present.items():
            if kind not in self._active:
                self._tell(kind, warning.message, active=True)
        for kind, warning in self._active.items():
            if kind not in present:
                self._tell(kind, warning.message, active=False)
        self._active = present

    def _say_lost(self, why: str) -> None:
        self._pvs.lost(why)
        if not self._lost:
            self._lost = True
            self._tell("receiver", why, active=True)

    def _tell(self, kind: str, message: str, *, active: bool) -> None:
        logger.log(
            logging.WARNING if active else logging.INFO, "%s%s", "" if active else "over: ", message
        )
        self._report(
            {
                "type": "health",
                "run_uid": self._run_uid,
                "kind": kind,
                "message": message,
                "active": active,
            }
        )

    def _show_newest(self, preview: PreviewPv, health: ReceiverHealth) -> None:
        newest = (health.run_uid, health.stream, health.newest)
        if health.newest < 0 or newest == self._previewed or health.rows * health.columns == 0:
            return
        pixels = np.empty((health.rows, health.columns), health.dtype)
        tag = frame_tag(stream_key(health.run_uid, health.stream), health.newest)
        # It may have been overwritten meanwhile, or not be decoded yet: the next one will do.
        if self._ring.get(tag, pixels, looks_on=True):
            self._previewed = newest
            preview.show(pixels, health.newest, {"RunUid": health.run_uid, "Stream": health.stream})

    def close(self) -> None:
        """Stop serving."""
        self._close_slices()
        self._server.stop()

    def _close_slices(self) -> None:
        if self._slices is not None:
            self._slices.close()
