"""A Jungfrau behind PSI's slsDetector IOC: records over Channel Access, frames from slsReceiver."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

import numpy as np
from caproto import AlarmSeverity, AlarmStatus

from apsber_bluesky.core import ImageKey, InputError, SimulationSettings
from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._camera import Exposure, Look
from apsber_bluesky.simulation._filters import transmission_of
from apsber_bluesky.simulation._jungfrau_ioc_commands import ChipSettings, obey
from apsber_bluesky.simulation._jungfrau_ioc_records import jungfrau_channels
from apsber_bluesky.simulation._jungfrau_ioc_scene import (
    COLUMNS,
    GRID,
    MODULE,
    ROWS,
    jungfrau_diffraction,
)
from apsber_bluesky.simulation._jungfrau_ioc_sensor import JungfrauSensor
from apsber_bluesky.simulation._plugin import size_values
from apsber_bluesky.simulation._pulses import Pulse
from apsber_bluesky.simulation._sls_receiver import SlsReceiver

log = logging.getLogger(__name__)

#: From ``Acquire`` until triggers count; no record says when that is, as at the real IOC.
ARMING_S: Final = 0.15

_DEFAULT_EXPOSURE_S: Final = 1e-3
_DEFAULT_PERIOD_S: Final = 5e-3
_PACKETS_OF_BYTES: Final = 8192
_REPORT_PERIOD_S: Final = 0.05
_CLOCK_SLACK_S: Final = 1e-6
# Bits of the header's DAQ info (detSpec3).
_MODE_BITS: Final = {"fixg1": 1 << 1, "fixg2": 1 << 2, "forceswitchg1": 1 << 12,
                     "forceswitchg2": 1 << 13}  # fmt: skip
_CELL_SHIFT: Final = 8


class JungfrauIoc:
    """The Jungfrau of the simulated beamline.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:jungfrau:"``; the records are below ``cam1:``.
    settings : SimulationSettings
        Seed and photon energy.
    look : callable
        Says what an exposure at a time (``time.monotonic``) sees.

    Attributes
    ----------
    channels : dict of str to channel
        Every record by its PV name.
    pva_channels : dict
        None.
    ready : dict
        What a session needs to know.
    sensor : JungfrauSensor
        What the pixels are like.
    """

    def __init__(self, prefix: str, settings: SimulationSettings, look: Look) -> None:
        self._prefix = f"{prefix}cam1:"
        self._look = look
        self._usual_keV = settings.energy_keV
        self._sender = SlsReceiver(grid=GRID, module_shape=MODULE)
        self.sensor = JungfrauSensor(ROWS, COLUMNS, settings.seed)
        self._diffraction = jungfrau_diffraction(settings.seed, settings.energy_keV)
        self._seed = settings.seed
        self._chip = ChipSettings()
        self.channels = jungfrau_channels(self._prefix)
        self.pva_channels: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jungfrau")
        self._powered_s = time.monotonic()
        self._acquisitions = self._taken = 0
        self._busy_until_s = -np.inf
        self._triggers: asyncio.Queue[Exposure | None] | None = None
        self._stop, self._idle, self._served = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._reported_s = 0.0
        self.ready: dict[str, Any] = {
            "frame_address": ",".join(self._sender.addresses.values()),
            "module_grid": list(GRID),
            "rows": ROWS,
            "columns": COLUMNS,
            "dtype": "<u2",
        }

    def at(self, name: str) -> Any:
        """The channel of one record."""
        return self.channels[f"{self._prefix}{name}"]

    async def _post(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            await self.at(name).post(value)

    # -- records

    async def start(self) -> None:
        """Give the records their first values; call before clients can connect."""
        both = {
            "AcquireTime": _DEFAULT_EXPOSURE_S,
            "AcquirePeriod": _DEFAULT_PERIOD_S,
            "ArrayCallbacks": "Enable",
            "DataType": "UInt16",
            "SizeX": COLUMNS,
            "SizeY": ROWS,
        }
        await self._post({f"{name}{end}": v for name, v in both.items() for end in ("", "_RBV")})
        await self._post({"ReceiverStream": "Enable", "ReceiverStream_RBV": "Enabled"})
        await self._post(
            {
                **size_values(np.empty((ROWS, COLUMNS), np.uint16)),
                "MaxSizeX_RBV": COLUMNS,
                "MaxSizeY_RBV": ROWS,
                "Manufacturer_RBV": "PSI",
                "Model_RBV": "JUNGFRAU",
                "PortName_RBV": "SD1",
            }
        )
        for name in ("SizeX", "SizeY", "MinX", "MinY", "BinX", "BinY", "DataType", "BitDepth"):
            ca.fix(self.at(name), self.at(f"{name}_RBV"))
        self._settable("AcquireTime", lambda value: value > 0)
        self._settable("AcquirePeriod", lambda value: value > 0)
        self._settable("DelayTime", lambda value: value >= 0)
        self._settable("NumFrames", lambda value: value >= 1)
        self._settable("NumCycles", lambda value: value >= 1)
        self._settable("ReceiverMode", lambda value: value >= 0)
        self._settable("HighVoltage", lambda value: value == 0 or 60 <= value <= 200)
        for name in ("Setting", "TimingMode", "ImageMode", "UseDataCallback"):
            self._settable(name, lambda value: True)
        self._settable("ReceiverStream", lambda value: True, {"Disable": "Disabled",
                                                             "Enable": "Enabled"})  # fmt: skip
        self.at("Command").on_put = self._put_command
        self.at("Acquire").on_put = self._put_acquire
        self.at("TriggerSoftware").on_put = self._put_trigger

    def _settable(
        self,
        name: str,
        valid: Callable[[Any], bool],
        readbacks: dict[str, str] | None = None,
    ) -> None:
        """A record that the detector takes unless it is busy or the value is wrong."""
        setpoint, readback = self.at(name), self.at(f"{name}_RBV")

        async def check(value: Any) -> None:
            number = isinstance(value, int | float)
            taken = self._idle.is_set() and (not number or np.isfinite(value)) and valid(value)
            if taken:
                await readback.post((readbacks or {}).get(value, value))
            await _alarm(setpoint, raised=not taken)

        setpoint.on_put = check

    async def _put_command(self, text: str) -> None:
        refused = not self._idle.is_set()
        try:
            if not refused:
                self._chip = obey(self._chip, text)
        except InputError as error:
            log.warning("Command %r: %s", text, error)
            refused = True
        await _alarm(self.at("Command"), raised=refused)

    async def _put_acquire(self, value: str) -> None:
        if value != "Acquire":
            await self.stop()
            return
        if self._idle.is_set():
            self._idle.clear()
            self._stop.clear()
            self._task = asyncio.get_running_loop().create_task(self._acquire())
        await self._idle.wait()

    async def _put_trigger(self, value: str) -> None:
        """A software trigger; the put ends when its images are sent, or it was not awaited."""
        if value != "On":
            return
        now_s = time.monotonic()
        if self._triggers is not None and now_s >= self._busy_until_s - _CLOCK_SLACK_S:
            self._busy_until_s = now_s + self._burst_s()
            self._served.clear()
            self._triggers.put_nowait(self._look(now_s))
            await self._served.wait()
        await self._post({"TriggerSoftware": "Off"})

    # -- triggers

    def trigger(self, pulses: list[Pulse]) -> None:
        """Take the trigger pulses of the motion controller; what comes too early is missed."""
        for pulse in pulses:
            late_enough = pulse.time_s >= self._busy_until_s - _CLOCK_SLACK_S
            if self._triggers is not None and late_enough:
                self._busy_until_s = pulse.time_s + self._burst_s()
                seen = self._look(pulse.time_s)
                self._triggers.put_nowait(replace(seen, angle_deg=pulse.position))

    def _burst_s(self) -> float:
        """How long the images of one trigger take [s]."""
        last = self.at("NumFrames_RBV").value - 1
        delay_s, exposure_s = self.at("DelayTime_RBV").value, self.at("AcquireTime_RBV").value
        cells = self._chip.extra_cells + 1
        exposed_s = cells * exposure_s + (cells - 1) * self._chip.cell_delay_s
        return float(delay_s + last * self._period_s() + exposed_s)

    def _period_s(self) -> float:
        return float(max(self.at("AcquirePeriod_RBV").value, self.at("AcquireTime_RBV").value))

    # -- acquisition

    async def stop(self) -> None:
        """End the acquisition, if there is one, and wait until it has ended."""
        self._stop.set()
        if self._triggers is not None:
            self._triggers.put_nowait(None)
        await self._idle.wait()

    async def _acquire(self) -> None:
        state = "Error"
        try:
            running = {"DetectorState_RBV": "Running", "ReceiverState_RBV": "Running"}
            await self._post(
                {**running, "ReceiverMissedPackets_RBV": 0, "Acquire_RBV": "Acquiring"}
            )
            await self._pause(ARMING_S)
            self._taken = 0
            self._acquisitions += 1
            await self._in_thread(self._sender.begin)
            try:
                await self._expose()
            finally:
                self._triggers = None
                self._served.set()
                await self._in_thread(self._sender.send_end, self._silent())
            state = "Stopped" if self._stop.is_set() else "Idle"
        except Exception:
            log.exception("the acquisition failed")
        try:
            await self._report(final=True)
            await self._post({"DetectorState_RBV": state, "ReceiverState_RBV": "Idle"})
            await self._post({"Acquire_RBV": "Done", "Acquire": "Done"})
        finally:
            self._idle.set()

    async def _expose(self) -> None:
        cycles, frames = (self.at(f"{name}_RBV").value for name in ("NumCycles", "NumFrames"))
        if self.at("TimingMode_RBV").value == "auto":
            start = self._look(time.monotonic())
            await self._images(start, cycles * frames, latched=False)
            return
        self._busy_until_s = -np.inf
        self._triggers = asyncio.Queue()
        async for seen in self._triggered(cycles):
            await self._images(seen, frames, latched=True)
            self._served.set()

    async def _triggered(self, cycles: int) -> AsyncIterator[Exposure]:
        queue = self._triggers
        assert queue is not None
        for _ in range(cycles):
            if queue.empty():
                await self._report(final=True)
            seen = await queue.get()
            if seen is None or self._stop.is_set():
                return
            yield seen

    async def _images(self, seen: Exposure, frames: int, *, latched: bool) -> None:
        """The images of one trigger: of each frame, one for each storage cell."""
        chip = self._chip
        begin_s = time.monotonic() + (seen.time_s - time.time()) + self.at("DelayTime_RBV").value
        exposure_s, period_s = self.at("AcquireTime_RBV").value, self._period_s()
        for frame in range(frames):
            for cell in range(chip.extra_cells + 1):
                start_s = begin_s + frame * period_s + cell * (exposure_s + chip.cell_delay_s)
                await self._pause(start_s + exposure_s - time.monotonic())
                if self._stop.is_set():
                    return
                first = latched and frame == cell == 0
                view = seen if first else self._look(min(start_s, time.monotonic()))
                await self._in_thread(self._take, view, chip.cell(cell), exposure_s)
                await self._report()

    async def _pause(self, wait_s: float) -> None:
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _take(self, seen: Exposure, cell: int, exposure_s: float) -> None:
        """Make an image and send it, in the detector's thread."""
        number = (self._acquisitions, self._taken)
        scene = seen.scene
        energy_keV = self._usual_keV if scene.energy_keV is None else scene.energy_keV
        self._diffraction = self._diffraction.at_energy(energy_keV)
        # Nothing of the direct beam comes past the sample's place.
        lit = seen.kind is ImageKey.PROJECTION and scene.has_beam
        photons = self._diffraction.photons(
            seen.angle_deg - seen.offset_deg,
            number=number,
            exposure_s=exposure_s * transmission_of(scene.filters, energy_keV),
            kind=ImageKey.PROJECTION if lit else ImageKey.DARK,
        )
        mode = self._chip.gain_mode
        raw = self.sensor.expose(
            photons * energy_keV,
            np.random.default_rng((self._seed, 0x4F, *number)),
            mode=mode,
            setting=self.at("Setting_RBV").value,
            cell=cell,
            exposure_s=exposure_s,
            time_s=time.monotonic() - self._powered_s,
        )
        if self.at("ReceiverStream_RBV").value == "Enabled":
            info = cell << _CELL_SHIFT | _MODE_BITS.get(mode, 0)
            self._sender.send_image(
                raw,
                number=self._chip.next_frame,
                index=self._taken,
                fields={"detSpec3": str(info)},
                silent=self._silent(),
            )
        self._chip = replace(self._chip, next_frame=self._chip.next_frame + 1)
        self._taken += 1

    def _silent(self) -> frozenset[tuple[int, int]]:
        module = int(self.at("SimulateSilentModule").value)
        return frozenset({divmod(module, GRID[1])}) if module >= 0 else frozenset()

    async def _report(self, *, final: bool = False) -> None:
        """Bring the records up to date, 20 times a second and at the end."""
        now_s = time.monotonic()
        if not final and now_s - self._reported_s < _REPORT_PERIOD_S:
            return
        self._reported_s = now_s
        packets = -(-ROWS // GRID[0] * COLUMNS * 2 // _PACKETS_OF_BYTES)
        missed = self._taken * packets * len(self._silent())
        await self._post({"ArrayCounter_RBV": self._taken, "ReceiverMissedPackets_RBV": missed})

    # -- service

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps running while the beamline serves: nothing."""
        return []

    async def close(self) -> None:
        """End the acquisition and close the sockets."""
        await self.stop()
        self._thread.shutdown()
        self._sender.close()


async def _alarm(channel: Any, *, raised: bool) -> None:
    """A record that could not be written says so with its alarm, and only with that."""
    severity = AlarmSeverity.INVALID_ALARM if raised else AlarmSeverity.NO_ALARM
    status = AlarmStatus.WRITE if raised else AlarmStatus.NO_ALARM
    await channel.write(channel.value, verify_value=False, status=status, severity=severity)
