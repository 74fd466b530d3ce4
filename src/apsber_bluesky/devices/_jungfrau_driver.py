"""Drives a Jungfrau through the records of PSI's slsDetector IOC."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final

from ophyd.status import SubscriptionStatus

from apsber_bluesky.core import InputError, SeriesTicket, ServiceError
from apsber_bluesky.devices._jungfrau_chip import JungfrauChip
from apsber_bluesky.devices._requests import FrameSeries

if TYPE_CHECKING:
    from apsber_bluesky.devices._jungfrau import JungfrauDetector

logger = logging.getLogger(__name__)

#: The detector is told to count the images of each series from this number.
FIRST_FRAME: Final = 1

_TIMING: Final = {"internal": "auto", "external": "trigger", "start": "trigger", "step": "trigger"}
_EXPOSING: Final = ("Running", "Waiting", "Transmitting")
_PUT_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.01
_OPTIONAL_WAIT_S: Final = 1.0
# Times are kept in ticks of 25 ns.
_TICK_S: Final = 25e-9
_INVALID: Final = 3
_OPTIONAL: Final = {
    "trigger_software": "step scans are refused",
    "receiver_stream": "streaming must be switched on by hand (rx_zmqstream)",
    "receiver_mode": "every image must be streamed (rx_zmqfreq 1)",
    "missed_packets": "lost packets show in the frames alone",
}
_NEEDED: Final = (
    "acquire", "acquire_time", "acquire_period", "image_mode", "setting", "timing_mode",
    "num_frames", "num_cycles", "command", "detector_state", "size_x", "size_y",
)  # fmt: skip


class JungfrauDriver:
    """A `DetectorDriver`; gain modes and storage cells have no records and go by ``Command``.

    Parameters
    ----------
    detector : JungfrauDetector
        The device.
    arming_time_s : float
        Time from the start of an acquisition until triggers count [s]; no record tells.
    """

    arms_once = True

    def __init__(self, detector: JungfrauDetector, arming_time_s: float) -> None:
        self._detector = detector
        self._cam = detector.cam
        self._arming_time_s = arming_time_s
        self._absent: dict[str, str] = {}
        self._waits_for_triggers = False
        self._forced = False

    # -- connection

    def connect(self, timeout_s: float) -> None:
        """Wait for the records that scans need; others are worked around, and named once."""
        for name in _NEEDED:
            getattr(self._cam, name).wait_for_connection(timeout=timeout_s)
        signals = {name: getattr(self._cam, name) for name in _OPTIONAL}
        deadline = time.monotonic() + min(timeout_s, _OPTIONAL_WAIT_S)
        while not all(s.connected for s in signals.values()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        for name, signal in signals.items():
            if signal.connected:
                self._absent.pop(name, None)
            elif name not in self._absent:
                self._absent[name] = signal.pvname
                logger.warning(
                    "%s: there is no %s; %s", self._detector.name, signal.pvname, _OPTIONAL[name]
                )

    # -- what it can do

    def check(self, series: FrameSeries, chip: JungfrauChip | None = None) -> None:
        """Refuse what the detector cannot do.

        Parameters
        ----------
        series : FrameSeries
            What is to be taken.
        chip : JungfrauChip, optional
            What will be set for it; what is set when not given.

        Raises
        ------
        InputError
            If so.
        """
        name = self._detector.name
        if series.trigger not in _TIMING:
            raise InputError(
                f"{name} cannot be triggered by {series.trigger!r}: a Jungfrau exposes for a set"
                f" time; give one of {', '.join(_TIMING)}"
            )
        for what, value in (("exposure", series.exposure_s), ("period", series.period_s)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{what} of {name} is {value!r} s; give a positive number")
        chip = self._detector.chip if chip is None else chip
        chip.check(name)
        images = chip.images_per_exposure
        if series.num_frames % images:
            raise InputError(
                f"{series.num_frames} frames of {name} cannot be taken {images} at a time, one in"
                f" each storage cell; give a multiple of {images}"
            )
        if series.trigger == "step":
            self._check_step(images)
        shortest_s = chip.exposure_s(series.exposure_s)
        if series.period_s < shortest_s * (1 - 1e-9):
            raise InputError(
                f"period of {name} is {series.period_s:g} s; {images} exposures of"
                f" {series.exposure_s:g} s take {shortest_s:g} s"
            )

    def _check_step(self, images: int) -> None:
        name = self._detector.name
        if images > 1:
            raise InputError(
                f"{name} fills {images} storage cells with each trigger, a step scan takes one"
                " image per point; set extra_storage_cells to 0"
            )
        if "trigger_software" in self._absent:
            raise InputError(
                f"{name} has no software trigger ({self._absent['trigger_software']}), which a"
                " step scan needs; use another trigger"
            )

    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of all modules [pixel]."""
        return int(self._cam.size_y.get()), int(self._cam.size_x.get())

    def frame_dtype(self) -> str:
        """14 bits of ADC below 2 bits of gain."""
        return "<u2"

    # -- records

    def _put(self, name: str, value: Any) -> None:
        """Set a record, and see that the detector took it: a refusal shows in the readback."""
        signal = getattr(self._cam, name)
        signal.put(value, wait=True, timeout=_PUT_TIMEOUT_S)
        deadline = time.monotonic() + _PUT_TIMEOUT_S / 5
        while not _same(found := signal.get(use_monitor=False), value):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{self._detector.name} did not take {value!r} for {signal.setpoint_pvname}: it"
                    f" stays at {found!r}; see the log of its IOC"
                )
            time.sleep(_POLL_S)

    def command(self, text: str) -> None:
        """Send a command of slsDetectorPackage's command line, e.g. ``gainmode dynamic``.

        Raises
        ------
        InputError
            If the detector refuses it; its IOC's log says why.
        """
        signal = self._cam.command
        signal.put(text, wait=True, timeout=_PUT_TIMEOUT_S)
        # A refusal shows in nothing but the record's alarm.
        signal.get(use_monitor=False)
        if signal.alarm_severity == _INVALID:
            raise InputError(f"{self._detector.name} refuses {text!r}; the log of its IOC says why")

    # -- series

    def let_flow(self) -> None:
        """Stop, and have every image streamed."""
        self.disarm()
        self._await_idle()
        if "receiver_stream" not in self._absent:
            self._cam.receiver_stream.put("Enable", wait=True, timeout=_PUT_TIMEOUT_S)
        if "receiver_mode" not in self._absent:
            self._put("receiver_mode", 1)

    def begin_run(self) -> None:
        """Nothing: images are counted by series."""

    def prepare(self, series: FrameSeries) -> None:
        """Set timing, gain mode and storage cells."""
        self.disarm()
        self._await_idle()
        detector = self._detector
        exposures = series.num_frames // detector.images_per_exposure
        one_each = series.trigger in ("external", "step")
        self._put("image_mode", "Single")
        self._put("timing_mode", _TIMING[series.trigger])
        self._put("num_cycles", exposures if one_each else 1)
        self._put("num_frames", 1 if one_each else exposures)
        self._put("acquire_time", series.exposure_s)
        self._put("acquire_period", series.period_s)
        self._put("setting", detector.setting.get())
        self._forced = detector.gain_mode.get() != "dynamic"
        self.command(f"gainmode {detector.gain_mode.get()}")
        self._set_cells()
        self.command(f"nextframenumber {FIRST_FRAME}")
        self._waits_for_triggers = series.trigger != "internal"

    def _set_cells(self) -> None:
        detector = self._detector
        extra = int(detector.extra_storage_cells.get())
        try:
            self.command(f"extrastoragecells {extra}")
        except InputError:
            # Chips of version 1.1 refuse any number, and have none.
            if extra:
                raise
        self.command(f"storagecell_start {int(detector.storage_cell_start.get())}")
        if extra:
            delay_ns = round(float(detector.storage_cell_delay_s.get()) * 1e9)
            self.command(f"storagecell_delay {delay_ns}ns")

    def announce(self, ticket: SeriesTicket) -> None:
        """Nothing: slsReceiver numbers its acquisitions itself."""

    def arm(self) -> None:
        """Start the acquisition; ends when triggers count.

        Raises
        ------
        ServiceError
            If the detector does not start.
        """
        started = SubscriptionStatus(
            self._cam.detector_state,
            lambda *, value, **_: value in _EXPOSING,
            run=False,
            timeout=_PUT_TIMEOUT_S,
        )
        self._cam.acquire.put(1, wait=False)
        try:
            started.wait()
        except Exception as error:
            raise ServiceError(
                f"{self._detector.name} did not start within {_PUT_TIMEOUT_S:g} s; it is"
                f" {self._cam.detector_state.get()}"
            ) from error
        if self._waits_for_triggers:
            time.sleep(self._arming_time_s)

    def expose(self, *, timeout_s: float) -> None:
        """Send a software trigger; returns when its image was sent."""
        self._cam.trigger_software.put(1, wait=True, timeout=timeout_s)

    def disarm(self) -> None:
        """Stop detector and slsReceiver."""
        self._cam.acquire.put(0)

    def free_gain(self) -> None:
        """Let pixels choose their gain again, if a series had forced it."""
        if self._forced:
            self._await_idle()
            self.command("gainmode dynamic")
            self._forced = False

    def _await_idle(self) -> None:
        deadline = time.monotonic() + _PUT_TIMEOUT_S
        while self._cam.acquire.get(use_monitor=False) or (
            self._cam.detector_state.get(use_monitor=False) in _EXPOSING
        ):
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{self._detector.name} does not stop; it is {self._cam.detector_state.get()}"
                )
            time.sleep(_POLL_S)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float):
        return math.isclose(float(found), wanted, rel_tol=1e-6, abs_tol=_TICK_S)
    return bool(found == wanted)
