"""Ctrl-C means: stop what is going on, leave everything in order, then end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from apsber_bluesky.core import Cancellation, RunCancelled


class Interrupt:
    """What Ctrl-C does at the moment; each command says so as it proceeds.

    Attributes
    ----------
    happened : bool
        Whether somebody pressed Ctrl-C, or the process was asked to end.
    """

    def __init__(self) -> None:
        self.happened = False
        self._action: Callable[[], None] | None = None

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        self.happened = True
        action = self._action
        if action is None:
            raise KeyboardInterrupt
        # Not in the handler: the action may wait for what this thread is doing.
        threading.Thread(target=action, name="interrupt", daemon=True).start()

    def check(self) -> None:
        """Raise if it has happened.

        Raises
        ------
        RunCancelled
            If so.
        """
        if self.happened:
            raise RunCancelled("interrupted before the run had begun; nothing is left running")

    @contextmanager
    def calls(self, action: Callable[[], None]) -> Iterator[None]:
        """Call `action` instead of raising `KeyboardInterrupt` while the body runs."""
        before, self._action = self._action, action
        try:
            if self.happened:
                action()
            yield
        finally:
            self._action = before


@contextmanager
def handle_interrupts() -> Iterator[Interrupt]:
    """Handle SIGINT and SIGTERM alike while the body runs."""
    interrupt = Interrupt()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interrupt._handle) for number in signals]  # noqa: SLF001
    try:
        yield interrupt
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def cancellable() -> Iterator[Cancellation]:
    """Have SIGINT and SIGTERM set what work asks now and then while the body runs."""
    cancelled = threading.Event()
    with handle_interrupts() as interrupt, interrupt.calls(cancelled.set):
        yield cancelled
