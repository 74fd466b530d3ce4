"""The thread that looks after runs and session, and keeps the board."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from apsber_bluesky.core import Profile, RunState
from apsber_bluesky.dashboard._board import Board
from apsber_bluesky.dashboard._run_index import RunIndex
from apsber_bluesky.dashboard._scan_view import view_run
from apsber_bluesky.dashboard._session_link import SessionLink
from apsber_bluesky.session import LiveSession, live_session

logger = logging.getLogger(__name__)

_PERIOD_S: Final = 0.25
#: How much longer it rests than it looked for runs, unless a session tells of another.
_REST: Final = 10
#: Runs in the list that every browser gets; it asks for more.
LISTED_RUNS: Final = 40


class Watcher:
    """Look, four times a second, and show what there is; sessions come and go.

    Parameters
    ----------
    profile : Profile
        Whose data root is watched, and when health deserves a warning.

    Attributes
    ----------
    board : Board
        Sections ``site``, ``session``, ``scan``, ``runs`` and ``slices``.
    index : RunIndex
        The runs.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.board = Board()
        self.index = RunIndex(profile.session.data_root)
        self._link: SessionLink | None = None
        self._listed: int | None = None
        self._trouble = ""
        self._looked_s = self._look_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        session = profile.session
        site = {"beamline": session.beamline_id, "instrument": session.instrument_name}
        self.board.show("site", {**site, "data_root": str(session.data_root)})
        self.board.show("slices", None)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def link(self) -> SessionLink | None:
        """The session that runs now; None if none does."""
        return self._link

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                self._trouble = ""
            except Exception as error:
                # Something may vanish while it is looked at; the next look will tell. Whatever it
                # is, the page must not stand still without a word.
                if (trouble := repr(error)) != self._trouble:
                    logger.exception("cannot look")
                    self._trouble = trouble
            self._stop.wait(_PERIOD_S)
        self._leave()

    def look(self) -> None:
        """Look once."""
        if self._has_new_runs() or self._listed is None:
            runs = self.index.newest
            self._listed = len(runs)
            self.board.show("runs", {"total": len(runs), "newest": runs[:LISTED_RUNS]})
        self._meet(live_session(self._profile.session.data_root))
        link = self._link
        if link is not None:
            link.look()
        self.board.show("session", None if link is None else link.describe())
        self.board.show("scan", self._newest())

    def _has_new_runs(self) -> bool:
        """Look for runs, but not all the time where there are thousands."""
        is_told = self._link is not None and not all(map(self.index.has, self._link.runs))
        began = time.monotonic()
        if began < self._looked_s + self._look_s * (1 if is_told else _REST):
            return False
        is_new = self.index.refresh()
        self._looked_s = time.monotonic()
        self._look_s = self._looked_s - began
        return is_new

    def _meet(self, session: LiveSession | None) -> None:
        """Listen to the session that is there now."""
        if session == (self._link.session if self._link else None):
            return
        self._leave()
        if session is not None:
            limits = self._profile.streaming.limits
            self._link = SessionLink(session, limits, self._show_slices)

    def _leave(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
            self.board.show("slices", None)

    def _show_slices(self, facts: Any) -> None:
        self.board.show("slices", facts)

    def _newest(self) -> dict[str, Any] | None:
        """The run that is under way, else the last one."""
        runs = self.index.newest
        if not runs:
            return None
        view = self.view(runs[0]["uid"])
        # A run of a session that died is never finished.
        return {**view, "is_over": RunState(view["state"]).is_final or self._link is None}

    def view(self, uid: str) -> dict[str, Any]:
        """Everything that the page tells of a run.

        Raises
        ------
        StorageError
            If there is no such run, or it cannot be read.
        """
        link, folder = self._link, self.index.folder(uid)
        status = {} if link is None else link.run_status(uid)
        health = None if link is None else link.describe()["health"]
        return view_run(folder, status, health)

    def close(self) -> None:
        """End, and let all listeners go."""
        self.board.close()
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
