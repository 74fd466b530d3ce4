"""The frame port of a detector that speaks only PV Access, beside its receiver."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from p4p.client.thread import Disconnected

from apsber_bluesky.core import FrameError, SeriesRequest, ServiceError
from apsber_bluesky.streaming._ntndarray import NtndarrayReader
from apsber_bluesky.streaming._publisher import FramePublisher
from apsber_bluesky.streaming._relay import PvaMonitor, SeriesRelay

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.02
#: How long nothing must come before what comes next belongs to the next series.
_QUIET_S: Final = 0.1
_PATIENCE_S: Final = 10.0
_CONNECT_S: Final = 10.0


class RelayedPort:
    """Stay subscribed to a channel, and send the frames of each armed series to the receiver.

    Parameters
    ----------
    channel : str
        PV name of the NTNDArray.
    queue_size : int
        Frames that may wait in PV Access, and again in the frame port.
    first_id : int, optional
        ``uniqueId`` of the first frame of every series, for hardware that counts each from the
        same number; by default the counter runs on.

    Attributes
    ----------
    address : str
        Where the receiver connects.
    """

    def __init__(self, channel: str, *, queue_size: int, first_id: int | None = None) -> None:
        self._channel = channel
        self._first_id = first_id
        self._publisher = FramePublisher("tcp://127.0.0.1:*", high_water_mark=queue_size)
        self.address = self._publisher.address
        self._monitor = PvaMonitor(channel, queue_size=queue_size)
        self._lock = threading.Lock()
        self._series: SeriesRelay | None = None
        self._last: Any = None
        self._last_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def on_series(self, armed: tuple[int, SeriesRequest] | None) -> None:
        """A series was armed, with its number, or is over.

        Raises
        ------
        ServiceError
            If the channel is not there.
        """
        self._end()
        if armed is None:
            return
        number, request = armed
        before = self._newest()
        reader = NtndarrayReader(
            number,
            request.num_frames,
            first_id=self._first_id,
            shape=(request.rows, request.columns),
            dtype=request.dtype,
        )
        series = SeriesRelay(
            self._publisher,
            reader,
            request.num_frames,
            patience_s=_PATIENCE_S,
            should_stop=self._stop.is_set,
        )
        with self._lock:
            # The last frame of whatever was before, from which the reader counts on.
            self._pass_on(series, before)
            self._series = series

    def _newest(self) -> Any:
        """The newest update, once what a series before may have left behind has come."""
        deadline_s = time.monotonic() + _CONNECT_S
        while time.monotonic() < deadline_s:
            with self._lock:
                last, quiet_s = self._last, time.monotonic() - self._last_s
            if last is not None and quiet_s > _QUIET_S:
                return last
            time.sleep(_POLL_S)
        raise ServiceError(
            f"{self._channel} did not connect, or never rests, within {_CONNECT_S:g} s; is its"
            " plugin enabled, and is the PV Access address list of the session right?"
        )

    def _end(self) -> None:
        with self._lock:
            series, self._series = self._series, None
            if series is not None:
                books = series.finish()
                if not books.complete:
                    logger.warning("%s: %s", self._channel, books.to_dict())

    def _run(self) -> None:
        while not self._stop.is_set():
            update = self._monitor.take(_POLL_S)
            if update is None:
                continue
            with self._lock:
                self._last_s = time.monotonic()
                if not isinstance(update, Disconnected):
                    self._last = update
                if self._series is not None:
                    self._pass_on(self._series, update)

    def _pass_on(self, series: SeriesRelay, update: Any) -> None:
        try:
            if series.take(update):
                self._series = None
                series.finish()
        except FrameError as error:
            logger.warning("%s: %s", self._channel, error)

    def close(self) -> None:
        """Unsubscribe and close the port."""
        self._stop.set()
        self._thread.join()
        self._monitor.close()
        self._publisher.close()
