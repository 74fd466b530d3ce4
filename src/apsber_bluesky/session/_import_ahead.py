"""Import while processes start, instead of after."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

#: What a session needs once its processes serve; each takes some tenths of a second. They are
#: imported by the thread that waits: two threads that import modules with circular imports may
#: see half of one.
_MODULES: Final = (
    "bluesky",
    "ophyd",
    "apsber_bluesky.plans",
    "apsber_bluesky.callbacks",
    "tiled.client",
    "bluesky.callbacks.best_effort",
    "bluesky_tiled_plugins",
)


class ImportAhead:
    """To be called while waiting: each call imports one more module, then asks `check`.

    Only for use after `prepare_epics`.

    Parameters
    ----------
    check : callable
        Called each time; may raise to give up.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._waiting = list(_MODULES)

    def __call__(self) -> None:
        self._check()
        if self._waiting:
            importlib.import_module(self._waiting.pop(0))
