"""The three live slices of a session, as PV Access shows them, as pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import PLANES, forgo_real_time
from apsber_bluesky.dashboard._png import grey_png, to_grey

# Part of the pixels that may be blacker than black, and whiter than white [%].
_DARKEST, _BRIGHTEST = 0.5, 99.8
_FACTS: Final = {
    "Total": "total",
    "Dropped": "dropped",
    "CentreFrom": "centre_from",
    "Binning": "binning",
    "Window": "window_deg",
}


class LivePictures:
    """Follow the PVs ``<prefix>Live:XY``, ``Live:XZ`` and ``Live:YZ``; only the newest is kept.

    Parameters
    ----------
    name_server : str
        Where PV Access finds them.
    prefix : str
        What their names begin with.
    tell : callable
        Called, from a thread of PV Access, with what is there now as plain values: ``run_uid``,
        ``used``, ``versions`` (by plane) and what `docs/reference/live-slices.md` lists.
    """

    def __init__(self, name_server: str, prefix: str, tell: Callable[[Any], None]) -> None:
        # EPICS' threads are made by this one, and would else have real-time priority.
        forgo_real_time()
        from p4p.client.thread import Context

        self._tell = tell
        self._lock = threading.Lock()
        self._planes: dict[str, NDArray[Any]] = {}
        self._versions = dict.fromkeys(PLANES, 0)
        self._encoded: dict[str, tuple[int, bytes]] = {}
        self._run_uid = ""
        settings = {
            "EPICS_PVA_NAME_SERVERS": name_server,
            "EPICS_PVA_ADDR_LIST": "",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        }
        self._context = Context("pva", conf=settings, useenv=False)
        self._subscriptions = [self._follow(f"{prefix}Live:{p.upper()}", p) for p in PLANES]

    def _follow(self, channel: str, plane: str) -> Any:
        def take(update: Any) -> None:
            self._take(plane, update)

        return self._context.monitor(channel, take)

    def _take(self, plane: str, update: Any) -> None:
        """Keep a picture; the id -1 says that there is none yet."""
        number = int(update.raw.uniqueId)
        if number < 0:
            return
        pixels = np.asarray(update)
        with self._lock:
            if (uid := str(update.attrib.get("RunUid", ""))) != self._run_uid:
                self._run_uid = uid
                self._planes.clear()
            self._planes[plane] = pixels
            self._versions[plane] += 1
            facts = {ours: _plain(update.attrib.get(name)) for name, ours in _FACTS.items()}
            versions = {name: self._versions[name] for name in self._planes}
        self._tell({"run_uid": uid, "used": number, "versions": versions, **facts})

    def png(self, plane: str) -> bytes | None:
        """The newest picture of a plane; None when there is none.

        The three have one range of grey, so that equal greys are equal attenuation.
        """
        with self._lock:
            pixels, version = self._planes.get(plane), self._versions[plane]
            known, encoded = self._encoded.get(plane, (0, b""))
            planes = list(self._planes.values())
        if pixels is None:
            return None
        if known != version:
            every = np.concatenate([own.ravel() for own in planes])
            low, high = np.percentile(every, (_DARKEST, _BRIGHTEST))
            # What no projection has seen is 0, and less is an artefact: both are black.
            encoded = grey_png(to_grey(pixels, max(float(low), 0.0), float(high)))
            with self._lock:
                self._encoded[plane] = (version, encoded)
        return encoded

    def close(self) -> None:
        """Follow them no more."""
        for subscription in self._subscriptions:
            subscription.close()
        self._context.close()


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else float(value)
