"""The same detector behind XIA's electronics: EPICS' older multi-element DXP and MCA records."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from apsber_bluesky.core import SimulationSettings
from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._camera import Look
from apsber_bluesky.simulation._fluorescence import BINS
from apsber_bluesky.simulation._pulses import Pulse
from apsber_bluesky.simulation._xspress3_ioc import NUM_CHANNELS, SampleAtBeam

_DEFAULT_EXPOSURE_S = 0.1
_PRESET_MODES = ("No preset", "Real time", "Live time", "Events", "Triggers")


class McaIoc:
    """A multi-element system with one MCA and one DXP per element.

    Names are those that ``ophyd.mca`` has of dxpMercury's databases (``EpicsMCARecord``,
    ``EpicsDXP``, ``EpicsDXPMultiElementSystem``). Only the preset of real time is simulated, and
    no software of the sequencer: a put to ``EraseStart`` completes when the counting does.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:vortex_mca:"``.
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
    sample : SampleAtBeam
        What is measured.
    """

    def __init__(self, prefix: str, settings: SimulationSettings, look: Look) -> None:
        self._prefix = prefix
        self.sample = SampleAtBeam(settings, look)
        self.pva_channels: dict[str, Any] = {}
        names: dict[str, Any] = {
            "PresetReal": ca.double(_DEFAULT_EXPOSURE_S, units="s", precision=6),
            "PresetMode": ca.choice(_PRESET_MODES, "Real time"),
            "EraseStart": ca.integer(),
            "EraseAll": ca.integer(),
            "StartAll": ca.integer(),
            "StopAll": ca.integer(),
            "Acquiring": ca.read_only(ca.choice(("Done", "Acquiring"))),
            "ElapsedReal": ca.read_only(ca.double(units="s", precision=6)),
            "ElapsedLive": ca.read_only(ca.double(units="s", precision=6)),
            "DeadTime": ca.read_only(ca.double(units="%", precision=3)),
        }
        for number in range(1, NUM_CHANNELS + 1):
            names |= _element_records(number)
        self.channels = {f"{prefix}{name}": channel for name, channel in names.items()}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mca")
        self._counter = 0
        self._stop, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> dict[str, Any]:
        """Nothing that a session needs to know: there is no stream."""
        return {}

    def at(self, name: str) -> Any:
        """The channel of one record."""
        return self.channels[f"{self._prefix}{name}"]

    async def start(self) -> None:
        """Look the lines of the elements up, and connect the records; before clients can."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self.sample.prepare)
        valid = self.at("PresetReal").value

        async def keep_positive(value: float) -> None:
            nonlocal valid
            if np.isfinite(value) and value > 0:
                valid = value
            else:
                await self.at("PresetReal").post(valid)

        self.at("PresetReal").on_put = keep_positive
        self.at("EraseStart").on_put = self._put_start
        self.at("StartAll").on_put = self._put_start
        self.at("StopAll").on_put = self._put_stop
        for number in range(1, NUM_CHANNELS + 1):
            self.at(f"mca{number}.ERST").on_put = self._put_start
            self.at(f"mca{number}.STOP").on_put = self._put_stop

    async def _put_start(self, value: int) -> None:
        if not value:
            return
        if self._idle.is_set():
            self._idle.clear()
            self._stop.clear()
            try:
                await self._count()
            finally:
                self._idle.set()
        else:
            await self._idle.wait()

    async def _put_stop(self, value: int) -> None:
        if value:
            await self._end()

    async def _end(self) -> None:
        self._stop.set()
        await self._idle.wait()

    async def _count(self) -> None:
        await self.at("Acquiring").post("Acquiring")
        begin_s, preset_s = time.monotonic(), float(self.at("PresetReal").value)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), preset_s)
        # As long as was asked, though this program is never quite punctual.
        real_s = min(time.monotonic() - begin_s, preset_s)
        seen = self.sample.seen(begin_s, real_s)
        self._counter += 1
        loop = asyncio.get_running_loop()
        recorded = await loop.run_in_executor(
            self._thread, self.sample.count, seen, real_s, self._counter
        )
        live = real_s * (1 - recorded.dead_part)
        for index, spectrum in enumerate(recorded.spectra):
            number = index + 1
            values: dict[str, Any] = {
                f"mca{number}.VAL": spectrum.astype(np.int32),
                f"mca{number}.ERTM": real_s,
                f"mca{number}.ELTM": float(live[index]),
                f"mca{number}.ERST": 0,
                f"dxp{number}:InputCountRate": float(recorded.arrived[index] / real_s),
                f"dxp{number}:OutputCountRate": float(recorded.events[index] / real_s),
                f"dxp{number}:Events": int(recorded.events[index]),
                f"dxp{number}:Triggers": int(recorded.arrived[index]),
            }
            for name, value in values.items():
                await self.at(name).post(value)
        totals = {
            "ElapsedReal": real_s,
            "ElapsedLive": float(live.mean()),
            "DeadTime": 100 * float(recorded.dead_part.mean()),
            "EraseStart": 0,
            "StartAll": 0,
            "Acquiring": "Done",
        }
        for name, value in totals.items():
            await self.at(name).post(value)

    def trigger(self, pulses: list[Pulse]) -> None:
        """Pulses mean nothing to it."""

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps running while the beamline serves: nothing."""
        return []

    async def close(self) -> None:
        """End the counting."""
        await self._end()
        self._thread.shutdown()


def _element_records(number: int) -> dict[str, Any]:
    mca, dxp = f"mca{number}", f"dxp{number}:"
    spectrum = ca.integer(np.zeros(BINS, np.int32), max_length=BINS, max_subscription_backlog=2)
    return {
        f"{mca}.VAL": ca.read_only(spectrum),
        f"{mca}.NUSE": ca.integer(BINS),
        f"{mca}.PRTM": ca.double(units="s"),
        f"{mca}.PLTM": ca.double(units="s"),
        f"{mca}.ERTM": ca.read_only(ca.double(units="s", precision=6)),
        f"{mca}.ELTM": ca.read_only(ca.double(units="s", precision=6)),
        f"{mca}.ERST": ca.integer(),
        f"{mca}.STOP": ca.integer(),
        f"{mca}.MODE": ca.choice(("PHA", "MCS", "List")),
        f"{mca}.CALO": ca.double(0.0, units="keV"),
        f"{mca}.CALS": ca.double(0.01, units="keV"),
        f"{dxp}InputCountRate": ca.read_only(ca.double(units="1/s")),
        f"{dxp}OutputCountRate": ca.read_only(ca.double(units="1/s")),
        f"{dxp}Events": ca.read_only(ca.integer()),
        f"{dxp}Triggers": ca.read_only(ca.integer()),
    }
