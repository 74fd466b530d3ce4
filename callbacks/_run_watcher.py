"""How a run proceeds, for progress displays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from event_model import DocumentRouter


class RunWatcher(DocumentRouter):
    """Tell a display that runs open and close.

    Parameters
    ----------
    tell : callable
        Called with ``{"type": "run_opened", "run_uid": ..., "totals": {stream: frames}}`` and
        ``{"type": "run_closed", "run_uid": ..., "exit_status": ...}``.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._tell = tell

    def start(self, doc: dict[str, Any]) -> None:
        """Tell that a run opens, and how many frames it is to take."""
        scan = doc.get("tomography", {})
        totals = {
            "darks": scan.get("num_darks", 0),
            "flats": scan.get("num_flats", 0),
            "primary": scan.get("num_projections", 0),
        }
        self._tell({"type": "run_opened", "run_uid": doc["uid"], "totals": totals})

    def stop(self, doc: dict[str, Any]) -> None:
        """Tell that the run closes."""
        self._tell(
            {
                "type": "run_closed",
                "run_uid": doc["run_start"],
                "exit_status": doc["exit_status"],
            }
        )
