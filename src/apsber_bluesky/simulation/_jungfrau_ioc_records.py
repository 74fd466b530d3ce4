"""The records of PSI's slsDetector driver for areaDetector, as a Jungfrau has them.

Names and choices are those of slsDetector.template (slsDetector 9.2.0, 2025-06-05) on top of
ADBase; those of files and of other detectors (thresholds, gates, counters) are left out.
"""

from __future__ import annotations

from typing import Any, Final

from ophyd.areadetector.cam import CamBase

from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._areadetector import areadetector_channels
from apsber_bluesky.simulation._jungfrau_ioc_sensor import SETTINGS

#: What the detector and slsReceiver say of themselves.
STATES: Final = ("Idle", "Error", "Waiting", "Finished", "Transmitting", "Running", "Stopped")
TIMING_MODES: Final = ("auto", "trigger")

_TYPES: Final = (
    "GENERIC", "EIGER", "GOTTHARD", "JUNGFRAU", "CHIPTEST", "MOENCH", "MYTHEN3", "GOTTHARD2",
)  # fmt: skip


def jungfrau_channels(prefix: str) -> dict[str, Any]:
    """Make the channels of a Jungfrau's IOC.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:jungfrau:cam1:"``.

    Returns
    -------
    dict of str to channel
        PV name -> channel. Readbacks (``_RBV``) are read-only.
    """
    base = areadetector_channels(prefix, CamBase)
    pairs: dict[str, tuple[Any, Any]] = {
        "Setting": (ca.choice(SETTINGS), ca.choice(SETTINGS)),
        "TimingMode": (ca.choice(TIMING_MODES), ca.choice(TIMING_MODES)),
        "DelayTime": (ca.double(units="s", precision=6), ca.double(units="s", precision=6)),
        "BitDepth": (ca.integer(16), ca.integer(16)),
        "NumCycles": (ca.integer(1), ca.integer(1)),
        "NumFrames": (ca.integer(1), ca.integer(1)),
        "ReceiverMode": (ca.integer(1), ca.integer(1)),
        "ReceiverStream": (ca.choice(("Disable", "Enable")), ca.choice(("Disabled", "Enabled"))),
        "HighVoltage": (ca.integer(180), ca.integer(180)),
        "UseDataCallback": (ca.integer(1), ca.integer(1)),
    }
    own: dict[str, Any] = {
        "DetectorType_RBV": ca.read_only(ca.choice(_TYPES, "JUNGFRAU")),
        "DetectorState_RBV": ca.read_only(ca.choice(STATES)),
        "ReceiverState_RBV": ca.read_only(ca.choice(STATES)),
        "ReceiverMissedPackets_RBV": ca.read_only(ca.integer()),
        "TriggerSoftware": ca.choice(("Off", "On")),
        "Command": ca.long_text(),
        # Of the simulation alone: the module (row by row) whose slsReceiver is dead, or -1.
        "SimulateSilentModule": ca.integer(-1),
    }
    for name, (setpoint, readback) in pairs.items():
        own |= {name: setpoint, f"{name}_RBV": ca.read_only(readback)}
    return base | {f"{prefix}{name}": channel for name, channel in own.items()}
