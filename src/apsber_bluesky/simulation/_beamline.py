"""The simulated beamline: every device, wired together, behind one set of channels."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ConfigurationError, ImageKey, SimulationSettings
from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._camera import Camera, Exposure, ImageSource
from apsber_bluesky.simulation._detector import Detector
from apsber_bluesky.simulation._hdf5_plugin import FileOutlet
from apsber_bluesky.simulation._motor import MotorRecord
from apsber_bluesky.simulation._named_phantoms import make_phantom
from apsber_bluesky.simulation._plugin import Outlet, Plugin
from apsber_bluesky.simulation._plugins import FrameOutlet, ImageOutlet, PvaOutlet
from apsber_bluesky.simulation._pulse_output import PulseOutput
from apsber_bluesky.simulation._recorded import RecordedScan
from apsber_bluesky.simulation._shutter import FastShutter
from apsber_bluesky.streaming import FramePublisher

# The sample leaves the beam when it is further than this from its axis.
OUT_OF_BEAM_MM = 4.0
_RING_PERIOD_S = 0.5
_RING_CURRENT_MA = 102.0
_TOP_UP_S = 60.0
# Pixels; the phantom and the noise need several times the memory of a frame.
_LARGEST_CAMERA = 1 << 28


class PhantomSource:
    """Images of a phantom, made by the detector.

    Parameters
    ----------
    settings : SimulationSettings
        Phantom, camera and noise.

    Attributes
    ----------
    centre_px : float
        Column of the rotation axis [pixel].

    Raises
    ------
    ConfigurationError
        If the camera would be too large.
    InputError
        If there is no such phantom.
    """

    def __init__(self, settings: SimulationSettings) -> None:
        if settings.rows * settings.columns > _LARGEST_CAMERA:
            raise ConfigurationError(
                f"a simulated camera of {settings.rows} x {settings.columns} pixels is too large;"
                f" choose rows x columns up to {_LARGEST_CAMERA}"
            )
        self._phantom = make_phantom(settings.phantom)
        self._detector = Detector(settings)
        self.rows, self.columns = settings.rows, settings.columns
        self.dtype: np.dtype[Any] = self._detector.dtype
        self.centre_px = (settings.columns - 1) / 2 + settings.centre_offset_px

    def image(
        self, kind: ImageKey, *, number: int, unique_id: int, angle_deg: float
    ) -> NDArray[Any]:
        """Pixels of one exposure; the noise goes with areaDetector's unique id."""
        if kind is not ImageKey.PROJECTION:
            return self._detector.expose(kind, unique_id)
        integrals = self._phantom.project(
            angle_deg, rows=self.rows, columns=self.columns, centre_px=self.centre_px
        )
        return self._detector.expose(kind, unique_id, integrals)


class RecordedSource:
    """Images of a recorded scan."""

    def __init__(self, scan: RecordedScan) -> None:
        self._scan = scan
        self.rows, self.columns, self.dtype = scan.rows, scan.columns, scan.dtype

    def image(
        self, kind: ImageKey, *, number: int, unique_id: int, angle_deg: float
    ) -> NDArray[Any]:
        """Pixels of one exposure."""
        return self._scan.frame(kind, number=number, angle_deg=angle_deg)


class Beamline:
    """All devices.

    Parameters
    ----------
    prefix : str
        PV prefix ``$(P)``.
    source : ImageSource
        Where the camera's pixels come from.
    publisher : FramePublisher
        The camera's frame port.
    """

    def __init__(self, prefix: str, source: ImageSource, publisher: FramePublisher) -> None:
        self.rotation = MotorRecord(
            f"{prefix}rot:m1",
            units="deg",
            velocity=60.0,
            acceleration_s=0.1,
            limits=(-720.0, 720.0),
            description="sample rotation",
        )
        self.sample_x = MotorRecord(
            f"{prefix}m2",
            units="mm",
            velocity=20.0,
            acceleration_s=0.1,
            limits=(-20.0, 20.0),
            description="sample x",
        )
        self.shutter = FastShutter(f"{prefix}shutter:")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="camera")
        camera = f"{prefix}cam:"
        size = (source.rows, source.columns, source.dtype)
        self.files = FileOutlet(f"{camera}HDF1:", self._thread)
        self.pva = PvaOutlet(f"{camera}Pva1:", *size)
        plugins: list[Plugin] = [ImageOutlet(f"{camera}image1:", *size), self.files, self.pva]
        frames = FrameOutlet(f"{camera}ZMQ1:", publisher)
        self._outlets: list[Outlet] = [*plugins, frames]
        self.camera = Camera(f"{camera}cam1:", source, self.look, plugins, frames, self._thread)
        self.pulses = PulseOutput(f"{prefix}rot:pso:", self.rotation, self.camera.trigger)
        self._current = ca.read_only(ca.double(_RING_CURRENT_MA, units="mA", precision=3))
        self._ring = {
            f"{prefix}ring:Current": self._current,
            f"{prefix}ring:Permit": ca.read_only(ca.integer(1)),
        }

    @property
    def channels(self) -> dict[str, Any]:
        """Every channel of the beamline by its PV name."""
        merged: dict[str, Any] = dict(self._ring)
        for device in (self.rotation, self.sample_x, self.shutter, self.pulses, self.camera):
            merged |= device.channels
        for outlet in self._outlets:
            merged |= outlet.channels
        return merged

    def look(self, at_s: float) -> Exposure:
        """What an exposure at a time (``time.monotonic``) sees."""
        if not self.shutter.is_open(at_s):
            kind = ImageKey.DARK
        elif abs(self.sample_x.position(at_s) - self.sample_x.offset) > OUT_OF_BEAM_MM:
            kind = ImageKey.FLAT
        else:
            kind = ImageKey.PROJECTION
        unix_s = time.time() + (at_s - time.monotonic())
        return Exposure(unix_s, self.rotation.position(at_s), self.rotation.offset, kind)

    async def start(self) -> None:
        """Give every record its first value; call before clients can connect."""
        await self.camera.start()
        for outlet in self._outlets:
            await outlet.start()
        await self.rotation.start()
        await self.sample_x.start()

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps running while the beamline serves."""
        return [self.rotation.run(), self.sample_x.run(), self.pulses.run(), self._top_up()]

    async def _top_up(self) -> None:
        """The current decays by a per mille and is topped up every minute."""
        while True:
            phase = math.fmod(time.monotonic(), _TOP_UP_S) / _TOP_UP_S
            await self._current.post(_RING_CURRENT_MA * (1.0 + 1e-3 * (0.5 - phase)))
            await asyncio.sleep(_RING_PERIOD_S)

    async def close(self) -> None:
        """End the acquisition, finish what the camera's thread is doing, and close its file."""
        await self.camera.stop()
        await asyncio.get_running_loop().run_in_executor(self._thread, self.files.shut_down)
        self._thread.shutdown()
