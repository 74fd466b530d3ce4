"""The records of ADEiger, and which of them an IOC has."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from ophyd import EpicsSignal, EpicsSignalRO
from ophyd.areadetector.base import ADComponent as ADCpt
from ophyd.areadetector.base import EpicsSignalWithRBV
from ophyd.areadetector.cam import CamBase

from apsber_bluesky.core import ServiceError

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.02
_RECONNECT_TIMEOUT_S: Final = 2.0
# Records that exist connect within this time of each other.
_QUIET_S: Final = 1.0
_USED: Final = (
    "acquire",
    "acquire_period",
    "acquire_time",
    "armed",
    "array_size.array_size_x",
    "array_size.array_size_y",
    "data_source",
    "detector_state",
    "manual_trigger",
    "num_images",
    "num_triggers",
    "software_trigger",
    "status_message",
    "stream_enable",
    "trigger_mode",
)
#: Records that some IOCs lack, and what is done without them.
_OPTIONAL: Final = {
    "beam_x": "the beam centre is not recorded",
    "beam_y": "the beam centre is not recorded",
    "bit_depth": "the pixel type is taken from DataType_RBV",
    "compression": "the compression stays as it is",
    "data_type": "pixels are taken to be uint32 where BitDepthImage_RBV is missing, too",
    "dead_time": "no dead time is added to the exposure time",
    "description": "the model is not recorded",
    "detector_distance": "the distance is not recorded",
    "photon_energy": "the photon energy is not recorded and cannot be checked",
    "read_status": "images that the detector drops cannot be counted",
    "sensor_material": "the sensor is not recorded",
    "sensor_thickness": "the sensor is not recorded",
    "sequence_id": "the detector's number of the series is not looked at",
    "serial_number": "the serial number is not recorded",
    "state": "a detector that is not initialised is noticed only when it is armed",
    "stream_dropped": "images that the detector drops cannot be counted",
    "stream_header": "the detail of the stream's header stays as it is",
    "stream_version": "the stream is the legacy one (streaming format eiger1)",
    "threshold2_enable": "there is one threshold",
    "threshold2_energy": "there is one threshold",
    "threshold_energy": "the threshold is not recorded",
    "x_pixel_size": "the pixel size is not known unless the profile gives pixel_size_um",
}
#: What belongs to the configuration of a run where the IOC has it.
_CONFIGURATION: Final = (
    "acquire_time",
    "acquire_period",
    "trigger_mode",
    "num_images",
    "num_triggers",
    "photon_energy",
    "threshold_energy",
    "detector_distance",
    "beam_x",
    "beam_y",
    "bit_depth",
    "compression",
    "stream_version",
    "description",
    "serial_number",
)


class EigerCam(CamBase):
    """The records of ADEiger that scans use; ophyd connects each when it is first used.

    Records of ADEiger 3-6 (2026), `eigerBase.template` and `eiger2.template`. Which of them an IOC
    has depends on the detector and on the age of the IOC.
    """

    # Records that do not exist would be waited for one by one; the driver waits for all together.
    lazy_wait_for_connection = False

    pool_max_buffers = None
    trigger_mode = ADCpt(EpicsSignalWithRBV, "TriggerMode", string=True)
    num_triggers = ADCpt(EpicsSignalWithRBV, "NumTriggers")
    manual_trigger = ADCpt(EpicsSignalWithRBV, "ManualTrigger", string=True)
    software_trigger = ADCpt(EpicsSignal, "Trigger")
    armed = ADCpt(EpicsSignalRO, "Armed")
    sequence_id = ADCpt(EpicsSignalRO, "SequenceId")
    state = ADCpt(EpicsSignalRO, "State_RBV", string=True)
    initialize = ADCpt(EpicsSignal, "Initialize")
    bit_depth = ADCpt(EpicsSignalRO, "BitDepthImage_RBV")
    dead_time = ADCpt(EpicsSignalRO, "DeadTime_RBV")
    description = ADCpt(EpicsSignalRO, "Description_RBV", string=True)
    serial_number = ADCpt(EpicsSignalRO, "SerialNumber_RBV", string=True)
    sensor_material = ADCpt(EpicsSignalRO, "SensorMaterial_RBV", string=True)
    sensor_thickness = ADCpt(EpicsSignalRO, "SensorThickness_RBV")
    x_pixel_size = ADCpt(EpicsSignalRO, "XPixelSize_RBV")
    photon_energy = ADCpt(EpicsSignalWithRBV, "PhotonEnergy")
    threshold_energy = ADCpt(EpicsSignalWithRBV, "ThresholdEnergy")
    threshold2_energy = ADCpt(EpicsSignalWithRBV, "Threshold2Energy")
    threshold2_enable = ADCpt(EpicsSignalWithRBV, "Threshold2Enable", string=True)
    beam_x = ADCpt(EpicsSignalWithRBV, "BeamX")
    beam_y = ADCpt(EpicsSignalWithRBV, "BeamY")
    detector_distance = ADCpt(EpicsSignalWithRBV, "DetDist")
    wavelength = ADCpt(EpicsSignalWithRBV, "Wavelength")
    data_source = ADCpt(EpicsSignalWithRBV, "DataSource", string=True)
    compression = ADCpt(EpicsSignalWithRBV, "CompressionAlgo", string=True)
    stream_enable = ADCpt(EpicsSignalWithRBV, "StreamEnable", string=True)
    stream_version = ADCpt(EpicsSignalWithRBV, "StreamVersion", string=True)
    stream_header = ADCpt(EpicsSignalWithRBV, "StreamHdrDetail", string=True)
    stream_dropped = ADCpt(EpicsSignalRO, "StreamDropped_RBV")
    read_status = ADCpt(EpicsSignal, "ReadStatus")


class EigerRecords:
    """The records of one EIGER, of which an IOC may lack some.

    Parameters
    ----------
    name : str
        Name of the detector, for messages.
    cam : EigerCam
        Its records.

    Attributes
    ----------
    missing : frozenset of str
        Optional records that did not connect.
    """

    def __init__(self, name: str, cam: EigerCam) -> None:
        self._name, self.cam = name, cam
        self._connected = False
        self.missing: frozenset[str] = frozenset()
        cam.array_size.lazy_wait_for_connection = False
        # Made now, they connect while other devices are waited for.
        for path in (*_USED, *_OPTIONAL):
            self._signal(path)

    def connect(self, timeout_s: float) -> None:
        """Wait for the records that scans need, and find out which of the others are missing.

        Raises
        ------
        TimeoutError
            If one that is needed does not connect.
        """
        for path in _USED:
            self._signal(path).wait_for_connection(timeout=timeout_s)
        signals = {name: self._signal(name) for name in _OPTIONAL}
        missing = _never_connecting(signals)
        if missing - self.missing:
            told = "; ".join(
                f"{pv_name(signals[name])}: {_OPTIONAL[name]}" for name in sorted(missing)
            )
            logger.warning("%s: the IOC lacks some records: %s", self._name, told)
        self.missing, self._connected = missing, True

    def _signal(self, path: str) -> Any:
        found = self.cam
        for part in path.split("."):
            found = getattr(found, part)
        return found

    def value(self, name: str) -> Any:
        """What a record says; None if the IOC does not have it.

        Raises
        ------
        ServiceError
            If the detector does not connect.
        """
        if not self._connected:
            try:
                self.connect(_RECONNECT_TIMEOUT_S)
            except TimeoutError as error:
                raise ServiceError(
                    f"{self._name} is not connected: {error}; start its IOC, or correct its prefix"
                ) from error
        return None if self.lacks(name) else self._signal(name).get()

    def lacks(self, name: str) -> bool:
        """Whether the IOC does not have a record."""
        # One that was late, on a busy network, is there now.
        return name in self.missing and not self._signal(name).connected

    def put(self, name: str, value: Any) -> None:
        """Set a record, unless the IOC does not have it, and wait until it is set."""
        if not self.lacks(name):
            self._signal(name).put(value, wait=True)

    @property
    def configuration(self) -> list[str]:
        """Records that belong to the configuration of a run."""
        return [name for name in _CONFIGURATION if not self.lacks(name)]


def _never_connecting(signals: dict[str, Any]) -> frozenset[str]:
    """Names of the signals that do not connect while others do, nor for a while after."""
    waiting, changed = set(signals), time.monotonic()
    while waiting and time.monotonic() < changed + _QUIET_S:
        came = {name for name in waiting if signals[name].connected}
        if came:
            waiting, changed = waiting - came, time.monotonic()
        time.sleep(_POLL_S)
    return frozenset(waiting)


def pv_name(signal: Any) -> str:
    """Name of the record that a signal writes to, or reads."""
    return str(getattr(signal, "setpoint_pvname", None) or signal.pvname)
