"""The records of the Xspress3 driver for areaDetector.

Names and choices of ``det1:`` are those of xspress3.template on top of ADBase, those of the
channels of xspress3ChannelDeadtime.template and of NDAttributeN.template as DefineSCAROI.cmd loads
it (epics-modules/xspress3). The last two trigger modes are in Quantum Detectors' documentation
(counting_modes.rst) and not in that template. Regions of interest and files are left out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from ophyd.areadetector.cam import CamBase

from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._areadetector import areadetector_channels

TRIGGER_MODES: Final = (
    "Software", "Internal", "IDC", "TTL Veto Only", "TTL Both", "LVDS Veto Only", "LVDS Both",
    "Software + Internal", "TTL + Internal",
)  # fmt: skip
#: Ticks of the hardware's clock in a second.
TICKS_S: Final = 80e6
#: What the scalers of a channel count; the last three are not the hardware's.
SCALERS: Final = (
    "clock ticks", "reset ticks", "resets", "all events", "good events", "window 1", "window 2",
    "pile-up", "event width", "dead-time factor", "dead-time percent",
)  # fmt: skip


def xspress3_channels(
    prefix: str, *, num_channels: int, num_bins: int, max_frames: int, event_width: float
) -> dict[str, Any]:
    """Make the channels of an Xspress3's IOC.

    Parameters
    ----------
    prefix : str
        PV prefix ``$(P)``, e.g. ``"S123:vortex:"``; the driver's records are below ``det1:``.
    num_channels, num_bins : int
        Elements of the detector, and bins of a spectrum.
    max_frames : int
        Frames of the longest acquisition.
    event_width : float
        Dead time of an event [ticks].

    Returns
    -------
    dict of str to channel
        PV name -> channel.
    """
    driver = f"{prefix}det1:"
    pairs: dict[str, tuple[Any, Any]] = {
        "TriggerMode": (ca.choice(TRIGGER_MODES), ca.choice(TRIGGER_MODES)),
        "NUM_CHANNELS": (ca.integer(num_channels), ca.integer(num_channels)),
        "NUM_FRAMES_CONFIG": (ca.integer(max_frames), ca.integer(max_frames)),
        "MAX_SPECTRA": (ca.integer(num_bins), ca.integer(num_bins)),
        "CTRL_DTC": (ca.choice(("Disable", "Enable")), ca.choice(("Disabled", "Enabled"))),
        "INVERT_F0": (ca.integer(), ca.integer()),
        "INVERT_VETO": (ca.integer(), ca.integer()),
        "DEBOUNCE": (ca.integer(80), ca.integer(80)),
    }
    own: dict[str, Any] = {
        "ERASE": ca.choice(("Done", "Erase")),
        "EraseOnStart": ca.choice(("No", "Yes"), "Yes"),
        "RESET": ca.choice(("Done", "Reset")),
        "CONNECT": ca.choice(("Connect", "Connect ")),
        "CONNECTED": ca.read_only(ca.choice(("Disconnected", "Connected"), "Connected")),
        "MAX_NUM_CHANNELS_RBV": ca.read_only(ca.integer(num_channels)),
        "MAX_FRAMES_RBV": ca.read_only(ca.integer(max_frames)),
        "MAX_FRAMES_DRIVER_RBV": ca.read_only(ca.integer(max_frames)),
        "FRAME_COUNT_RBV": ca.read_only(ca.integer()),
        "NAME": ca.text("Xspress3"),
    }
    for name, (setpoint, readback) in pairs.items():
        own |= {name: setpoint, f"{name}_RBV": ca.read_only(readback)}
    channels = areadetector_channels(driver, CamBase)
    channels |= {f"{driver}{name}": channel for name, channel in own.items()}
    for number in range(1, num_channels + 1):
        for name, channel in _channel_records(num_bins, event_width).items():
            channels[f"{prefix}{name.replace('#', str(number))}"] = channel
    return channels


def _channel_records(num_bins: int, event_width: float) -> dict[str, Any]:
    """Records of one channel; ``#`` stands for its number."""
    spectrum = ca.double(np.zeros(num_bins), max_length=num_bins, max_subscription_backlog=2)
    records: dict[str, Any] = {
        "C#:EventWidth": ca.double(event_width, precision=1),
        "C#:DeadTime_RBV": ca.read_only(ca.double(units="%", precision=5)),
        "C#:DTFactor_RBV": ca.read_only(ca.double(1.0, precision=5)),
        "C#:CALO": ca.double(0.0, units="keV", precision=5),
        "C#:CALS": ca.double(0.01, units="keV", precision=5),
        "C#:CALQ": ca.double(0.0, precision=5),
        "MCA#:ArrayData": ca.read_only(spectrum),
    }
    for number in range(len(SCALERS)):
        records[f"C#SCA:{number}:Value_RBV"] = ca.read_only(ca.double())
    return records
