"""What differs between detectors: a small object that knows one kind's records."""

from __future__ import annotations

from typing import Protocol

from apsber_bluesky.core import SeriesTicket
from apsber_bluesky.devices._requests import FrameSeries


class DetectorDriver(Protocol):
    """Drives one kind of detector; all methods may wait, for they run in a thread.

    Attributes
    ----------
    arms_once : bool
        Whether a step scan arms the detector once, and then triggers it for each point; otherwise
        it is armed for each point.
    """

    arms_once: bool

    def connect(self, timeout_s: float) -> None:
        """Wait for the records that scans need.

        Raises
        ------
        TimeoutError
            If one does not connect; those that may be absent are worked around.
        """
        ...

    def check(self, series: FrameSeries) -> None:
        """Refuse what the detector cannot do, before anything moves.

        Raises
        ------
        InputError
            If so; it names the value and what to do.
        """
        ...

    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of a frame [pixel]."""
        ...

    def frame_dtype(self) -> str:
        """NumPy dtype string of a frame."""
        ...

    def let_flow(self) -> None:
        """Let frames flow to the receiver, with nothing being exposed."""
        ...

    def begin_run(self) -> None:
        """Another run begins."""
        ...

    def prepare(self, series: FrameSeries) -> None:
        """Set trigger, exposure time and number of frames."""
        ...

    def announce(self, ticket: SeriesTicket) -> None:
        """Tell the detector what number the series has on the wire, if it wants to know."""
        ...

    def arm(self) -> None:
        """Begin a series; returns when the detector accepts triggers, or exposes."""
        ...

    def expose(self, *, timeout_s: float) -> None:
        """Take one frame of a step scan; returns when it is exposed.

        Raises
        ------
        TimeoutError
            If it takes too long.
        """
        ...

    def disarm(self) -> None:
        """Stop exposing; harmless when nothing is being exposed."""
        ...
