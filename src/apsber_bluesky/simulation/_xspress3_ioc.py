"""A Vortex read out by Xspress3: records over Channel Access, spectra over PV Access."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

import numpy as np

from apsber_bluesky.core import ImageKey, SimulationSettings
from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._camera import Exposure, Look
from apsber_bluesky.simulation._filters import transmission_of
from apsber_bluesky.simulation._fluorescence import (
    BINS,
    FluorescenceConditions,
    FluorescenceDetector,
    Recorded,
)
from apsber_bluesky.simulation._fluorescence_phantom import FluorescencePhantom
from apsber_bluesky.simulation._plugin import Frame, size_values
from apsber_bluesky.simulation._plugins import PvaOutlet
from apsber_bluesky.simulation._pulses import Pulse
from apsber_bluesky.simulation._xspress3_records import TICKS_S, xspress3_channels

log = logging.getLogger(__name__)

MAX_FRAMES: Final = 12216
NUM_CHANNELS: Final = 4

_DEFAULT_EXPOSURE_S: Final = 0.1
_REPORT_PERIOD_S: Final = 0.05
_CLOCK_SLACK_S: Final = 1e-6
#: Places along the way of one exposure whose mean the beam sees.
_PLACES: Final = 5
# Good events are those above this bin.
_GOOD_FROM: Final = 50


class SampleAtBeam:
    """What the detector counts of the fluorescence phantom wherever the stage holds it.

    Parameters
    ----------
    settings : SimulationSettings
        Seed and photon energy.
    look : callable
        Says what an exposure at a time (``time.monotonic``) sees.

    Attributes
    ----------
    phantom : FluorescencePhantom
        The sample; its x and y are the positions of the stage [mm].
    """

    def __init__(self, settings: SimulationSettings, look: Look) -> None:
        self._seed, self._usual_keV, self._look = settings.seed, settings.energy_keV, look
        self.phantom = FluorescencePhantom(settings.seed)
        self._at_energy = lru_cache(maxsize=4)(self._detector)

    def _detector(self, energy_keV: float) -> FluorescenceDetector:
        conditions = FluorescenceConditions(
            energy_keV=energy_keV, num_channels=NUM_CHANNELS, seed=self._seed
        )
        return FluorescenceDetector(self.phantom.elements, conditions)

    def prepare(self) -> None:
        """Look the lines of the elements up, which takes a second."""
        self._at_energy(round(self._usual_keV, 3))

    def seen(self, begin_s: float, exposure_s: float) -> list[Exposure]:
        """What the beam saw during an exposure that is over."""
        steps = (np.arange(_PLACES) + 0.5) / _PLACES
        return [self._look(float(begin_s + step * exposure_s)) for step in steps]

    def count(self, seen: list[Exposure], exposure_s: float, number: int) -> Recorded:
        """Spectra of an exposure."""
        middle = seen[len(seen) // 2]
        scene = middle.scene
        energy_keV = self._usual_keV if scene.energy_keV is None else scene.energy_keV
        light = transmission_of(scene.filters, energy_keV) if scene.has_beam else 0.0
        places = [(view.scene.x_mm, view.scene.y_mm) for view in seen]
        densities = self.phantom.densities(*np.transpose(places)).mean(axis=1)
        return self._at_energy(round(energy_keV, 3)).expose(
            densities,
            exposure_s,
            number,
            light=0.0 if middle.kind is ImageKey.DARK else light,
        )


class Xspress3Ioc:
    """The Vortex of the simulated beamline.

    An external frame begins with a pulse and lasts ``AcquireTime``; in mode ``TTL Veto Only`` it
    would last as long as the pulse, which here is set to the same.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:vortex:"``; the driver's records are below ``det1:``.
    settings : SimulationSettings
        Seed and photon energy.
    look : callable
        Says what an exposure at a time (``time.monotonic``) sees.

    Attributes
    ----------
    channels : dict of str to channel
        Every record by its PV name.
    pva_channels : dict of str to SharedPV
        ``Pva1:Image``: spectra of all channels, shape ``(channels, 4096)`` uint32, numbered from 0
        in each acquisition.
    sample : SampleAtBeam
        What is measured.
    """

    def __init__(self, prefix: str, settings: SimulationSettings, look: Look) -> None:
        self._prefix = prefix
        self.sample = SampleAtBeam(settings, look)
        self._width_s = FluorescenceConditions().event_width_s
        self._records = xspress3_channels(
            prefix,
            num_channels=NUM_CHANNELS,
            num_bins=BINS,
            max_frames=MAX_FRAMES,
            event_width=self._width_s * TICKS_S,
        )
        self._pva = PvaOutlet(f"{prefix}Pva1:", NUM_CHANNELS, BINS, np.dtype("<u4"))
        self.channels = self._records | self._pva.channels
        self.pva_channels: dict[str, Any] = {self._pva.pv_name: self._pva.pv}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="xspress3")
        self._counter = self._number = 0
        self._last: tuple[Recorded, float] | None = None
        self._busy_until_s = -np.inf
        self._triggers: asyncio.Queue[float | None] | None = None
        self._stop, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._reported_s = 0.0

    @property
    def ready(self) -> dict[str, Any]:
        """What a session needs to know."""
        return {
            "pva": self._pva.pv_name,
            "first_id": 0,
            "rows": NUM_CHANNELS,
            "columns": BINS,
            "dtype": "<u4",
        }

    def at(self, name: str) -> Any:
        """The channel of one record of the driver."""
        return self.channels[f"{self._prefix}det1:{name}"]

    async def _post(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            await self.at(name).post(value)

    # -- records

    async def start(self) -> None:
        """Give the records their first values; call before clients can connect."""
        # Nothing waits for it but the first exposure, which is done in the same thread.
        self._thread.submit(self.sample.prepare)
        both = {
            "AcquireTime": _DEFAULT_EXPOSURE_S,
            "ArrayCallbacks": "Enable",
            "ImageMode": "Multiple",
            "NumImages": 1,
            "DataType": "UInt32",
            "SizeX": BINS,
            "SizeY": NUM_CHANNELS,
            "TriggerMode": "Internal",
        }
        await self._post({f"{name}{end}": v for name, v in both.items() for end in ("", "_RBV")})
        await self._post(
            {
                **size_values(np.empty((NUM_CHANNELS, BINS), np.uint32)),
                "MaxSizeX_RBV": BINS,
                "MaxSizeY_RBV": NUM_CHANNELS,
                "Manufacturer_RBV": "Quantum Detectors",
                "Model_RBV": "Xspress3",
                "PortName_RBV": "XSP3",
            }
        )
        await self._pva.start()
        for name in ("SizeX", "SizeY", "DataType", "CTRL_DTC", "NUM_CHANNELS", "MAX_SPECTRA"):
            ca.fix(self.at(name), self.at(f"{name}_RBV"))
        for number in range(1, NUM_CHANNELS + 1):
            ca.fix(self.channels[f"{self._prefix}C{number}:EventWidth"])
        self._keep_valid("AcquireTime", lambda value: bool(np.isfinite(value) and value > 0))
        self._keep_valid("NumImages", lambda value: 1 <= value <= MAX_FRAMES)
        ca.follow(self.at("TriggerMode"), self.at("TriggerMode_RBV"))
        self.at("Acquire").on_put = self._put_acquire
        self.at("ArrayCounter").on_put = self._put_counter
        self.at("ERASE").on_put = self._put_erase

    def _keep_valid(self, name: str, valid: Callable[[Any], bool]) -> None:
        setpoint, readback = self.at(name), self.at(f"{name}_RBV")

        async def check(value: Any) -> None:
            taken = self._idle.is_set() and valid(value)
            await (readback.post(value) if taken else setpoint.post(readback.value))

        setpoint.on_put = check

    async def _put_counter(self, value: int) -> None:
        self._counter = max(value, 0)
        await self._post({"ArrayCounter": self._counter, "ArrayCounter_RBV": self._counter})

    async def _put_erase(self, value: str) -> None:
        if value == "Erase":
            self._last = None
            for number in range(1, NUM_CHANNELS + 1):
                await self.channels[f"{self._prefix}MCA{number}:ArrayData"].post(np.zeros(BINS))
            await self._post({"ERASE": "Done", "FRAME_COUNT_RBV": 0})

    async def _put_acquire(self, value: str) -> None:
        if value != "Acquire":
            await self.stop()
            return
        if self._idle.is_set():
            self._idle.clear()
            self._stop.clear()
            self._task = asyncio.get_running_loop().create_task(self._acquire())
        await self._idle.wait()

    # -- acquisition

    def trigger(self, pulses: list[Pulse]) -> None:
        """Take the trigger pulses of a motion controller; one that comes too early is missed."""
        for pulse in pulses:
            late_enough = pulse.time_s >= self._busy_until_s - _CLOCK_SLACK_S
            if self._triggers is not None and late_enough:
                self._busy_until_s = pulse.time_s + self.at("AcquireTime_RBV").value
                self._triggers.put_nowait(pulse.time_s)

    async def stop(self) -> None:
        """End the acquisition, if there is one, and wait until it has ended."""
        self._stop.set()
        if self._triggers is not None:
            self._triggers.put_nowait(None)
        await self._idle.wait()

    async def _acquire(self) -> None:
        state = "Error"
        try:
            await self._expose()
            state = "Aborted" if self._stop.is_set() else "Idle"
        except Exception:
            log.exception("the acquisition failed")
        finally:
            self._triggers = None
        try:
            await self._report(final=True)
            await self._post({"DetectorState_RBV": state, "Acquire_RBV": "Done", "Acquire": "Done"})
        finally:
            self._idle.set()

    async def _expose(self) -> None:
        mode = self.at("TriggerMode_RBV").value
        external = mode.startswith(("TTL", "LVDS"))
        wanted = self.at("NumImages_RBV").value
        self._number, self._busy_until_s = 0, -np.inf
        # From here on pulses count; clients may arm the motion controller once they see Acquire.
        self._triggers = asyncio.Queue() if external else None
        await self._post(
            {
                "FRAME_COUNT_RBV": 0,
                "DetectorState_RBV": "Waiting" if external else "Acquire",
                "Acquire_RBV": "Acquiring",
            }
        )
        exposure_s = self.at("AcquireTime_RBV").value
        async for begin_s in self._begins(wanted, exposure_s):
            await self._pause(begin_s + exposure_s - time.monotonic())
            if self._stop.is_set():
                return
            seen = self.sample.seen(begin_s, exposure_s)
            await self._in_thread(self._take, seen, exposure_s)
            await self._report()

    async def _begins(self, wanted: int, exposure_s: float) -> AsyncIterator[float]:
        """When each frame begins (``time.monotonic``)."""
        queue, start_s = self._triggers, time.monotonic()
        for number in range(wanted):
            if queue is None:
                yield start_s + number * exposure_s
                continue
            if queue.empty():
                await self._report(final=True)
            begin_s = await queue.get()
            if begin_s is None:
                return
            yield begin_s

    async def _pause(self, wait_s: float) -> None:
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _take(self, seen: list[Exposure], exposure_s: float) -> None:
        """Make a frame and post it, in the detector's thread."""
        self._counter += 1
        recorded = self.sample.count(seen, exposure_s, self._counter)
        first = seen[0]
        if self.at("ArrayCallbacks").value == "Enable":
            frame = Frame(
                recorded.spectra,
                first.kind,
                self._number,
                self._number,
                first.time_s,
                first.angle_deg,
            )
            self._pva.take(frame)
        self._last = recorded, exposure_s
        self._number += 1

    async def _report(self, *, final: bool = False) -> None:
        """Bring the records up to date, 20 times a second and at the end."""
        now_s = time.monotonic()
        if not final and now_s - self._reported_s < _REPORT_PERIOD_S:
            return
        self._reported_s = now_s
        await self._pva.report(final=final)
        await self._post({"ArrayCounter_RBV": self._counter, "FRAME_COUNT_RBV": self._number})
        if self._last is None:
            return
        recorded, exposure_s = self._last
        for index, spectrum in enumerate(recorded.spectra):
            dead = float(recorded.dead_part[index])
            events, good = int(recorded.events[index]), int(spectrum[_GOOD_FROM:].sum())
            factor = 1 / (1 - dead)
            scalers = (exposure_s * TICKS_S, 0, 0, events, good, 0, 0, 0,
                       self._width_s * TICKS_S, factor, 100 * dead)  # fmt: skip
            values = {f"C{index + 1}SCA:{k}:Value_RBV": float(v) for k, v in enumerate(scalers)}
            values |= {
                f"C{index + 1}:DeadTime_RBV": 100 * dead,
                f"C{index + 1}:DTFactor_RBV": factor,
            }
            for name, value in values.items():
                await self.channels[f"{self._prefix}{name}"].post(value)
            if final:
                name = f"{self._prefix}MCA{index + 1}:ArrayData"
                await self.channels[name].post(spectrum.astype(np.float64))

    # -- service

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps running while the beamline serves: nothing."""
        return []

    async def close(self) -> None:
        """End the acquisition."""
        await self.stop()
        self._thread.shutdown()
