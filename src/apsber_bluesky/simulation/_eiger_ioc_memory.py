"""The memory of a detector control unit: messages wait in it until the receiver takes them."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Final, Literal

from apsber_bluesky.simulation._eiger_dcu import EigerDcu

_TURN_S: Final = 0.1


class DcuMemory:
    """One stream port, and what waits for it.

    Images that do not fit the memory are dropped and counted, as a DCU does; the start and the end
    of a series always find room.

    Parameters
    ----------
    version : {1, 2}
        Legacy stream or Stream V2.
    capacity : int
        Images that may wait.

    Attributes
    ----------
    address : str
        Of the port.
    dropped : int
        Images that were dropped since the series began.
    """

    def __init__(self, version: Literal[1, 2], *, capacity: int = 2000) -> None:
        self._dcu = EigerDcu(version, high_water_mark=8)
        self.address = self._dcu.address
        self.dropped = 0
        self._capacity = capacity
        self._waiting: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send, name="eiger-stream", daemon=True)
        self._thread.start()

    def put(self, parts: list[bytes], *, is_image: bool) -> None:
        """Send a message as soon as somebody takes it."""
        if is_image and self._waiting.qsize() >= self._capacity:
            self.dropped += 1
            return
        self._waiting.put(parts)

    def clear(self) -> None:
        """Forget what waits."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()

    def _send(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(queue.Empty):
                parts = self._waiting.get(timeout=_TURN_S)
                while not self._dcu.offer(parts, timeout_s=_TURN_S):
                    if self._closing.is_set():
                        return

    def close(self) -> None:
        """Close the port; what nobody took is lost."""
        self._closing.set()
        self._thread.join()
        self._dcu.close(linger_s=0.0)
