"""A simulated EIGER behind the records of ADEiger: arming, exposures and its stream.

What arms, triggers and ends an acquisition follows ADEiger 3-6 (eigerDetector.cpp, controlTask) and
the SIMPLON interface: the header leaves at arming, images carry one count over all triggers, the
end leaves at disarming, and the number of the series grows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, Literal

from apsber_bluesky.core import SimulationSettings
from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._camera import Look
from apsber_bluesky.simulation._diffraction import DiffractionGeometry, ScatteringSample
from apsber_bluesky.simulation._eiger_ioc_memory import DcuMemory
from apsber_bluesky.simulation._eiger_ioc_records import Generation, eiger_channels
from apsber_bluesky.simulation._eiger_ioc_sensor import EigerSensor
from apsber_bluesky.simulation._eiger_ioc_series import MODES, ArmedSeries, armed_series
from apsber_bluesky.simulation._eiger_ioc_setup import first_values, keep_consistent
from apsber_bluesky.simulation._eiger_ioc_triggers import Shot, Triggers
from apsber_bluesky.simulation._pulses import Pulse

_ARM_S: Final = 0.05
_INITIALISE_S: Final = 0.2

log = logging.getLogger(__name__)


class EigerIoc:
    """An EIGER and its IOC.

    Besides ADEiger's records there are three to simulate trouble: ``SimulateLoss`` (numbers of
    images of each series that its memory drops, such as ``"3, 5"``), ``SimulateIgnored`` (numbers
    of pulses that it ignores) and ``SimulatePowerCut`` (1: it has to be initialised again).

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:eiger:"``; the driver's records are below ``cam1:``.
    settings : SimulationSettings
        Seed, dead pixels, energy.
    look : callable
        Says what an exposure at a given time sees.
    generation : {1, 2}
        EIGER (legacy stream) or EIGER2 (both streams).
    rows, columns : int
        Size [pixel].
    distance_mm : float
        From the sample [mm].
    sample : ScatteringSample, optional
        What scatters.

    Attributes
    ----------
    channels, pva_channels : dict of str to channel
        PV name -> channel; none over PV Access.
    ready : dict
        What the beamline says of it: ``frame_address`` of its best stream, ``legacy_address``.
    """

    def __init__(
        self,
        prefix: str,
        settings: SimulationSettings,
        look: Look,
        *,
        generation: Generation = 2,
        rows: int = 256,
        columns: int = 256,
        distance_mm: float = 100.0,
        sample: ScatteringSample | None = None,
    ) -> None:
        self._prefix = f"{prefix}cam1:"
        self._generation: Generation = generation
        self._look = look
        geometry = DiffractionGeometry(
            rows,
            columns,
            distance_mm=distance_mm,
            energy_keV=settings.energy_keV,
            # Off the middle, where the modules meet.
            beam_centre_px=(rows / 2 - 3.5, columns / 2 + 2.25),
        )
        self._sensor = EigerSensor(settings, generation, geometry, sample)
        self.channels = eiger_channels(self._prefix, generation)
        self.channels |= {
            f"{self._prefix}SimulateLoss": ca.text(),
            f"{self._prefix}SimulateIgnored": ca.text(),
            f"{self._prefix}SimulatePowerCut": ca.integer(),
        }
        self.pva_channels: dict[str, Any] = {}
        self._ports: dict[int, DcuMemory] = {n: DcuMemory(n) for n in _VERSIONS[generation]}
        self.ready = {
            "frame_address": self._ports[generation].address,
            "legacy_address": self._ports[1].address,
        }
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eiger")
        self._triggers: Triggers | None = None
        self._sequence = self._dropped = 0
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def at(self, name: str) -> Any:
        """The channel of one record."""
        return self.channels[f"{self._prefix}{name}"]

    def _readback(self, name: str) -> Any:
        return self.at(f"{name}_RBV").value

    async def post(self, values: dict[str, Any]) -> None:
        """Publish several records."""
        for name, value in values.items():
            await self.at(name).post(value)

    async def start(self) -> None:
        """Give the records their first values."""
        await self.post(first_values(self._sensor, self._generation))
        keep_consistent(self)
        self.at("Acquire").on_put = self._put_acquire
        self.at("Trigger").on_put = self._put_trigger
        self.at("Initialize").on_put = self._put_initialize
        self.at("TriggerMode").on_put = self._put_trigger_mode
        self.at("ReadStatus").on_put = self._put_read_status
        self.at("SimulatePowerCut").on_put = self._put_power_cut

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps running while the beamline serves: nothing, acquisitions are tasks."""
        return []

    async def close(self) -> None:
        """End the acquisition and close the ports."""
        await self.stop()
        self._thread.shutdown()
        for port in self._ports.values():
            await asyncio.get_running_loop().run_in_executor(None, port.close)

    def trigger(self, pulses: list[Pulse]) -> None:
        """Take the trigger pulses of the motion controller."""
        if self._triggers is not None:
            self._triggers.take(pulses)

    # -- what clients write

    async def _put_trigger_mode(self, value: str) -> None:
        await self.post({"TriggerMode_RBV": value})
        if value.endswith("Enable"):
            await self.post({"NumImages": 1, "NumImages_RBV": 1})

    async def _put_trigger(self, value: float) -> None:
        if self._triggers is not None:
            self._triggers.software()

    async def _put_initialize(self, value: str) -> None:
        if value == "Initialize":
            await self.post({"State_RBV": "initialize"})
            await asyncio.sleep(_INITIALISE_S)
            for port in self._ports.values():
                port.clear()
            await self.post({"State_RBV": "idle", "Initialize": "Done"})

    async def _put_read_status(self, value: str) -> None:
        # The driver asks the detector only when told to, and never during an acquisition.
        if self._idle.is_set():
            await self.post({"StreamDropped_RBV": self._dropped})
        await self.post({"ReadStatus": "Done"})

    async def _put_power_cut(self, value: int) -> None:
        if value:
            await self.stop()
            await self.post({"State_RBV": "na", "SimulatePowerCut": 0})

    async def _put_acquire(self, value: str) -> None:
        if value == "Acquire":
            if self._idle.is_set():
                self._idle.clear()
                self._stopping = False
                self._task = asyncio.get_running_loop().create_task(self._acquire())
            await self._idle.wait()
            return
        await self.stop()

    async def stop(self) -> None:
        """Abort the acquisition, if there is one, and wait until it has ended."""
        self._stopping = True
        if self._triggers is not None:
            self._triggers.stop()
        await self._idle.wait()

    # -- acquisition

    async def _acquire(self) -> None:
        """One acquisition, from ``Acquire`` = 1 until the detector is disarmed."""
        failure = self._refusal()
        try:
            if not failure:
                await self._arm_and_expose()
        except Exception as error:
            log.exception("the acquisition failed")
            failure = f"{type(error).__name__}: {error}"
        self._triggers = None
        message = "Acquisition aborted" if self._stopping else "Ready"
        ended = "Aborted" if self._stopping else "Idle"
        try:
            await self.post(
                {
                    "Armed": "Unarmed",
                    "DetectorState_RBV": "Error" if failure else ended,
                    "StatusMessage_RBV": (failure or message)[:39],
                    "Acquire_RBV": "Done",
                    "Acquire": "Done",
                }
            )
        finally:
            self._idle.set()

    def _refusal(self) -> str:
        """Why the driver does not arm, in its words; or nothing."""
        streams = self._readback("StreamEnable") == "Enable"
        if self._readback("DataSource") == "Stream" and not streams:
            return "Stream API is disabled"
        if self._readback("State") != "idle":
            return "Failed to arm the detector"
        if self._readback("TriggerMode") not in MODES:
            return "Trigger mode is not simulated"
        return ""

    async def _arm_and_expose(self) -> None:
        await self.post(
            {
                "DetectorState_RBV": "Acquire",
                "Acquire_RBV": "Acquiring",
                "StatusMessage_RBV": "Arming",
            }
        )
        await asyncio.sleep(_ARM_S)
        self._sequence += 1
        version = self._version()
        armed = armed_series(self._readback, self._sensor, self._sequence, version)
        port = self._ports[version] if self._readback("StreamEnable") == "Enable" else None
        if port is not None:
            port.dropped = 0
            port.put(armed.start(), is_image=False)
        # From here on pulses count; clients may arm the motion controller once they see Armed.
        ignored = _numbers(self.at("SimulateIgnored").value)
        exposure = self.at("AcquireTime_RBV")
        self._triggers = Triggers(armed, self._look, lambda: float(exposure.value), ignored)
        if self._stopping:
            self._triggers.stop()
        await self.post(
            {
                "SequenceId": self._sequence,
                "State_RBV": "ready",
                "StatusMessage_RBV": "Armed",
                "Armed": "Armed",
            }
        )
        await self._expose(armed, self._triggers, port)
        if port is not None:
            port.put(armed.end(), is_image=False)
            self._dropped = port.dropped
        await self.post({"State_RBV": "idle"})

    def _version(self) -> Literal[1, 2]:
        if self._generation == 2 and self._readback("StreamVersion") == "Stream2":
            return 2
        return 1

    async def _expose(self, armed: ArmedSeries, triggers: Triggers, port: DcuMemory | None) -> None:
        loop = asyncio.get_running_loop()
        lost = _numbers(self.at("SimulateLoss").value)
        image_id = 0
        async for shot in triggers.shots():
            parts = await loop.run_in_executor(self._thread, self._image, armed, image_id, shot)
            if port is not None:
                if image_id in lost:
                    port.dropped += 1
                else:
                    port.put(parts, is_image=True)
            image_id += 1

    def _image(self, armed: ArmedSeries, image_id: int, shot: Shot) -> list[bytes]:
        """Count and write down one image, in the detector's thread."""
        counting = replace(armed.counting, exposure_s=shot.exposure_s)
        number = (armed.series.series_id, image_id)
        images = self._sensor.images(shot.seen, counting, number)
        return armed.image(image_id, images, shot.began_s)


_VERSIONS: Final[dict[Generation, tuple[Literal[1, 2], ...]]] = {1: (1,), 2: (1, 2)}


def _numbers(text: str) -> frozenset[int]:
    """Numbers of images or pulses; what is no number is passed over."""
    return frozenset(int(word) for word in text.replace(",", " ").split() if word.isdigit())
