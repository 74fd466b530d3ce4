"""Detectors of the benchmarks: what each one speaks, and its emulator in a process of its own.

Every frame follows from its number, so that whoever reads it knows what it must be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from apsber_bluesky.simulation import EigerDcu, EigerSeries, SlsReceiver, StreamFaults
from apsber_bluesky.streaming import FramePublisher

GRID = (2, 2)
_TURNS = 4096
_BATCH = 500
_BURST = 25


@dataclass(frozen=True)
class Detector:
    """A source of frames.

    Attributes
    ----------
    emulate : callable
        Sends frames (pipe, detector, number of frames); says where they are to be had, waits for
        a word, sends them, tells of it, and waits for another word.
    settings : dict
        What the receiver is told of it.
    rows, columns, dtype
        Its frames.
    rate_hz : float or None
        Frames per second; None sends them as fast as they are taken.
    channel : str
        Its PV, where frames come over PV Access.
    first_id : int
        Number that PV Access gives the first frame.
    """

    emulate: Callable[[Connection, Detector, int], None]
    settings: dict[str, Any] = field(default_factory=dict)
    rows: int = 128
    columns: int = 256
    dtype: str = "<u2"
    rate_hz: float | None = None
    channel: str = ""
    first_id: int = 0

    def frames(self, count: int) -> Sequence[np.ndarray]:
        """What it sees."""
        return Pictures(count, self.rows, self.columns, self.dtype)


class Pictures(Sequence):
    """Frames of about 20 counts in each pixel, made when they are asked for; no two are alike."""

    def __init__(self, count: int, rows: int, columns: int, dtype: str) -> None:
        self._count, self._rows = count, rows
        rng = np.random.default_rng(1)
        self._bank = rng.poisson(20, (_TURNS + rows, columns)).astype(dtype)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < self._count:
            raise IndexError(number)
        turn, place = divmod(number * 37, _TURNS * 37)
        first = place % _TURNS
        return self._bank[first : first + self._rows] + self._bank.dtype.type(turn)


class Spectra(Sequence):
    """The spectra of an Xspress3."""

    def __init__(self, count: int, channel: str, num_channels: int) -> None:
        # p4p does not load where nobody needs it.
        from apsber_bluesky.simulation import Xspress3

        self._count = count
        self.source = Xspress3(channel, num_channels=num_channels)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> np.ndarray:
        if not 0 <= number < self._count:
            raise IndexError(number)
        return self.source.spectra(number)


class Vortex(Detector):
    """A detector whose frames are spectra."""

    def frames(self, count: int) -> Spectra:
        """What it sees."""
        return Spectra(count, self.channel, self.rows)


class _Pace:
    """Holds frames back so that they come evenly."""

    def __init__(self, rate_hz: float | None) -> None:
        self._rate_hz = rate_hz
        self._began = time.perf_counter()

    def __call__(self, number: int) -> None:
        if self._rate_hz is not None:
            due = self._began + number / self._rate_hz
            time.sleep(max(0.0, due - time.perf_counter()))


def emulate_eiger(pipe: Connection, detector: Detector, count: int) -> None:
    """An EIGER's DCU."""
    dcu = EigerDcu(2 if detector.settings["format"] == "eiger2" else 1, high_water_mark=256)
    pipe.send(dcu.address)
    images = _OneChannel(detector.frames(count))
    series = EigerSeries(
        7, count, detector.rows, detector.columns, codec=detector.settings["codec"]
    )
    pipe.recv()
    began = time.perf_counter()
    messages = dcu.send_series(series, images, before_each=_Pace(detector.rate_hz))
    _tell(pipe, messages - 2, began, dcu.waits, dcu.waited_s)
    dcu.close()


class _OneChannel(Sequence):
    """Images of the one threshold of an EIGER."""

    def __init__(self, frames: Sequence[np.ndarray]) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: int) -> list[np.ndarray]:
        return [self._frames[number]]


def emulate_jungfrau(pipe: Connection, detector: Detector, count: int) -> None:
    """Four slsReceivers, that keep what waits for the receiver; it is no more than the run has."""
    shape = (detector.rows // GRID[0], detector.columns // GRID[1])
    source = SlsReceiver(grid=GRID, module_shape=shape, high_water_mark=0)
    pipe.send(",".join(source.addresses.values()))
    frames = detector.frames(count)
    pipe.recv()
    source.wait_for_subscribers()
    began, pace = time.perf_counter(), _Pace(detector.rate_hz)
    for first in range(0, count, _BURST):
        pace(first)
        source.send(
            np.stack([frames[number] for number in range(first, min(first + _BURST, count))]),
            first_frame=first + 1,
            faults=StreamFaults(missing_end=True),
            header_changes={"fileIndex": "1"},
        )
    source.send_end()
    # A socket that publishes never waits.
    _tell(pipe, count, began, 0, 0.0)
    source.close()


def emulate_suite(pipe: Connection, detector: Detector, count: int) -> None:
    """A detector that speaks the suite's own protocol."""
    publisher = FramePublisher(high_water_mark=256)
    pipe.send(publisher.address)
    frames = detector.frames(count)
    series = pipe.recv()
    publisher.start_series(
        series,
        num_frames=count,
        rows=detector.rows,
        columns=detector.columns,
        dtype=detector.dtype,
    )
    began = time.perf_counter()
    pace, waits, waited_s = _Pace(detector.rate_hz), 0, 0.0
    for number in range(count):
        pace(number)
        frame, asked = frames[number], time.perf_counter()
        if publisher.send(frame, number=number, timestamp_s=1e9 + number):
            continue
        waits += 1
        while not publisher.send(frame, number=number, timestamp_s=1e9 + number):
            time.sleep(1e-3)
        waited_s += time.perf_counter() - asked
    publisher.end_series()
    _tell(pipe, publisher.sent, began, waits, waited_s)
    publisher.close()


def emulate_pva(pipe: Connection, detector: Detector, count: int) -> None:
    """An areaDetector's channel, or that of an Xspress3; paced, for posts that wait are lost."""
    frames = detector.frames(count)
    if isinstance(frames, Spectra):
        server = frames.source.detector
    else:
        from apsber_bluesky.simulation import PvaDetector

        server = PvaDetector(detector.channel, frames[0], last_id=detector.first_id - 1)
    pipe.send(server.configuration)
    pipe.recv()
    began = time.perf_counter()
    pace = _Pace(detector.rate_hz)
    for first in range(0, count, _BATCH):
        batch = np.stack([frames[number] for number in range(first, min(first + _BATCH, count))])
        server.send(
            batch,
            first_id=detector.first_id + first,
            before_each=lambda posts, first=first: pace(first + posts),
        )
    # A post never waits.
    _tell(pipe, count, began, 0, 0.0)
    server.close()


def _tell(pipe: Connection, sent: int, began: float, waits: int, waited_s: float) -> None:
    seconds = time.perf_counter() - began
    pipe.send({"sent": sent, "seconds": seconds, "waits": waits, "waited_s": waited_s})
    pipe.recv()
