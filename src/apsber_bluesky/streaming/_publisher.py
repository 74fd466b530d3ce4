"""The sending end of the suite's frame protocol: what a detector, or its relay, runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from apsber_bluesky.core import FrameError, ServiceError
from apsber_bluesky.streaming import _wire as wire
from apsber_bluesky.streaming._messages import bound_address
from apsber_bluesky.streaming._series_messages import SeriesEnd, SeriesStart


class FramePublisher:
    """Publish frames on a ZMQ PUSH socket; a detector never waits, so neither does this.

    Parameters
    ----------
    address : str
        Where to bind, ``tcp://127.0.0.1:*`` for any free port.
    high_water_mark : int
        Frames that may wait for the receiver; beyond it frames are dropped, and counted.

    Attributes
    ----------
    address : str
        The bound address.
    sent, dropped : int
        Frames of the current series that were handed over, and that had to be dropped.

    Raises
    ------
    ServiceError
        If the address cannot be bound.
    """

    def __init__(self, address: str = "tcp://127.0.0.1:*", *, high_water_mark: int = 256) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.sndhwm = high_water_mark
        self._socket.linger = 0
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close()
            self._context.term()
            raise ServiceError(
                f"cannot bind the frame port {address}: {error.strerror}; choose another port"
            ) from error
        self.address = bound_address(self._socket)
        self._start: SeriesStart | None = None
        self._announced = False
        self.sent = 0
        self.dropped = 0

    def start_series(
        self, series: int, *, num_frames: int, rows: int, columns: int, dtype: str
    ) -> None:
        """Announce a series; its frames follow.

        While no receiver is connected nothing can be sent; the announcement is then repeated
        before the next frame, for without it every frame would be refused.

        Parameters
        ----------
        series : int
            Number of the series, as the receiver's ticket gave it.
        num_frames, rows, columns : int
            Frames to come, and their size [pixel].
        dtype : str
            NumPy dtype string, e.g. ``"<u2"``.
        """
        self._start = SeriesStart(series, num_frames, rows, columns, np.dtype(dtype).str)
        self.sent = self.dropped = 0
        self._announced = self._send(wire.pack_start(self._start))

    def send(
        self,
        frame: NDArray[Any],
        *,
        number: int,
        timestamp_s: float,
        angle_deg: float | None = None,
    ) -> bool:
        """Send one frame, without ever waiting.

        Parameters
        ----------
        frame : ndarray, shape (rows, columns)
            The pixels; not to be changed before they are sent.
        number : int
            Number of the frame in its series, from 0.
        timestamp_s : float
            Unix time of the exposure [s].
        angle_deg : float, optional
            Rotation angle latched with the exposure [deg].

        Returns
        -------
        bool
            False if the frame was dropped because the receiver is too far behind.

        Raises
        ------
        FrameError
            If no series was started or the frame does not fit it.
        """
        start = self._start
        if start is None:
            raise FrameError(f"frame {number} sent outside a series; call start_series first")
        if frame.shape != (start.rows, start.columns) or frame.dtype != np.dtype(start.dtype):
            raise FrameError(
                f"frame {number} is {frame.dtype.str} {frame.shape}, series {start.series}"
                f" announced {start.dtype} {(start.rows, start.columns)}"
            )
        pixels = np.ascontiguousarray(frame).data.cast("B")
        header = wire.pack_frame_header(start.series, number, timestamp_s, angle_deg, pixels)
        if not self._announced:
            self._announced = self._send(wire.pack_start(start))
        if not (self._announced and self._send([header, pixels])):
            self.dropped += 1
            return False
        self.sent += 1
        return True

    def end_series(self) -> None:
        """Announce that the series is over, also when it was stopped early."""
        if self._start is not None:
            self._send(wire.pack_end(SeriesEnd(self._start.series, self.sent)))
            self._start = None

    def _send(self, parts: list[Any]) -> bool:
        try:
            self._socket.send_multipart(parts, flags=zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        """Close the socket; what the receiver has not fetched is lost."""
        self._socket.close()
        self._context.term()
