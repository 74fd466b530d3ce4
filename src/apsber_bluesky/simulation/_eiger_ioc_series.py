"""What a simulated EIGER takes from its records when it is armed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.simulation import _eiger_series as wire
from apsber_bluesky.simulation._eiger_ioc_sensor import Counting, EigerSensor
from apsber_bluesky.simulation._eiger_series import EigerConditions, EigerSeries, ImageForm

#: DECTRIS' names of the trigger modes that are simulated.
MODES: Final = {
    "Internal Series": "ints",
    "Internal Enable": "inte",
    "External Series": "exts",
    "External Enable": "exte",
}
_DTYPES: Final = {8: "|u1", 16: "<u2", 32: "<u4"}
_CODECS: Final[dict[str, Literal["none", "bslz4", "lz4"]]] = {
    "LZ4": "lz4",
    "BS LZ4": "bslz4",
    "None": "none",
}
_DETAILS: Final[dict[str, Literal["none", "basic", "all"]]] = {
    "None": "none",
    "Basic": "basic",
    "All": "all",
}
_CHANNELS: Final = {
    "Threshold1Enable": "threshold_1",
    "Threshold2Enable": "threshold_2",
    "ThresholdDiffEnable": "difference",
}
_WRITERS: Final = {
    1: (wire.start_message1, wire.image_message1, wire.end_message1),
    2: (wire.start_message2, wire.image_message2, wire.end_message2),
}


@dataclass(frozen=True)
class ArmedSeries:
    """A series from arming to disarming.

    Attributes
    ----------
    version : {1, 2}
        Legacy stream or Stream V2.
    series : EigerSeries
        What its header says.
    counting : Counting
        How its images are counted, but for exposures that are given with each trigger.
    images_per_trigger, num_triggers : int
        How its images are shared out.
    by_software : bool
        Whether its triggers come from the record ``Trigger``.
    """

    version: Literal[1, 2]
    series: EigerSeries
    counting: Counting
    images_per_trigger: int
    num_triggers: int
    by_software: bool

    @property
    def mode(self) -> str:
        """DECTRIS' name of the trigger mode."""
        return self.series.conditions.trigger_mode

    def start(self) -> list[bytes]:
        """The message that leaves when the detector is armed."""
        return _WRITERS[self.version][0](self.series)

    def image(self, image_id: int, images: list[NDArray[Any]], time_s: float) -> list[bytes]:
        """The message of one image that began at a time (Unix) [s]."""
        begins_s = max(time_s - self.series.began.timestamp(), 0.0)
        form = ImageForm(self.series.dtype, begins_s=begins_s)
        return _WRITERS[self.version][1](self.series, image_id, images, form)

    def end(self) -> list[bytes]:
        """The message that leaves when the detector is disarmed."""
        return _WRITERS[self.version][2](self.series)


def armed_series(
    readback: Callable[[str], Any], sensor: EigerSensor, number: int, version: Literal[1, 2]
) -> ArmedSeries:
    """The series that the records ask for.

    Parameters
    ----------
    readback : callable
        Gives the value of a readback, by the name of its record without ``_RBV``.
    sensor : EigerSensor
        Size and mask.
    number : int
        Number of the series.
    version : {1, 2}
        Legacy stream or Stream V2.
    """
    mode = MODES[readback("TriggerMode")]
    images = 1 if mode in ("inte", "exte") else int(readback("NumImages"))
    triggers = int(readback("NumTriggers"))
    second_eV = float(readback("Threshold2Energy")) if version == 2 else 0.0
    counting = Counting(
        exposure_s=float(readback("AcquireTime")),
        dtype=_DTYPES[readback("BitDepthImage")],
        channels=_channels(readback) if version == 2 else ("",),
        thresholds_eV=(float(readback("ThresholdEnergy")), second_eV),
    )
    series = EigerSeries(
        series_id=number,
        num_images=images * triggers,
        rows=sensor.geometry.rows,
        columns=sensor.geometry.columns,
        dtype=counting.dtype,
        channels=counting.channels,
        codec=_CODECS[readback("CompressionAlgo")],
        header_detail=_DETAILS[readback("StreamHdrDetail")],
        frame_time_s=float(readback("AcquirePeriod")),
        began=datetime.now(UTC),
        header_appendix=readback("StreamHdrAppendix") or None,
        image_appendix=readback("StreamImgAppendix") or None,
        conditions=_conditions(readback, mode, triggers),
        pixel_mask=sensor.mask.astype(np.uint32),
    )
    by_software = readback("ManualTrigger") == "Enable"
    return ArmedSeries(version, series, counting, images, triggers, by_software)


def _conditions(readback: Callable[[str], Any], mode: str, triggers: int) -> EigerConditions:
    return EigerConditions(
        photon_energy_eV=float(readback("PhotonEnergy")),
        threshold_eV=float(readback("ThresholdEnergy")),
        distance_m=float(readback("DetDist")),
        pixel_size_m=float(readback("XPixelSize")),
        beam_centre_px=(float(readback("BeamY")), float(readback("BeamX"))),
        count_time_s=float(readback("AcquireTime")),
        trigger_mode=mode,
        num_triggers=triggers,
        description=str(readback("Description")),
        serial_number=str(readback("SerialNumber")),
    )


def _channels(readback: Callable[[str], Any]) -> tuple[str, ...]:
    enabled = [name for record, name in _CHANNELS.items() if readback(record) == "Enable"]
    # A detector that was told to count nothing counts with its first threshold.
    return tuple(enabled) or ("threshold_1",)
