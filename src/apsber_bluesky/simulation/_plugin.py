"""What the camera's plugins share: the records of NDPluginBase, and the books they keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ImageKey
from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._areadetector import DATA_TYPES, areadetector_channels

CAMERA_PORT = "SIM1"
AREADETECTOR_VERSION = "3.12.1"
# EPICS counts seconds from 1990-01-01 UTC.
_EPICS_EPOCH_S = 631152000


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame on its way through the plugins.

    Attributes
    ----------
    pixels : ndarray, shape (rows, columns)
        The image; nobody changes it.
    kind : ImageKey
        What the beamline looked like during the exposure.
    number : int
        Number within the acquisition, from 0.
    unique_id : int
        areaDetector's counter, which runs on from one acquisition to the next.
    time_s : float
        Unix time of the exposure [s].
    angle_deg : float
        Rotation angle of the exposure [deg].
    """

    pixels: NDArray[Any]
    kind: ImageKey
    number: int
    unique_id: int
    time_s: float
    angle_deg: float

    @property
    def epics_time(self) -> tuple[int, int]:
        """Seconds since the EPICS epoch, and nanoseconds."""
        seconds = int(self.time_s)
        return seconds - _EPICS_EPOCH_S, round((self.time_s - seconds) * 1e9)


def size_values(pixels: NDArray[Any]) -> dict[str, Any]:
    """Values of the records that say how large the camera's array is."""
    rows, columns = pixels.shape
    return {
        "ArraySizeX_RBV": columns,
        "ArraySizeY_RBV": rows,
        "ArraySizeZ_RBV": 0,
        "ArraySize_RBV": pixels.nbytes,
        "DataType_RBV": DATA_TYPES[pixels.dtype.str[1:]],
    }


class Outlet(Protocol):
    """What every plugin looks like to the beamline."""

    channels: dict[str, Any]

    async def start(self) -> None:
        """Give the records their first values."""
        ...

    async def report(self, *, final: bool) -> None:
        """Bring the records up to date."""
        ...


class Plugin:
    """A plugin of the camera: takes frames in the camera's thread, reports in the server's.

    Parameters
    ----------
    prefix : str
        PV prefix, e.g. ``"S123:cam:image1:"``.
    device_class : type
        ophyd's class for it, which names the records.
    kind, port : str
        ``PluginType_RBV`` and ``PortName_RBV``.
    enabled : bool
        Whether it takes frames from the beginning.
    """

    def __init__(
        self, prefix: str, device_class: Any, *, kind: str, port: str, enabled: bool
    ) -> None:
        self._prefix = prefix
        self.channels = areadetector_channels(prefix, device_class)
        self._enabled = enabled
        self._minimum_period_s = 0.0
        self._counter = 0
        self._last: Frame | None = None
        self.at("EnableCallbacks").on_put = self._enable
        self.at("MinCallbackTime").on_put = self._set_minimum_period
        self.at("ArrayCounter").on_put = self._set_counter
        self._initial: dict[str, Any] = {
            "PluginType_RBV": kind,
            "PortName_RBV": port,
            "NDArrayPort": CAMERA_PORT,
            "NDArrayPort_RBV": CAMERA_PORT,
            "EnableCallbacks": "Enable" if enabled else "Disable",
            "EnableCallbacks_RBV": "Enable" if enabled else "Disable",
            "BlockingCallbacks": "Yes",
            "BlockingCallbacks_RBV": "Yes",
            "ADCoreVersion_RBV": AREADETECTOR_VERSION,
            "DriverVersion_RBV": AREADETECTOR_VERSION,
            "QueueSize": 20,
            "QueueSize_RBV": 20,
            "QueueFree": 20,
            "MaxThreads_RBV": 1,
            "NumThreads": 1,
            "NumThreads_RBV": 1,
        }

    def at(self, name: str) -> Any:
        """The channel of one record."""
        return self.channels[f"{self._prefix}{name}"]

    async def post(self, values: dict[str, Any]) -> None:
        """Publish several records."""
        for name, value in values.items():
            await self.at(name).post(value)

    async def start(self) -> None:
        """Give the records their first values."""
        await self.post(self._initial)
        for name in ("NDArrayPort", "BlockingCallbacks", "NumThreads", "QueueSize"):
            ca.fix(self.at(name), self.at(f"{name}_RBV"))

    async def _enable(self, value: str) -> None:
        self._enabled = value == "Enable"
        await self.post({"EnableCallbacks_RBV": value})

    async def _set_minimum_period(self, value: float) -> None:
        self._minimum_period_s = value
        await self.post({"MinCallbackTime_RBV": value})

    async def _set_counter(self, value: int) -> None:
        self._counter = value
        await self.post({"ArrayCounter_RBV": value})

    def take(self, frame: Frame) -> None:
        """Take a frame, in the camera's thread, if enabled."""
        if not self._enabled:
            return
        last = self._last
        if last is not None and 0 <= frame.time_s - last.time_s < self._minimum_period_s:
            return
        self._counter += 1
        self._last = frame
        self.consume(frame)

    def consume(self, frame: Frame) -> None:
        """Do what the plugin is for, in the camera's thread."""

    async def report(self, *, final: bool) -> None:
        """Bring the records up to date, in the server's loop.

        Parameters
        ----------
        final : bool
            Whether the acquisition has ended.
        """
        frame = self._last
        if frame is None:
            return
        rows, columns = frame.pixels.shape
        seconds, nanoseconds = frame.epics_time
        await self.post(
            {
                **size_values(frame.pixels),
                "ArrayCounter_RBV": self._counter,
                "UniqueId_RBV": frame.unique_id,
                "TimeStamp_RBV": frame.time_s - _EPICS_EPOCH_S,
                "EpicsTSSec_RBV": seconds,
                "EpicsTSNsec_RBV": nanoseconds,
                "ArraySize0_RBV": columns,
                "ArraySize1_RBV": rows,
                "NDimensions_RBV": 2,
            }
        )
        dimensions = [columns, rows] + [0] * 8
        if list(self.at("Dimensions_RBV").value) != dimensions:
            await self.post({"Dimensions_RBV": np.array(dimensions, dtype=np.int32)})
