"""Drives an Xspress3 through its areaDetector records."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Final

from ophyd.status import SubscriptionStatus

from apsber_bluesky.core import InputError, SeriesTicket, ServiceError
from apsber_bluesky.devices._requests import FrameSeries

if TYPE_CHECKING:
    from apsber_bluesky.devices._vortex import VortexDetector

logger = logging.getLogger(__name__)

#: Length of a tick of the hardware's clock [s], in which event widths are given.
TICK_S: Final = 12.5e-9

_PUT_TIMEOUT_S: Final = 10.0
_OPTIONAL_WAIT_S: Final = 1.0
_POLL_S: Final = 0.01
_PULSED: Final = "TTL + Internal"
_GATED: Final = "TTL Veto Only"
_NEEDED: Final = (
    "acquire", "acquire_time", "num_images", "trigger_mode", "array_callbacks", "array_counter",
    "num_channels", "max_spectra",
)  # fmt: skip
_OPTIONAL: Final = {
    "ctrl_dtc": "spectra are taken to be as they were counted",
    "erase_on_start": "it must be set by hand",
    "max_frames": "the number of frames is not checked",
    "connected_state": "whether the hardware is there is not checked",
}


class Xspress3Driver:
    """A `DetectorDriver`.

    Parameters
    ----------
    detector : VortexDetector
        The device.
    """

    arms_once = False

    def __init__(self, detector: VortexDetector) -> None:
        self._detector = detector
        self._cam = detector.cam
        self._absent: set[str] = set()
        self._told = False

    def connect(self, timeout_s: float) -> None:
        """Wait for the records that scans need; others are worked around, and named once."""
        for name in _NEEDED:
            getattr(self._cam, name).wait_for_connection(timeout=timeout_s)
        optional = {name: getattr(self._cam, name) for name in _OPTIONAL}
        deadline = time.monotonic() + min(timeout_s, _OPTIONAL_WAIT_S)
        while not all(s.connected for s in optional.values()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for name, signal in optional.items():
            if signal.connected:
                self._absent.discard(name)
            elif name not in self._absent:
                self._absent.add(name)
                logger.warning(
                    "%s: there is no %s; %s", self._detector.name, signal.pvname, _OPTIONAL[name]
                )

    def check(self, series: FrameSeries) -> None:
        """Refuse what the electronics cannot do.

        Raises
        ------
        InputError
            If so.
        """
        name = self._detector.name
        if series.trigger == "start":
            raise InputError(
                f"{name} cannot be triggered by 'start': an Xspress3 takes one pulse or gate per"
                " frame; give 'external', 'gate', 'internal' or 'step'"
            )
        if not (math.isfinite(series.exposure_s) and series.exposure_s > 0):
            raise InputError(f"exposure of {name} is {series.exposure_s!r} s; give more than 0")
        if series.num_frames < 1:
            raise InputError(f"{series.num_frames} frames of {name}; give 1 or more")
        if series.trigger == "internal" and series.period_s > series.exposure_s * (1 + 1e-6):
            # Its own clock knows no pause, and frames one upon the other are what was not asked.
            logger.info("%s exposes without pauses at its own clock", name)
        if "max_frames" not in self._absent:
            most = int(self._cam.max_frames.get())
            if series.num_frames > most:
                raise InputError(
                    f"{series.num_frames} frames of {name} in one series; it has memory for {most}"
                )

    def frame_shape(self) -> tuple[int, int]:
        """Channels and bins of a spectrum."""
        return int(self._cam.num_channels.get()), int(self._cam.max_spectra.get())

    def frame_dtype(self) -> str:
        """Counts, or counts that the electronics corrected for dead time."""
        return "<f8" if self.corrects_dead_time() else "<u4"

    def corrects_dead_time(self) -> bool:
        """Whether the electronics correct spectra for dead time."""
        return "ctrl_dtc" not in self._absent and bool(self._cam.ctrl_dtc.get())

    def let_flow(self) -> None:
        """Stop, and enable the plugin that frames leave by.

        Raises
        ------
        ServiceError
            If the hardware is not connected to its IOC.
        """
        if "connected_state" not in self._absent and not self._cam.connected_state.get():
            raise ServiceError(
                f"{self._detector.name}: the IOC has no connection to the Xspress3; put 1 to"
                f" {self._cam.prefix}CONNECT"
            )
        self._cam.acquire.put(0, wait=True, timeout=_PUT_TIMEOUT_S)
        self._cam.array_callbacks.put(1, wait=True)
        self._detector.pva1.enable.put(1, wait=True)
        if "erase_on_start" not in self._absent:
            self._cam.erase_on_start.put(1, wait=True)

    def begin_run(self) -> None:
        """Count frames anew: the noise of the simulation goes by the detector's own number."""
        self._cam.array_counter.put(0, wait=True)

    def prepare(self, series: FrameSeries) -> None:
        """Set trigger, exposure time and number of frames."""
        cam, step = self._cam, series.trigger == "step"
        cam.trigger_mode.put(self._mode(series), wait=True)
        cam.acquire_time.put(series.exposure_s, wait=True)
        cam.num_images.put(1 if step else series.num_frames, wait=True)

    def _mode(self, series: FrameSeries) -> str:
        if series.trigger in ("internal", "step"):
            return "Internal"
        if series.trigger == "gate" or _PULSED in self._cam.trigger_mode.enum_strs:
            return _GATED if series.trigger == "gate" else _PULSED
        if not self._told:
            self._told = True
            logger.warning(
                "%s has no mode %r; frames last as long as the pulses, which must be %g s",
                self._detector.name, _PULSED, series.exposure_s,
            )  # fmt: skip
        return _GATED

    def announce(self, ticket: SeriesTicket) -> None:
        """Nothing: the relay is told by the receiver."""

    def arm(self) -> None:
        """Start the acquisition."""
        started = SubscriptionStatus(
            self._cam.acquire, lambda *, value, **_: value == 1, run=False, timeout=_PUT_TIMEOUT_S
        )
        self._cam.acquire.put(1, wait=False)
        started.wait()

    def expose(self, *, timeout_s: float) -> None:
        """Take one frame."""
        self._cam.acquire.put(1, wait=True, timeout=timeout_s)

    def disarm(self) -> None:
        """Stop the acquisition."""
        self._cam.acquire.put(0)
