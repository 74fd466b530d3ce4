"""The simulated beamline: every device, wired together, behind one set of channels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ConfigurationError, ImageKey, SimulationSettings
from apsber_bluesky.simulation._camera import Camera, Exposure, ImageSource
from apsber_bluesky.simulation._capture_requests import CaptureRequests
from apsber_bluesky.simulation._detector import Detector
from apsber_bluesky.simulation._extra_detectors import make_extra_detectors
from apsber_bluesky.simulation._filters import transmission_of
from apsber_bluesky.simulation._hdf5_plugin import FileOutlet
from apsber_bluesky.simulation._materials import RelativeAttenuation
from apsber_bluesky.simulation._motor import MotorRecord
from apsber_bluesky.simulation._named_phantoms import make_phantom
from apsber_bluesky.simulation._plugin import Outlet, Plugin
from apsber_bluesky.simulation._plugins import FrameOutlet, ImageOutlet, PvaOutlet
from apsber_bluesky.simulation._pulse_output import PulseOutput
from apsber_bluesky.simulation._pulse_output_aerotech import AerotechController
from apsber_bluesky.simulation._pulses import Pulse
from apsber_bluesky.simulation._recorded import RecordedScan
from apsber_bluesky.simulation._scene import STILL, Scene, roll_image, rows_beyond
from apsber_bluesky.simulation._shutter import FastShutter
from apsber_bluesky.simulation._surroundings import Surroundings
from apsber_bluesky.streaming import FramePublisher

#: Detectors that the pulses of the sample stage trigger.
_MAPPING = frozenset({"vortex"})
# The sample leaves the beam when it is further than this from its axis.
OUT_OF_BEAM_MM = 4.0
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
        self._drift_px = settings.drift_px
        self._per_mm = 1000.0 / settings.pixel_size_um
        self._roll_deg = settings.axis_roll_deg
        self.energy_keV = settings.energy_keV
        self._attenuation = RelativeAttenuation(settings.material, settings.energy_keV)
        if "material" in settings.model_fields_set:
            # A wrong formula is told at the start, not at the first change of energy.
            self._attenuation.at(2 * settings.energy_keV)

    def image(
        self,
        kind: ImageKey,
        *,
        number: int,
        unique_id: int,
        angle_deg: float,
        scene: Scene = STILL,
    ) -> NDArray[Any]:
        """Pixels of one exposure; the noise goes with areaDetector's unique id."""
        energy_keV = self.energy_keV if scene.energy_keV is None else scene.energy_keV
        light = transmission_of(scene.filters, energy_keV) if scene.has_beam else 0.0
        if kind is not ImageKey.PROJECTION:
            return self._detector.expose(kind, unique_id, transmission=light)
        integrals = self._integrals(angle_deg, scene)
        relative = self._attenuation.at(energy_keV)
        if relative != 1.0:
            integrals = integrals * np.float32(relative)
        return self._detector.expose(kind, unique_id, integrals, transmission=light)

    def _integrals(self, angle_deg: float, scene: Scene) -> NDArray[np.float32]:
        centre_px = self.centre_px + scene.x_mm * self._per_mm + self._drift_px * angle_deg / 180
        roll_deg = self._roll_deg + scene.roll_deg
        # A leaning object comes into the picture from above and below.
        margin = rows_beyond(self.columns, roll_deg)
        image = self._phantom.project(
            angle_deg,
            rows=self.rows + 2 * margin,
            columns=self.columns,
            centre_px=centre_px,
            down_px=scene.y_mm * self._per_mm,
        )
        if not roll_deg:
            return image
        return roll_image(image, centre_px, roll_deg)[margin : margin + self.rows]


class RecordedSource:
    """Images of a recorded scan."""

    def __init__(self, scan: RecordedScan) -> None:
        self._scan = scan
        self.rows, self.columns, self.dtype = scan.rows, scan.columns, scan.dtype

    def image(
        self,
        kind: ImageKey,
        *,
        number: int,
        unique_id: int,
        angle_deg: float,
        scene: Scene = STILL,
    ) -> NDArray[Any]:
        """Pixels of one exposure; a recorded scan knows nothing of the scene."""
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
    energy_keV : float
        Photon energy at first [keV].
    settings : SimulationSettings, optional
        Which detectors there are besides the camera, and what they are like.

    Attributes
    ----------
    detectors : dict of str to ExtraDetector
        These detectors, by name.
    """

    def __init__(
        self,
        prefix: str,
        source: ImageSource,
        publisher: FramePublisher,
        energy_keV: float = SimulationSettings().energy_keV,
        settings: SimulationSettings | None = None,
    ) -> None:
        self.rotation = MotorRecord(
            f"{prefix}rot:m1",
            units="deg",
            velocity=60.0,
            acceleration_s=0.1,
            limits=(-720.0, 720.0),
            description="sample rotation",
        )
        self.surroundings = Surroundings(prefix, energy_keV)
        self.sample_x = self.surroundings.x
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
        settings = settings or SimulationSettings()
        self.detectors = make_extra_detectors(settings.detectors, prefix, settings, self.look)
        self.pulses = PulseOutput(f"{prefix}rot:pso:", self.rotation, self.trigger)
        self.x_pulses = PulseOutput(f"{prefix}m2:pso:", self.sample_x, self.trigger_mapping)
        self.capture_requests = CaptureRequests(f"{prefix}capture:")
        self.aerotech = AerotechController(f"{prefix}rot:", self.rotation, self.trigger)

    @property
    def channels(self) -> dict[str, Any]:
        """Every channel of the beamline by its PV name."""
        merged: dict[str, Any] = self.surroundings.channels
        pulses = (self.pulses, self.x_pulses, self.aerotech)
        devices = (self.rotation, self.shutter, *pulses, self.capture_requests)
        parts: tuple[Any, ...] = (*devices, self.camera, *self._outlets, *self.detectors.values())
        for part in parts:
            merged |= part.channels
        return merged

    def trigger(self, pulses: list[Pulse]) -> None:
        """Give pulses to every detector; those that do not wait for any ignore them."""
        self.camera.trigger(pulses)
        for detector in self.detectors.values():
            detector.trigger(pulses)

    def trigger_mapping(self, pulses: list[Pulse]) -> None:
        """Give pulses of a sample axis to the detectors that map; their positions are no angles."""
        for name in _MAPPING & self.detectors.keys():
            self.detectors[name].trigger(pulses)

    def look(self, at_s: float) -> Exposure:
        """What an exposure at a time (``time.monotonic``) sees."""
        if not self.shutter.is_open(at_s):
            kind = ImageKey.DARK
        elif abs(self.sample_x.position(at_s) - self.sample_x.offset) > OUT_OF_BEAM_MM:
            kind = ImageKey.FLAT
        else:
            kind = ImageKey.PROJECTION
        unix_s = time.time() + (at_s - time.monotonic())
        scene = self.surroundings.scene(at_s)
        return Exposure(unix_s, self.rotation.position(at_s), self.rotation.offset, kind, scene)

    async def start(self) -> None:
        """Give every record its first value; call before clients can connect."""
        await self.camera.start()
        for outlet in self._outlets:
            await outlet.start()
        for detector in self.detectors.values():
            await detector.start()
        await self.rotation.start()
        await self.surroundings.start()

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps running while the beamline serves."""
        pulses = [self.pulses.run(), self.x_pulses.run()]
        own = [self.rotation.run(), *pulses, *self.surroundings.work()]
        return own + [work for detector in self.detectors.values() for work in detector.work()]

    async def close(self) -> None:
        """End the acquisition, finish what the camera's thread is doing, and close its file."""
        await self.camera.stop()
        for detector in self.detectors.values():
            await detector.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self.files.shut_down)
        self._thread.shutdown()
