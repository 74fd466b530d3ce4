"""What the page shows now: sections of plain values, of which each browser gets the newest."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

#: Browsers that may listen at once.
MAXIMUM_LISTENERS: Final = 32

# A browser is told at most this often, and at least this often that the server is there [s].
_PERIOD_S: Final = 0.1
HEARTBEAT_S: Final = 3.0


class Board:
    """Sections by name, each with the number of its last change.

    Any thread may write. A listener that is slow skips what was overwritten meanwhile: nothing is
    queued for anybody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sections: dict[str, tuple[int, str]] = {}
        self._change = 0
        self._closed = False
        self._wakers: set[Callable[[], None]] = set()

    def show(self, name: str, value: Any) -> None:
        """Replace a section by plain JSON values."""
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        with self._lock:
            if self._sections.get(name, (0, ""))[1] == text:
                return
            self._change += 1
            self._sections[name] = (self._change, text)
        self._wake()

    def since(self, change: int) -> tuple[int, dict[str, str]]:
        """The number of the last change, and the sections that changed after `change`, as JSON."""
        with self._lock:
            changed = {n: text for n, (own, text) in self._sections.items() if own > change}
            return self._change, changed

    def close(self) -> None:
        """Let all listeners go."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    @property
    def is_full(self) -> bool:
        """Whether no more listeners can be served."""
        return len(self._wakers) >= MAXIMUM_LISTENERS

    async def listen(self) -> AsyncIterator[str]:
        """All sections at once, then those that change, as server-sent events.

        The format is that of the HTML standard, section 9.2.
        """
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._lock:
            self._wakers.add(wake)
        try:
            seen = 0
            while not self._closed:
                changed.clear()
                seen, sections = self.since(seen)
                # Waits while the browser is behind; what changes meanwhile is in the next event.
                yield _event(sections) if sections else ":\n\n"
                await asyncio.sleep(_PERIOD_S)
                with_news = asyncio.wait_for(changed.wait(), HEARTBEAT_S)
                try:
                    await with_news
                except TimeoutError:
                    continue
        finally:
            with self._lock:
                self._wakers.discard(wake)


def _event(sections: dict[str, str]) -> str:
    inside = ",".join(f"{json.dumps(name)}:{text}" for name, text in sections.items())
    return f"data: {{{inside}}}\n\n"
