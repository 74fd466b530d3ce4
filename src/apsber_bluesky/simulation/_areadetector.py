"""The process variables of an areaDetector, taken from ophyd's own classes.

Each class knows the names of its records and, in its documentation, most of their types; what it
does not say is in the tables here, from the ADCore 3.x database templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ophyd import DynamicDeviceComponent, EpicsSignal, EpicsSignalRO
from ophyd.areadetector.base import EpicsSignalWithRBV
from ophyd.areadetector.paths import EpicsPathSignal

from apsber_bluesky.simulation import _channels as ca

DATA_TYPES = {
    "i1": "Int8", "u1": "UInt8", "i2": "Int16", "u2": "UInt16", "i4": "Int32", "u4": "UInt32",
    "i8": "Int64", "u8": "UInt64", "f4": "Float32", "f8": "Float64",
}  # fmt: skip
_NO_YES = ("No", "Yes")
_ENABLE = ("Disable", "Enable")
_OPEN = ("Closed", "Open")
_CHOICES: dict[str, tuple[str, ...]] = {
    "Acquire": ("Done", "Acquire"),
    "Acquire_RBV": ("Done", "Acquiring"),
    "ArrayCallbacks": _ENABLE,
    "BayerPattern_RBV": ("RGGB", "GBRG", "GRBG", "BGGR"),
    "Capture": ("Done", "Capture"),
    "Capture_RBV": ("Done", "Capturing"),
    "ColorMode": ("Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV421"),
    "DataType": tuple(DATA_TYPES.values()),
    "DetectorState_RBV": (
        "Idle", "Acquire", "Readout", "Correct", "Saving", "Aborting", "Error", "Waiting",
        "Initializing", "Disconnected", "Aborted",
    ),
    "EmptyFreeList": ("Done", "Empty"),
    "EnableCallbacks": _ENABLE,
    "FileFormat": ("HDF5",),
    "FilePathExists_RBV": _NO_YES,
    "FileWriteMode": ("Single", "Capture", "Stream"),
    "FrameType": ("Normal", "Background", "FlatField", "DblCorrelation"),
    "ImageMode": ("Single", "Multiple", "Continuous"),
    "NumExtraDims": tuple(str(number) for number in range(10)),
    "ProcessPlugin": ("Done", "Process"),
    "ReadFile": ("Done", "Read"),
    "ReadStatus": ("Done", "Read"),
    "ReverseX": _NO_YES,
    "ReverseY": _NO_YES,
    "ShutterControl": ("Close", "Open"),
    "ShutterControlEPICS": ("Close", "Open"),
    "ShutterMode": ("None", "EPICS PV", "Detector output"),
    "ShutterStatusEPICS_RBV": _OPEN,
    "ShutterStatus_RBV": _OPEN,
    "SimMode": ("LinearRamp", "Peaks", "Sine", "Offset&Noise"),
    "TriggerMode": ("Internal", "External"),
    "WriteFile": ("Done", "Write"),
    "WriteFile_RBV": ("Done", "Writing"),
    "WriteStatus": ("Write OK", "Write error"),
}  # fmt: skip
_REAL_RECORDS = frozenset(("ai", "ao", "calc", "calcout"))
_CHOICE_RECORDS = frozenset(("bi", "bo", "busy"))
_REAL = re.compile(
    r"Gain|PeakS|Temperature|SortTime|MaxArrayRate|MaxByteRate|ExecutionTime|FillValue|RunTime"
)
_TEXT = re.compile(
    r"ADCoreVersion|DriverVersion|ExtraDimName|NDAttributesMacros|PosNameDim|PosIndexDim|PvName"
    r"|TempSuffix|XMLErrorMsg"
)
# "0=None 1=N-bit", "0='No' 1='Yes'": the choices as the classes' documentation lists them.
_LISTED = re.compile(r"\b\d+=('[^']*'|[^\s']+)")
_NUM_DIMENSIONS = 10


def areadetector_channels(prefix: str, device_class: Any) -> dict[str, Any]:
    """Make all channels that an ophyd areaDetector class connects to.

    Parameters
    ----------
    prefix : str
        PV prefix of the camera or plugin.
    device_class : type
        Class such as ``ophyd.areadetector.plugins.HDF5Plugin_V34``.

    Returns
    -------
    dict of str to channel
        PV name -> channel. Readbacks (``_RBV``) are read-only and follow their setpoints.
    """
    channels: dict[str, Any] = {}
    for name, signal_class, component, documentation in _signals(device_class):
        if issubclass(signal_class, (EpicsSignalWithRBV, EpicsPathSignal)):
            setpoint = _make(name, component, documentation)
            readback = ca.read_only(_make(f"{name}_RBV", component, documentation))
            channels[f"{prefix}{name}"] = setpoint
            channels[f"{prefix}{name}_RBV"] = readback
            ca.follow(setpoint, readback)
            continue
        channel = channels.setdefault(f"{prefix}{name}", _make(name, component, documentation))
        if not issubclass(signal_class, EpicsSignal):
            ca.read_only(channel)
    return channels


def _signals(device_class: Any) -> Iterator[tuple[str, Any, Any, str]]:
    """Name, signal class, component and documentation of each signal of a class."""
    for attribute in device_class.component_names:
        component = getattr(device_class, attribute)
        if isinstance(component, DynamicDeviceComponent):
            for signal_class, name, _ in component.defn.values():
                yield name, signal_class, component, _documentation(name, device_class)
        elif component.suffix and issubclass(component.cls, (EpicsSignal, EpicsSignalRO)):
            name = component.suffix
            yield name, component.cls, component, _documentation(name, device_class, component)


def _documentation(name: str, device_class: Any, component: Any = None) -> str:
    """What ophyd says about a record: its own words, then areaDetector's table of records."""
    words = getattr(component, "doc", None) or ""
    for base in device_class.__mro__:
        for page in getattr(base, "_html_docs", ()):
            table = _pages().get(page, {})
            for key in (name, name.removesuffix("_RBV")):
                if key in table:
                    return f"{words}\n{table[key]}"
    return str(words)


def _pages() -> dict[str, dict[str, str]]:
    from ophyd.areadetector import docs

    pages: dict[str, dict[str, str]] = docs.docs
    return pages


def _make(name: str, component: Any, documentation: str) -> Any:
    base = name.removesuffix("_RBV")
    strings = _CHOICES.get(name) or _CHOICES.get(base) or _listed_choices(documentation)
    if strings:
        return ca.choice(strings)
    found = re.search(r"\[\S+ r/\w (\w+)\]", documentation)
    record = found.group(1) if found else ""
    if base == "Dimensions":
        return ca.integer([0] * _NUM_DIMENSIONS, max_length=_NUM_DIMENSIONS)
    if record == "waveform" or base in ("FilePath", "WriteMessage"):
        return ca.long_text()
    if record in ("stringin", "stringout") or _TEXT.match(base):
        return ca.text()
    if record in _REAL_RECORDS or _REAL.match(base):
        return ca.double()
    if record in _CHOICE_RECORDS:
        return ca.choice(_NO_YES)
    return ca.integer()


def _listed_choices(documentation: str) -> tuple[str, ...]:
    first = documentation.split("\n[", 1)[0]
    found = [match.strip("'") for match in _LISTED.findall(first)]
    return tuple(string.rstrip(",.") for string in found) if len(found) > 1 else ()
