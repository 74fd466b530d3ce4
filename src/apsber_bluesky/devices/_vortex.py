"""A Vortex, or another silicon drift detector, read out by Xspress3 electronics."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from typing import Any, Final, Self

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd import DynamicDeviceComponent as DDCpt
from ophyd.areadetector.base import EpicsSignalWithRBV

from apsber_bluesky.core import InputError
from apsber_bluesky.devices._frame_detector import FrameDetector
from apsber_bluesky.devices._vortex_driver import TICK_S, Xspress3Driver

_KEV_PER_BIN: Final = 0.01


class Xspress3Cam(Device):
    """Records of the Xspress3 driver; those that some IOCs lack connect when they can."""

    # What is absent is found out by the driver, and must not hold up who looks at it.
    lazy_wait_for_connection = False

    acquire = Cpt(EpicsSignalWithRBV, "Acquire", kind="omitted")
    acquire_time = Cpt(EpicsSignalWithRBV, "AcquireTime", kind="config")
    num_images = Cpt(EpicsSignalWithRBV, "NumImages", kind="omitted")
    trigger_mode = Cpt(EpicsSignalWithRBV, "TriggerMode", string=True, kind="config")
    array_callbacks = Cpt(EpicsSignalWithRBV, "ArrayCallbacks", kind="omitted")
    array_counter = Cpt(EpicsSignalWithRBV, "ArrayCounter", kind="omitted")
    num_channels = Cpt(EpicsSignalRO, "NUM_CHANNELS_RBV", kind="omitted")
    max_spectra = Cpt(EpicsSignalRO, "MAX_SPECTRA_RBV", kind="omitted")
    erase = Cpt(EpicsSignal, "ERASE", kind="omitted", lazy=True)
    erase_on_start = Cpt(EpicsSignal, "EraseOnStart", kind="omitted", lazy=True)
    ctrl_dtc = Cpt(EpicsSignalWithRBV, "CTRL_DTC", kind="omitted", lazy=True)
    max_frames = Cpt(EpicsSignalRO, "MAX_FRAMES_RBV", kind="omitted", lazy=True)
    connected_state = Cpt(EpicsSignalRO, "CONNECTED", kind="omitted", lazy=True)


class Xspress3Pva(Device):
    """The plugin by which spectra leave the IOC."""

    enable = Cpt(EpicsSignalWithRBV, "EnableCallbacks", kind="omitted")


class Xspress3Element(Device):
    """Dead time of one element of the detector, of its last frame."""

    dead_time_percent = Cpt(EpicsSignalRO, "DeadTime_RBV", kind="normal")
    dead_time_factor = Cpt(EpicsSignalRO, "DTFactor_RBV", kind="normal")
    event_width = Cpt(EpicsSignal, "EventWidth", kind="config")


class VortexDetector(FrameDetector):
    """A silicon drift detector behind an Xspress3 areaDetector IOC, for step and fly scans.

    A frame holds the spectra of all elements, shape ``(elements, 4096)``. The IOC needs
    areaDetector's PVA plugin, ``Pva1:``, which the session relays
    (``streaming.detectors.<name>.pva``).

    Parameters
    ----------
    prefix : str
        PV prefix of the IOC, e.g. ``"XSP3_4Chan:"``.
    name : str
        Name in the documents; the spectra are ``<name>_image``.
    num_channels : int
        Elements of the detector.
    photon_energy_keV, detector_distance_mm : float, optional
        Energy of the beam [keV] and distance from the sample [mm].
    **kwargs
        Further arguments of `FrameDetector`.

    Raises
    ------
    InputError
        If there is no element.
    """

    cam = Cpt(Xspress3Cam, "det1:", kind="config")
    pva1 = Cpt(Xspress3Pva, "Pva1:", kind="omitted")

    def __new__(cls, *args: Any, num_channels: int = 4, **kwargs: Any) -> Self:
        """Make one of a class that has as many elements."""
        # ophyd wants to know of its components when the class is made.
        made: Self = super().__new__(cls if hasattr(cls, "elements") else _with(cls, num_channels))
        return made

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        num_channels: int = 4,
        photon_energy_keV: float | None = None,
        detector_distance_mm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.num_channels = num_channels
        self.photon_energy_keV = photon_energy_keV
        self.detector_distance_mm = detector_distance_mm
        self.driver: Xspress3Driver = Xspress3Driver(self)

    def event_widths_s(self) -> list[float]:
        """Dead time of one event in each element [s]; 0 if the electronics correct for it."""
        if self.driver.corrects_dead_time():
            return [0.0] * self.num_channels
        elements = (getattr(self.elements, name) for name in self.elements.component_names)
        return [float(element.event_width.get()) * TICK_S for element in elements]

    def detector_metadata(self) -> dict[str, Any]:
        """What the start document says of the detector, as plain values.

        Returns
        -------
        dict
            That of every `FrameDetector`, and ``event_width_s`` of each element [s],
            ``bin_width_eV`` and ``num_channels``.
        """
        return {
            **super().detector_metadata(),
            "photon_energy_keV": self.photon_energy_keV,
            "detector_distance_mm": self.detector_distance_mm,
            "beam_centre_px": None,
            "num_channels": self.num_channels,
            "bin_width_eV": 1e3 * _KEV_PER_BIN,
            "event_width_s": self.event_widths_s(),
        }


def _make(base: Any, num_channels: int) -> Any:
    if type(num_channels) is not int or num_channels < 1:
        raise InputError(f"num_channels is {num_channels!r}; give 1 or more")
    numbers = range(1, num_channels + 1)
    elements: OrderedDict[str, Any] = OrderedDict(
        (f"element{n}", (Xspress3Element, f"C{n}:", {})) for n in numbers
    )
    return type(base.__name__, (base,), {"elements": DDCpt(elements, kind="normal"),
                                         "__doc__": base.__doc__})  # fmt: skip


# A class is made once, so that two detectors of one size are of one class.
_with: Any = cache(_make)
