"""The camera: cam1's records, its exposures, and the thread in which frames are made."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ophyd.areadetector.cam import SimDetectorCam

from apsber_bluesky.core import ImageKey
from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._areadetector import DATA_TYPES, areadetector_channels
from apsber_bluesky.simulation._plugin import (
    AREADETECTOR_VERSION,
    CAMERA_PORT,
    Frame,
    Outlet,
    Plugin,
    size_values,
)
from apsber_bluesky.simulation._plugins import FrameOutlet
from apsber_bluesky.simulation._pulses import Pulse
from apsber_bluesky.simulation._scene import STILL, Scene

_REPORT_PERIOD_S = 0.05
_DEFAULT_EXPOSURE_S = 0.01
_ANGLE_DIGITS = 9
# Rounding of times of the order of the uptime; exposures are many times longer.
_CLOCK_SLACK_S = 1e-6
_FIXED = (
    "BinX", "BinY", "ColorMode", "DataType", "FrameType", "Gain", "MinX", "MinY", "NumExposures",
    "ReverseX", "ReverseY", "SizeX", "SizeY",
)  # fmt: skip

log = logging.getLogger(__name__)


class ImageSource(Protocol):
    """Where the camera's pixels come from."""

    rows: int
    columns: int
    dtype: np.dtype[Any]

    def image(
        self,
        kind: ImageKey,
        *,
        number: int,
        unique_id: int,
        angle_deg: float,
        scene: Scene = STILL,
    ) -> NDArray[Any]:
        """Pixels of one exposure."""
        ...


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure.

    Attributes
    ----------
    time_s : float
        When, Unix time [s].
    angle_deg : float
        What the rotation axis said [deg].
    offset_deg : float
        How much of that is the user's offset and not the sample's orientation [deg].
    kind : ImageKey
        What was in the beam.
    scene : Scene
        How the sample stood there, and what the beam was like.
    """

    time_s: float
    angle_deg: float
    offset_deg: float
    kind: ImageKey
    scene: Scene = STILL


Look = Callable[[float], Exposure]
"""What an exposure at a time (``time.monotonic``) sees."""


class Camera:
    """An areaDetector camera whose records ophyd's ``SimDetectorCam`` drives.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:cam:cam1:"``.
    source : ImageSource
        Where the pixels come from.
    look : callable
        Says what an exposure at a given time sees.
    plugins : sequence of Plugin
        Who gets the frames, in order.
    outlet : FrameOutlet
        The frame port.
    thread : ThreadPoolExecutor
        The one thread in which frames are made and handed on, in order.
    """

    def __init__(
        self,
        prefix: str,
        source: ImageSource,
        look: Look,
        plugins: Sequence[Plugin],
        outlet: FrameOutlet,
        thread: ThreadPoolExecutor,
    ) -> None:
        self._prefix = prefix
        self._source, self._look = source, look
        self._plugins, self._outlet, self._thread = plugins, outlet, thread
        self.channels = areadetector_channels(prefix, SimDetectorCam)
        self.channels[f"{prefix}MissedTriggers_RBV"] = ca.read_only(ca.integer())
        self._counter = 0
        self._number = 0
        self._missed = 0
        self._busy_until_s = 0.0
        self._triggers: asyncio.Queue[Exposure | None] | None = None
        self._stop = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._reported_s = 0.0
        self._rate_from = (0.0, 0)

    def at(self, name: str) -> Any:
        """The channel of one record."""
        return self.channels[f"{self._prefix}{name}"]

    async def _post(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            await self.at(name).post(value)

    async def start(self) -> None:
        """Give the records their first values."""
        source = self._source
        empty = np.zeros((source.rows, source.columns), dtype=source.dtype)
        both = {
            "AcquireTime": _DEFAULT_EXPOSURE_S,
            "AcquirePeriod": _DEFAULT_EXPOSURE_S,
            "ArrayCallbacks": "Enable",
            "BinX": 1,
            "BinY": 1,
            "DataType": DATA_TYPES[source.dtype.str[1:]],
            "Gain": 1.0,
            "NumExposures": 1,
            "NumImages": 1,
            "SizeX": source.columns,
            "SizeY": source.rows,
        }
        await self._post({f"{name}{end}": v for name, v in both.items() for end in ("", "_RBV")})
        await self._post(
            {
                **size_values(empty),
                "MaxSizeX_RBV": source.columns,
                "MaxSizeY_RBV": source.rows,
                "Manufacturer_RBV": "apsber_bluesky",
                "Model_RBV": "Simulated microtomography camera"[:39],
                "PortName_RBV": CAMERA_PORT,
                "StatusMessage_RBV": f"areaDetector {AREADETECTOR_VERSION} records",
            }
        )
        for name in _FIXED:
            ca.fix(self.at(name), self.at(f"{name}_RBV"))
        self.at("Acquire").on_put = self._put_acquire
        self.at("ArrayCounter").on_put = self._put_counter
        self._keep_valid("AcquireTime", lambda value: np.isfinite(value) and value > 0)
        self._keep_valid("AcquirePeriod", lambda value: np.isfinite(value) and value >= 0)
        self._keep_valid("NumImages", lambda value: value >= 1)

    def _keep_valid(self, name: str, valid: Callable[[Any], bool]) -> None:
        setpoint, readback = self.at(name), self.at(f"{name}_RBV")

        async def check(value: Any) -> None:
            if valid(value):
                await readback.post(value)
            else:
                await setpoint.post(readback.value)

        setpoint.on_put = check

    async def _put_counter(self, value: int) -> None:
        self._counter = max(value, 0)
        await self._post({"ArrayCounter": self._counter, "ArrayCounter_RBV": self._counter})

    async def _put_acquire(self, value: str) -> None:
        if value == "Acquire":
            if self._idle.is_set():
                self._idle.clear()
                self._stop.clear()
                self._task = asyncio.get_running_loop().create_task(self._acquire())
            await self._idle.wait()
            return
        await self.stop()

    async def stop(self) -> None:
        """End the acquisition, if there is one, and wait until it has ended."""
        self._stop.set()
        if self._triggers is not None:
            self._triggers.put_nowait(None)
        await self._idle.wait()

    def trigger(self, pulses: list[Pulse]) -> None:
        """Take the trigger pulses of the motion controller.

        A pulse that comes while the last exposure still lasts is missed, as a real camera would
        miss it; that is decided by the times of the pulses, not by how fast this program is.
        """
        if self._triggers is None:
            return
        for pulse in pulses:
            if pulse.time_s < self._busy_until_s - _CLOCK_SLACK_S:
                self._missed += 1
                continue
            self._busy_until_s = pulse.time_s + self.at("AcquireTime_RBV").value
            seen = self._look(pulse.time_s)
            self._triggers.put_nowait(replace(seen, angle_deg=pulse.position))

    async def _acquire(self) -> None:
        """One acquisition, from ``Acquire`` = 1 until the last frame is with every plugin."""
        failure = ""
        try:
            try:
                await self._expose()
            finally:
                self._triggers = None
                await self._in_thread(self._outlet.end)
        except Exception as error:
            log.exception("the acquisition failed")
            failure = f"{type(error).__name__}: {error}"
        try:
            await self._report(final=True)
            ended = "Aborted" if self._stop.is_set() else "Idle"
            await self._post(
                {
                    "DetectorState_RBV": "Error" if failure else ended,
                    "StatusMessage_RBV": failure or "Done",
                    "Acquire": "Done",
                    "Acquire_RBV": "Done",
                }
            )
        finally:
            self._idle.set()

    async def _expose(self) -> None:
        mode = self.at("ImageMode").value
        wanted = {"Single": 1, "Multiple": self.at("NumImages_RBV").value}.get(mode)
        external = self.at("TriggerMode").value == "External"
        self._number = self._missed = 0
        self._busy_until_s = -np.inf
        self._rate_from = (time.monotonic(), self._counter)
        source = self._source
        empty = np.empty((source.rows, source.columns), dtype=source.dtype)
        await self._in_thread(self._outlet.begin, wanted, empty)
        # From here on pulses count; clients may arm the motion controller once they see Acquire.
        self._triggers = asyncio.Queue() if external else None
        await self._post(
            {
                "NumImagesCounter_RBV": 0,
                "MissedTriggers_RBV": 0,
                "DetectorState_RBV": "Waiting" if external else "Acquire",
                "StatusMessage_RBV": "Waiting for triggers" if external else "Acquiring",
                "Acquire_RBV": "Acquiring",
            }
        )
        async for exposure in self._triggered() if external else self._timed():
            await self._in_thread(self._take, exposure)
            await self._report()
            if self._number == wanted or self._stop.is_set():
                break

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _timed(self) -> AsyncIterator[Exposure]:
        """Exposures at the camera's own pace."""
        exposure_s = self.at("AcquireTime_RBV").value
        period_s = max(self.at("AcquirePeriod_RBV").value, exposure_s)
        start = time.monotonic()
        while True:
            wait = start + exposure_s - time.monotonic()
            if wait > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), wait)
            if self._stop.is_set():
                return
            yield self._look(start + exposure_s / 2)
            # A camera that is slower than its period takes the next frame as soon as it can.
            start = max(start + period_s, time.monotonic() - exposure_s)

    async def _triggered(self) -> AsyncIterator[Exposure]:
        """Exposures that the motion controller's pulses start."""
        queue = self._triggers
        assert queue is not None
        while not self._stop.is_set():
            if queue.empty():
                await self._report(now=True)
            exposure = await queue.get()
            if exposure is None:
                return
            yield exposure

    def _take(self, exposure: Exposure) -> None:
        """Make a frame and hand it on, in the camera's thread."""
        unique_id = self._counter + 1
        pixels = self._source.image(
            exposure.kind,
            number=self._number,
            unique_id=unique_id,
            # As an encoder says it: the same angle has the same pixels, however it was reached.
            angle_deg=round(exposure.angle_deg - exposure.offset_deg, _ANGLE_DIGITS),
            scene=exposure.scene,
        )
        pixels.setflags(write=False)
        frame = Frame(
            pixels,
            exposure.kind,
            self._number,
            unique_id,
            exposure.time_s,
            exposure.angle_deg,
        )
        if self.at("ArrayCallbacks").value == "Enable":
            self._outlet.take(frame)
            for plugin in self._plugins:
                plugin.take(frame)
        self._counter = unique_id
        self._number += 1

    async def _report(self, *, final: bool = False, now: bool = False) -> None:
        """Bring the records up to date, 20 times a second and at the end."""
        at_s = time.monotonic()
        if not (final or now) and at_s - self._reported_s < _REPORT_PERIOD_S:
            return
        self._reported_s = at_s
        since_s, count = self._rate_from
        if at_s - since_s >= 1.0:
            await self._post({"ArrayRate_RBV": (self._counter - count) / (at_s - since_s)})
            self._rate_from = (at_s, self._counter)
        parts: list[Outlet] = [*self._plugins, self._outlet]
        for part in parts:
            await part.report(final=final)
        await self._post(
            {
                "MissedTriggers_RBV": self._missed,
                "ArrayCounter_RBV": self._counter,
                "NumImagesCounter_RBV": self._number,
            }
        )
