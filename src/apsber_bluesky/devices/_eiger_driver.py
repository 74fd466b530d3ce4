"""How an EIGER is set, armed and triggered through the records of ADEiger."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Final, Literal

from apsber_bluesky.core import InputError, SeriesTicket, ServiceError
from apsber_bluesky.devices._eiger_records import EigerRecords, pv_name
from apsber_bluesky.devices._requests import FrameSeries

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.02
_ARM_TIMEOUT_S: Final = 30.0
_END_TIMEOUT_S: Final = 5.0
_STATUS_TIMEOUT_S: Final = 5.0
# How long the error of the series before may still be shown.
_ERROR_LINGERS_S: Final = 0.5
_DTYPES: Final = {8: "|u1", 16: "<u2", 32: "<u4"}
_DTYPE_OF_NAME: Final = {"UInt8": "|u1", "UInt16": "<u2", "UInt32": "<u4"}
_COMPRESSIONS: Final = {"bslz4": "BS LZ4", "lz4": "LZ4", "none": "None"}
# Largest relative difference between an exposure time that was asked for and the one that is set.
_TIME_TOLERANCE: Final = 1e-3
_LARGEST_COUNT: Final = 2**31 - 1


class EigerDriver:
    """Drives the records of ADEiger; a `DetectorDriver`.

    Triggers: ``internal`` is DECTRIS' ints; ``external`` is exts with one image for each pulse;
    ``gate`` is exte; ``start`` is exts with one pulse for all images; ``step`` is ints, armed once,
    with a software trigger for each image.

    Parameters
    ----------
    name : str
        Name of the detector, for messages.
    records : EigerRecords
        Its records.
    stream : {1, 2}
        Legacy stream or Stream V2.
    compression : {"bslz4", "lz4", "none"}
        How frames are compressed.

    Attributes
    ----------
    dropped : int
        Images that the detector itself dropped in the last series.
    """

    arms_once = True

    def __init__(
        self,
        name: str,
        records: EigerRecords,
        *,
        stream: Literal[1, 2] = 2,
        compression: Literal["bslz4", "lz4", "none"] = "bslz4",
    ) -> None:
        self._name, self._records = name, records
        self._cam: Any = records.cam
        self._stream, self._compression = stream, compression
        self._exposure_s = 0.0
        self.dropped = 0

    def connect(self, timeout_s: float) -> None:
        """Wait for the records that scans need, and find out which of the others are missing.

        Raises
        ------
        TimeoutError
            If one that is needed does not connect.
        """
        self._records.connect(timeout_s)

    # -- what frames look like

    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of a frame [pixel]."""
        size = self._cam.array_size
        return int(size.array_size_y.get()), int(size.array_size_x.get())

    def frame_dtype(self) -> str:
        """NumPy dtype string of a frame; it follows from the exposure time."""
        bits = self._records.value("bit_depth")
        if bits is not None and int(bits) in _DTYPES:
            return _DTYPES[int(bits)]
        if self._records.lacks("data_type"):
            return "<u4"
        # The driver may hand on signed numbers; the stream has none.
        name = str(self._cam.data_type.get(as_string=True))
        return _DTYPE_OF_NAME.get(f"U{name}" if name.startswith("Int") else name, "<u4")

    # -- checks

    def check(self, series: FrameSeries) -> None:
        """Refuse what the detector cannot do.

        Raises
        ------
        InputError
            If a number is wrong.
        ServiceError
            If the detector is not initialised, or in error.
        """
        if not 1 <= series.num_frames <= _LARGEST_COUNT:
            raise InputError(
                f"{self._name} cannot take {series.num_frames} frames; give 1 to {_LARGEST_COUNT}"
            )
        if not (math.isfinite(series.exposure_s) and series.exposure_s > 0):
            raise InputError(
                f"{self._name} cannot expose for {series.exposure_s} s; give a positive time"
            )
        dead_s = float(self._records.value("dead_time") or 0.0)
        shortest_s = series.exposure_s + dead_s
        if series.trigger != "gate" and series.period_s < shortest_s * (1 - 1e-9):
            raise InputError(
                f"{self._name} needs {shortest_s:.6g} s from one exposure of"
                f" {series.exposure_s:.6g} s to the next, not {series.period_s:.6g} s; give a"
                " longer period or a shorter exposure"
            )
        self._check_state()

    def _check_state(self) -> None:
        state = self._records.value("state")
        if state == "na":
            raise ServiceError(
                f"{self._name} is not initialised; set {pv_name(self._cam.initialize)} to 1 and"
                " wait until its state is 'idle'"
            )
        if state == "error":
            raise ServiceError(
                f"{self._name} is in error: {self._cam.status_message.get(as_string=True)}; restart"
                " and initialise it"
            )

    # -- series

    def let_flow(self) -> None:
        """Stop what is being exposed and have the stream go to the receiver alone.

        Raises
        ------
        ServiceError
            If the stream cannot be enabled.
        """
        self._cam.acquire.put(0, wait=True)
        if self._cam.data_source.get() == "Stream":
            # Two that pull from one port share its images between them.
            logger.warning(
                "%s: DataSource was 'Stream', with which the IOC itself takes every second image;"
                " it is set to 'None'",
                self._name,
            )
            self._records.put("data_source", "None")
        self._records.put("stream_version", "Stream2" if self._stream == 2 else "Stream")
        self._records.put("stream_header", "Basic")
        self._records.put("compression", _COMPRESSIONS[self._compression])
        self._records.put("stream_enable", "Enable")
        self._check_stream()

    def _check_stream(self) -> None:
        if self._cam.stream_enable.get() != "Enable":
            raise ServiceError(
                f"the stream of {self._name} is disabled; set"
                f" {pv_name(self._cam.stream_enable)} to 'Enable'"
            )

    def begin_run(self) -> None:
        """Forget what the run before dropped."""
        self.dropped = 0

    def prepare(self, series: FrameSeries) -> None:
        """Set trigger, times and number of frames.

        Raises
        ------
        ServiceError
            If the detector does not come to rest, or takes another exposure time.
        """
        self.await_end()
        modes = {"external": "External Series", "start": "External Series", "gate": None}
        mode = modes.get(series.trigger, "Internal Series") or "External Enable"
        shared = series.trigger in ("internal", "start")
        # The mode first: the enable modes set the number of images.
        self._records.put("trigger_mode", mode)
        self._records.put("manual_trigger", "Enable" if series.trigger == "step" else "Disable")
        self._records.put("num_images", series.num_frames if shared else 1)
        self._records.put("num_triggers", 1 if shared else series.num_frames)
        # The time first: the detector makes a period that is too short for it longer.
        dead_s = float(self._records.value("dead_time") or 0.0)
        self._records.put("acquire_time", series.exposure_s)
        self._records.put(
            "acquire_period", series.period_s if shared else series.exposure_s + dead_s
        )
        self._exposure_s = float(self._cam.acquire_time.get())
        if abs(self._exposure_s - series.exposure_s) > _TIME_TOLERANCE * series.exposure_s:
            raise ServiceError(
                f"{self._name} took {self._exposure_s:.6g} s for an exposure time of"
                f" {series.exposure_s:.6g} s; give one that it can do"
            )

    def announce(self, ticket: SeriesTicket) -> None:
        """Nothing: the detector counts its series itself."""

    def arm(self) -> None:
        """Arm the detector; returns when it accepts triggers, or exposes.

        Raises
        ------
        ServiceError
            If it does not arm; the message has what the driver says.
        """
        self._check_stream()
        before = self._records.value("sequence_id")
        self._cam.acquire.put(1, wait=False)
        began = time.monotonic()
        while (passed_s := time.monotonic() - began) < _ARM_TIMEOUT_S:
            # A short series may have ended before it is looked at; its number has grown.
            if self._cam.armed.get() == 1 or self._records.value("sequence_id") != before:
                return
            state = self._cam.detector_state.get(as_string=True)
            if state == "Error" and passed_s > _ERROR_LINGERS_S:
                break
            time.sleep(_POLL_S)
        said = self._cam.status_message.get(as_string=True)
        self._check_state()
        raise ServiceError(
            f"{self._name} did not arm: {said!r}; look at its IOC, initialise it if need be"
        )

    def expose(self, *, timeout_s: float) -> None:
        """Give one software trigger; returns when the frame is exposed."""
        self._cam.software_trigger.put(1, wait=True, timeout=timeout_s)
        time.sleep(self._exposure_s)

    def disarm(self) -> None:
        """Stop exposing; what was exposed still comes."""
        self._cam.acquire.put(0)

    def await_end(self) -> None:
        """Wait until the detector has disarmed itself; one that does not is stopped.

        Raises
        ------
        ServiceError
            If it cannot be stopped either.
        """
        for _ in range(2):
            deadline = time.monotonic() + _END_TIMEOUT_S
            while time.monotonic() < deadline:
                if not self._cam.acquire.get() and not self._cam.armed.get():
                    return
                time.sleep(_POLL_S)
            self._cam.acquire.put(0)
        raise ServiceError(f"{self._name} does not stop acquiring; look at its IOC")

    @property
    def counts_drops(self) -> bool:
        """Whether the IOC says how many images the detector dropped."""
        return not (self._records.lacks("read_status") or self._records.lacks("stream_dropped"))

    def report_drops(self) -> int:
        """Ask how many images of the series the detector itself dropped, and warn of them."""
        if not self.counts_drops:
            return 0
        # The driver asks the detector only at rest and when it is told to.
        self.await_end()
        self._cam.read_status.put(1, wait=True, timeout=_STATUS_TIMEOUT_S)
        dropped = int(self._cam.stream_dropped.get())
        self.dropped += dropped
        if dropped:
            logger.warning(
                "%s dropped %d images of the series (%s): its memory was full, for the receiver or"
                " the network was too slow; take fewer frames per second, or smaller ones",
                self._name,
                dropped,
                pv_name(self._cam.stream_dropped),
            )
        return dropped
