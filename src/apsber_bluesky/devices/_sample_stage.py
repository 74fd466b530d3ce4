"""The stage that carries rotation stage and sample."""

from __future__ import annotations

from typing import Any

from ophyd import Device, EpicsMotor
from ophyd import FormattedComponent as FCpt

from apsber_bluesky.core import AxisFinder
from apsber_bluesky.devices._beamline import SampleAxis


class SampleStage(Device):
    """Three linear axes [mm]: x across the beam, y along the rotation axis, z along the beam.

    They stand below the rotation stage: x and y move the rotation axis in the picture.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"2bmb:"``.
    name : str
        Name in the documents; the axes are ``<name>_x`` and so on.
    x, y, z : str
        Suffix of each motor record.
    **kwargs
        Further arguments of `ophyd.Device`, e.g. ``labels``.

    Attributes
    ----------
    axis_finder : AxisFinder or None
        Who finds the rotation axis in frames, for `align_rotation_axis`; the session provides it.
    """

    x = FCpt(SampleAxis, "{prefix}{_records[x]}", kind="hinted")
    y = FCpt(SampleAxis, "{prefix}{_records[y]}", kind="normal")
    z = FCpt(SampleAxis, "{prefix}{_records[z]}", kind="normal")

    def __init__(
        self, prefix: str, *, name: str, x: str = "m1", y: str = "m2", z: str = "m3", **kwargs: Any
    ) -> None:
        self._records = {**getattr(self, "_records", {}), "x": x, "y": y, "z": z}
        self.axis_finder: AxisFinder | None = None
        super().__init__(prefix, name=name, **kwargs)


class LeaningSampleStage(SampleStage):
    """A sample stage that can also lean the rotation axis over, in the plane of the detector.

    Parameters
    ----------
    prefix, name, x, y, z, **kwargs
        As for `SampleStage`.
    roll : str
        Suffix of the motor record that leans the axis [deg].
    """

    roll = FCpt(EpicsMotor, "{prefix}{_records[roll]}", kind="normal")

    def __init__(self, prefix: str, *, name: str, roll: str = "m4", **kwargs: Any) -> None:
        self._records = {"roll": roll}
        super().__init__(prefix, name=name, **kwargs)
