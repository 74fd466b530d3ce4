"""A silicon drift detector behind the older DXP and MCA records, for step scans."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import cache
from typing import Any, Final, Self

import numpy as np
from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd import DynamicDeviceComponent as DDCpt
from ophyd.status import Status

from apsber_bluesky.core import InputError
from apsber_bluesky.devices._status import run_in_thread

_TIMEOUT_S: Final = 10.0


class SpectrumSignal(EpicsSignalRO):
    """A spectrum; documents say that it is int32, or it would be kept as float64."""

    def describe(self) -> dict[str, Any]:
        """Describe the spectrum."""
        described: dict[str, Any] = super().describe()
        for key in described.values():
            key["dtype_numpy"] = np.dtype(np.int32).str
        return described


class McaElement(Device):
    """The MCA record of one element."""

    spectrum = Cpt(SpectrumSignal, ".VAL", kind="normal")
    elapsed_real_time = Cpt(EpicsSignalRO, ".ERTM", kind="normal")
    elapsed_live_time = Cpt(EpicsSignalRO, ".ELTM", kind="normal")


class DxpElement(Device):
    """What the DXP of one element counted."""

    input_count_rate = Cpt(EpicsSignalRO, "InputCountRate", kind="normal")
    output_count_rate = Cpt(EpicsSignalRO, "OutputCountRate", kind="normal")


class VortexMca(Device):
    """A detector with XIA's DXP electronics behind EPICS' multi-element records.

    Each `trigger` counts for the preset time; spectra and times are values of the events, so it
    needs no receiver, and cannot fly.

    Parameters
    ----------
    prefix : str
        PV prefix of the IOC, e.g. ``"dxpMercury:"``.
    name : str
        Name in the documents; spectra are ``<name>_mca_mca1_spectrum`` and so on.
    num_channels : int
        Elements of the detector.
    **kwargs
        Further arguments of `ophyd.Device`, e.g. ``labels``.

    Raises
    ------
    InputError
        If there is no element.
    """

    preset_real = Cpt(EpicsSignal, "PresetReal", kind="config")
    preset_mode = Cpt(EpicsSignal, "PresetMode", string=True, kind="omitted")
    erase_start = Cpt(EpicsSignal, "EraseStart", kind="omitted")
    stop_all = Cpt(EpicsSignal, "StopAll", kind="omitted")
    dead_time_percent = Cpt(EpicsSignalRO, "DeadTime", kind="normal")

    def __new__(cls, *args: Any, num_channels: int = 4, **kwargs: Any) -> Self:
        """Make one of a class that has as many elements."""
        made: Self = super().__new__(cls if hasattr(cls, "mca") else _with(cls, num_channels))
        return made

    def __init__(self, prefix: str, *, name: str, num_channels: int = 4, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.num_channels = num_channels
        self.stage_sigs["preset_mode"] = "Real time"

    def set_exposure(self, exposure_s: float) -> None:
        """Count for so long at each trigger [s].

        Raises
        ------
        InputError
            If the time is not positive.
        """
        if not (math.isfinite(exposure_s) and exposure_s > 0):
            raise InputError(f"exposure of {self.name} is {exposure_s!r} s; give more than 0")
        self.preset_real.put(exposure_s, wait=True)

    def trigger(self) -> Status:
        """Count; finished when the preset time is over."""
        return run_in_thread(self._count, self)

    def _count(self) -> None:
        timeout_s = _TIMEOUT_S + float(self.preset_real.get())
        self.erase_start.put(1, wait=True, timeout=timeout_s)

    def stop(self, *, success: bool = False) -> None:
        """Stop counting."""
        self.stop_all.put(1)
        super().stop(success=success)


def _make(base: Any, num_channels: int) -> Any:
    if type(num_channels) is not int or num_channels < 1:
        raise InputError(f"num_channels is {num_channels!r}; give 1 or more")
    numbers = range(1, num_channels + 1)
    mca: OrderedDict[str, Any] = OrderedDict(
        (f"mca{n}", (McaElement, f"mca{n}", {})) for n in numbers
    )
    dxp: OrderedDict[str, Any] = OrderedDict(
        (f"dxp{n}", (DxpElement, f"dxp{n}:", {})) for n in numbers
    )
    return type(base.__name__, (base,), {"mca": DDCpt(mca, kind="normal"),
                                         "dxp": DDCpt(dxp, kind="normal"),
                                         "__doc__": base.__doc__})  # fmt: skip


# A class is made once, so that two detectors of one size are of one class.
_with: Any = cache(_make)
