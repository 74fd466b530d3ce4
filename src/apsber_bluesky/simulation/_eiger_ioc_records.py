"""The records of the ADEiger driver, release 3-6 (2026), as its database templates have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from ophyd.areadetector.cam import EigerDetectorCam

from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._areadetector import areadetector_channels

Generation = Literal[1, 2]

_SWITCH: Final = ("Disable", "Enable")
_TRIGGER_MODES: Final = (
    "Internal Series",
    "Internal Enable",
    "External Series",
    "External Enable",
    "Continuous",
)
# Setpoints with readbacks: eigerBase.template, then what either generation has for itself.
_REAL: Final = {
    "PhotonEnergy": "eV", "ThresholdEnergy": "eV", "Wavelength": "Angstroms", "DetDist": "m",
    "BeamX": "pixels", "BeamY": "pixels", "MonitorTimeout": "ms", "FilePerms": "",
    "WavelengthEps": "Angstroms", "EnergyEps": "eV",
    **{f"{axis}{end}": "deg" for axis in ("Chi", "Kappa", "Omega", "Phi", "TwoTheta")
       for end in ("Start", "Incr")},
}  # fmt: skip
_SWITCHES: Final = (
    "ManualTrigger", "FlatfieldApplied", "CountrateCorrApplied", "PixelMaskApplied",
    "AutoSummation", "FWEnable", "FWCompression", "FWAutoRemove", "SaveFiles", "StreamEnable",
    "StreamDecompress", "MonitorEnable",
)  # fmt: skip
_CHOICES: Final = {
    "DataSource": ("None", "FileWriter", "Stream"),
    "ROIMode": ("Disable", "4M"),
    "SignedData": ("Unsigned", "Signed"),
}
_LONG_TEXTS: Final = ("FWNamePattern", "StreamHdrAppendix", "StreamImgAppendix")
_TEXTS: Final = ("FileOwner", "FileOwnerGrp")
_READ_REAL: Final = (
    "SensorThickness", "XPixelSize", "YPixelSize", "Temp0", "Humid0", "DeadTime", "FWFree",
)  # fmt: skip
_READ_TEXT: Final = (
    "Description", "SensorMaterial", "State", "Error", "FWState", "StreamState", "MonitorState",
    "SerialNumber", "FirmwareVersion", "SDKVersion", "DriverVersion", "ADCoreVersion",
)  # fmt: skip
_READ_INTEGER: Final = ("CountCutoff", "BitDepthImage", "StreamDropped")
#: What ophyd still lists and no template has, or only that of the other generation.
_GONE: Final[dict[Generation, tuple[str, ...]]] = {
    1: ("TriggerExposure",),
    2: (
        "TriggerExposure", "FWClear", "DCUBufferFree",
        *(f"Link{number}" for number in range(4)),
    ),
}  # fmt: skip


def eiger_channels(prefix: str, generation: Generation) -> dict[str, Any]:
    """Make every channel of an ADEiger IOC.

    Parameters
    ----------
    prefix : str
        PV prefix of the driver, e.g. ``"S123:eiger:cam1:"``.
    generation : {1, 2}
        EIGER or EIGER2: they differ in several records, and in the order of `StreamHdrDetail`.

    Returns
    -------
    dict of str to channel
        PV name -> channel. Readbacks are read-only and follow their setpoints.
    """
    channels = areadetector_channels(prefix, EigerDetectorCam)
    for name in _GONE[generation]:
        for gone in (f"{prefix}{name}", f"{prefix}{name}_RBV"):
            channels.pop(gone, None)

    def both(name: str, make: Any) -> None:
        setpoint, readback = make(), ca.read_only(make())
        channels[f"{prefix}{name}"], channels[f"{prefix}{name}_RBV"] = setpoint, readback
        ca.follow(setpoint, readback)

    def switch(strings: Sequence[str]) -> Any:
        return lambda: ca.choice(strings)

    for name, units in _REAL.items():
        both(name, lambda units=units: ca.double(units=units))
    for name in _SWITCHES:
        both(name, switch(_SWITCH))
    for name, strings in (_CHOICES | _own_choices(generation)).items():
        both(name, switch(strings))
    for name in _LONG_TEXTS:
        both(name, ca.long_text)
    for name in _TEXTS:
        both(name, ca.text)
    both("NumTriggers", lambda: ca.integer(1))
    for name in _READ_REAL:
        channels[f"{prefix}{name}_RBV"] = ca.read_only(ca.double())
    for name in _READ_TEXT:
        channels[f"{prefix}{name}_RBV"] = ca.read_only(ca.text())
    for name in _READ_INTEGER:
        channels[f"{prefix}{name}_RBV"] = ca.read_only(ca.integer())
    channels[f"{prefix}SequenceId"] = ca.read_only(ca.integer())
    channels[f"{prefix}Armed"] = ca.read_only(ca.choice(("Unarmed", "Armed")))
    channels[f"{prefix}Trigger"] = ca.double()
    channels[f"{prefix}Initialize"] = ca.choice(("Done", "Initialize"))
    channels[f"{prefix}Restart"] = ca.choice(("Done", "Restart"))
    if generation == 2:
        both("TriggerStartDelay", lambda: ca.double(units="s"))
        both("Threshold2Energy", lambda: ca.double(units="eV"))
        both("HVResetTime", lambda: ca.double(units="s"))
        channels[f"{prefix}HVReset"] = ca.choice(("Done", "Reset"))
        channels[f"{prefix}HVState_RBV"] = ca.read_only(ca.text("READY"))
    return channels


def _own_choices(generation: Generation) -> dict[str, tuple[str, ...]]:
    if generation == 1:
        return {
            "TriggerMode": _TRIGGER_MODES,
            "CompressionAlgo": ("LZ4", "BS LZ4"),
            "StreamHdrDetail": ("All", "Basic", "None"),
        }
    switches = ("Threshold1Enable", "Threshold2Enable", "ThresholdDiffEnable")
    return {
        **dict.fromkeys(switches, _SWITCH),
        "TriggerMode": (*_TRIGGER_MODES, "External Gate"),
        "ExtGateMode": ("HDR", "Pump & Probe"),
        "CountingMode": ("Normal", "Retrigger"),
        "CompressionAlgo": ("LZ4", "BS LZ4", "None"),
        "StreamVersion": ("Stream", "Stream2"),
        "StreamHdrDetail": ("None", "Basic", "All"),
        "StreamAsTSSource": ("No", "Yes"),
        "FWHDF5Format": ("Legacy", "v2024.2"),
    }
