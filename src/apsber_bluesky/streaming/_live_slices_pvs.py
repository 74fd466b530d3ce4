"""Live slices as PVs, by a thread of the monitor of its own."""

from __future__ import annotations

import logging
import threading
from typing import Final

from p4p.server import StaticProvider

from apsber_bluesky.core import PLANES, FrameError, LiveView
from apsber_bluesky.streaming._live_slices import SliceSubscriber
from apsber_bluesky.streaming._monitor_pvs import PreviewPv

logger = logging.getLogger(__name__)

_WAIT_S: Final = 0.2


class LiveSlicePvs:
    """The slices on PVs ``<prefix>Live:XY``, ``Live:XZ`` and ``Live:YZ``, which nobody can write.

    Parameters
    ----------
    prefix : str
        What their names begin with.
    address : str
        Where the worker shows them.

    Raises
    ------
    ConfigurationError
        If the address is none.
    """

    def __init__(self, prefix: str, address: str) -> None:
        self._subscriber = SliceSubscriber(address)
        self._pvs = {name: PreviewPv(f"{prefix}Live:{name.upper()}") for name in PLANES}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="live-slices", daemon=True)

    def add_to(self, provider: StaticProvider) -> None:
        """Have a server offer them."""
        for pv in self._pvs.values():
            pv.add_to(provider)

    def start(self) -> None:
        """Begin to show."""
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                view = self._subscriber.latest(_WAIT_S)
            except FrameError as error:
                logger.warning("live slices: %s", error)
                continue
            if view is not None:
                self.show(view)

    def show(self, view: LiveView) -> None:
        """Show slices, with the number of projections in them as ``uniqueId``."""
        left_out = f"{view.dropped} projections were left out to keep pace" if view.dropped else ""
        attributes: dict[str, str | float] = {
            "RunUid": view.run_uid,
            "Total": view.total,
            "Dropped": view.dropped,
            "Centre": view.centre_px,
            "CentreFrom": view.centre_from,
            "Binning": view.binning,
            "Window": view.window_deg,
            "Latency": view.latency_s,
        }
        for name, pv in self._pvs.items():
            attributes["Plane"] = name.upper()
            pv.show(view.planes[name], view.used, attributes, warning=left_out)

    def close(self) -> None:
        """Stop showing."""
        if self._thread.is_alive():
            self._stop.set()
            self._thread.join()
        self._subscriber.close()
