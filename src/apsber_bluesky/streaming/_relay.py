"""From PV Access to the frame protocol, for detectors that speak only the former.

A frame keeps the place that the detector's own id gives it, so what PV Access lost is a gap with
a number at the receiver.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from p4p.client.thread import Context, Disconnected

from apsber_bluesky.core import FrameError, InputError, ServiceError
from apsber_bluesky.streaming._ntndarray import NtndarrayReader
from apsber_bluesky.streaming._publisher import FramePublisher
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart

DEFAULT_QUEUE_SIZE: Final = 256

# Updates that wait outside PV Access; its own queue is the long one.
_HANDED_OVER: Final = 8
_POLL_S: Final = 0.05
_RETRY_S: Final = 0.002


class PvaMonitor:
    """Subscribe to one channel; updates wait in bounded queues.

    Parameters
    ----------
    channel : str
        PV name.
    queue_size : int
        Updates that PV Access keeps while nobody takes them; beyond it updates are lost, which
        only their ids tell.
    configuration : mapping of str to str, optional
        ``EPICS_PVA_*`` settings instead of those of the environment.

    Raises
    ------
    InputError
        If a parameter is out of range.
    """

    def __init__(
        self,
        channel: str,
        *,
        queue_size: int = DEFAULT_QUEUE_SIZE,
        configuration: Mapping[str, str] | None = None,
    ) -> None:
        if not channel or queue_size < 2:
            raise InputError(
                f"channel {channel!r} with a queue of {queue_size}; give a PV name and 2 or more"
            )
        self.channel = channel
        self._closed = threading.Event()
        self._updates: queue.Queue[Any] = queue.Queue(_HANDED_OVER)
        # Not unwrapped: p4p's own unwrapping fails on compressed frames.
        self._context = Context(
            "pva", conf=dict(configuration or {}), useenv=configuration is None, nt=False
        )
        self._subscription = self._context.monitor(
            channel,
            self._hand_over,
            request=f"record[queueSize={queue_size}]field()",
            notify_disconnect=True,
        )

    def _hand_over(self, update: Any) -> None:
        while not self._closed.is_set():
            try:
                self._updates.put(update, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def take(self, timeout_s: float) -> Any:
        """Take the next update.

        Parameters
        ----------
        timeout_s : float
            How long to wait for it [s].

        Returns
        -------
        p4p.Value, Disconnected or None
            The update, the news that the channel was lost, or None when nothing comes in time.

        Raises
        ------
        ServiceError
            If the server refuses the subscription.
        """
        try:
            update = self._updates.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(update, Exception) and not isinstance(update, Disconnected):
            raise ServiceError(
                f"subscription to {self.channel} ended: {update}; is it an NTNDArray channel?"
            )
        return update

    def close(self) -> None:
        """Unsubscribe."""
        self._closed.set()
        self._subscription.close()
        self._context.close()


@dataclass(slots=True)
class RelayBooks:
    """What became of a series on its way through the relay.

    Attributes
    ----------
    expected, sent, dropped : int
        Frames that were to come, that were sent on, and that came but could not be sent on.
    missing : list of int
        Numbers in the series of the frames that did not come.
    restarts : int
        How often the source was restarted.
    refused : dict of str to int
        Updates that were not frames of the series, by reason.
    """

    expected: int
    sent: int = 0
    dropped: int = 0
    missing: list[int] = field(default_factory=list)
    restarts: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every frame was sent on."""
        return self.sent == self.expected

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "complete": self.complete}


class SeriesRelay:
    """What becomes of the updates of one series.

    Parameters
    ----------
    publisher : FramePublisher
        Frame port that they go to.
    reader : NtndarrayReader
        Made for the series.
    num_frames : int
        Frames of the series.
    patience_s : float
        How long a frame waits for a receiver that is behind, before it is dropped [s].
    should_stop : callable
        Asked while a frame waits.

    Attributes
    ----------
    books : RelayBooks
        What became of the frames so far.
    """

    def __init__(
        self,
        publisher: FramePublisher,
        reader: NtndarrayReader,
        num_frames: int,
        *,
        patience_s: float,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._publisher = publisher
        self._reader = reader
        self._patience_s = patience_s
        self.should_stop = should_stop
        self.books = RelayBooks(num_frames)
        self._start: SeriesStart

    @property
    def ready(self) -> bool:
        """Whether the first update has come, so that the detector may begin."""
        return self._reader.ready

    @property
    def begun(self) -> bool:
        """Whether a frame of the series has come."""
        return len(self._reader.missing) < self.books.expected

    def take(self, update: Any) -> bool:
        """Pass on what an update holds; whether the series is over.

        Raises
        ------
        FrameError
            If it is no frame of the series.
        """
        if isinstance(update, Disconnected):
            self._reader.disconnected()
            return False
        ended = False
        for message in self._reader.read(update):
            ended = self._pass_on(message)
        return ended

    def finish(self) -> RelayBooks:
        """Say on the wire that the series is over; what became of every frame."""
        self._publisher.end_series()
        self.books.missing = self._reader.missing
        self.books.restarts = self._reader.epoch
        self.books.refused = dict(self._reader.counts)
        return self.books

    def _pass_on(self, message: SeriesStart | Frame | SeriesEnd) -> bool:
        match message:
            case SeriesStart():
                self._publisher.start_series(
                    message.series,
                    num_frames=message.num_frames,
                    rows=message.rows,
                    columns=message.columns,
                    dtype=message.dtype,
                )
                self._start = message
            case Frame():
                if self._send(message):
                    self.books.sent += 1
                else:
                    self.books.dropped += 1
            case SeriesEnd():
                return True
        return False

    def _send(self, frame: Frame) -> bool:
        start = self._start
        pixels = np.frombuffer(frame.pixels, dtype=start.dtype).reshape(start.rows, start.columns)
        angle = None if np.isnan(frame.angle_deg) else frame.angle_deg
        deadline_s = time.monotonic() + self._patience_s
        # The relay is no detector: it may wait, as long as PV Access has room.
        while not self._publisher.send(
            pixels, number=frame.number, timestamp_s=frame.timestamp_s, angle_deg=angle
        ):
            if time.monotonic() > deadline_s or self.should_stop():
                return False
            time.sleep(_RETRY_S)
        return True


class Relay:
    """Send one series of a PV Access channel on as the suite's frames.

    Parameters
    ----------
    channel : str
        PV name of the NTNDArray.
    address : str
        Where to bind the frame port.
    reader : NtndarrayReader
        Made for the series.
    num_frames : int
        Frames of the series.
    queue_size : int
        Frames that may wait in PV Access, and again in the frame port.
    idle_s : float
        The series is over when no update has come for so long after its first frame [s].
    patience_s : float
        How long a frame waits for a receiver that is behind, before it is dropped [s].
    configuration : mapping of str to str, optional
        ``EPICS_PVA_*`` settings instead of those of the environment.

    Attributes
    ----------
    address : str
        The bound address.

    Raises
    ------
    InputError
        If a parameter is out of range.
    ServiceError
        If the address cannot be bound.
    """

    def __init__(
        self,
        channel: str,
        address: str,
        *,
        reader: NtndarrayReader,
        num_frames: int,
        queue_size: int = DEFAULT_QUEUE_SIZE,
        idle_s: float = 10.0,
        patience_s: float = 10.0,
        configuration: Mapping[str, str] | None = None,
    ) -> None:
        if not (idle_s > 0 and patience_s >= 0):
            raise InputError(f"idle_s is {idle_s}, patience_s {patience_s}; give positive numbers")
        self._idle_s = idle_s
        self._publisher = FramePublisher(address, high_water_mark=queue_size)
        self.address = self._publisher.address
        try:
            self._monitor = PvaMonitor(channel, queue_size=queue_size, configuration=configuration)
        except InputError:
            self._publisher.close()
            raise
        self._series = SeriesRelay(self._publisher, reader, num_frames, patience_s=patience_s)

    def run(
        self,
        should_stop: Callable[[], bool],
        *,
        on_ready: Callable[[], None] | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> RelayBooks:
        """Relay until the series is over or somebody stops it.

        Parameters
        ----------
        should_stop : callable
            Asked several times a second.
        on_ready : callable, optional
            Called when the channel is connected, so that the detector may begin.
        on_refused : callable, optional
            Called with the reason when an update is refused.

        Returns
        -------
        RelayBooks
            What became of every frame.

        Raises
        ------
        ServiceError
            If the server ends the subscription.
        """
        series = self._series
        series.should_stop = should_stop
        ready, ended, last_s = False, False, time.monotonic()
        while not (ended or should_stop()):
            update = self._monitor.take(_POLL_S)
            if update is None:
                ended = series.begun and time.monotonic() - last_s > self._idle_s
                continue
            last_s = time.monotonic()
            try:
                ended = series.take(update)
            except FrameError as error:
                (on_refused or (lambda _: None))(str(error))
            if series.ready and not ready:
                ready = True
                (on_ready or (lambda: None))()
        return series.finish()

    def close(self) -> None:
        """Unsubscribe and close the port; what the receiver has not fetched is lost."""
        self._monitor.close()
        self._publisher.close()
