"""The camera's outlets: image1 (Channel Access), Pva1 (PV Access) and ZMQ1 (the frame port)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ophyd.areadetector.plugins import ImagePlugin_V34, PvaPlugin_V34
from p4p.nt import NTNDArray
from p4p.server.raw import SharedPV

from apsber_bluesky.simulation import _channels as ca
from apsber_bluesky.simulation._plugin import Frame, Plugin
from apsber_bluesky.streaming import FramePublisher

_IMAGE_PERIOD_S = 0.2
# What a series announces that lasts until it is stopped.
_OPEN_END = 2**31 - 1


class ImageOutlet(Plugin):
    """``image1:``: the latest frame as a waveform, a few times a second."""

    def __init__(self, prefix: str, rows: int, columns: int, dtype: np.dtype[Any]) -> None:
        super().__init__(
            prefix, ImagePlugin_V34, kind="NDPluginStdArrays", port="IMAGE1", enabled=True
        )
        # Channel Access has no unsigned types; the next larger signed one holds every value.
        wide = dtype.kind in "iu" and dtype.itemsize <= 2
        self._type = np.dtype(np.int32) if wide or dtype == np.int32 else np.dtype(np.float64)
        make = ca.integer if self._type == np.int32 else ca.double
        pixels = np.zeros(rows * columns, dtype=self._type)
        self.channels[f"{prefix}ArrayData"] = ca.read_only(
            make(pixels, max_length=pixels.size, max_subscription_backlog=2)
        )
        self._posted_s = 0.0
        self._posted: Frame | None = None

    async def report(self, *, final: bool) -> None:
        """Publish the image, now and then, and always the last one."""
        await super().report(final=final)
        now = time.monotonic()
        due = final or now - self._posted_s >= _IMAGE_PERIOD_S
        if due and self._last is not None and self._last is not self._posted:
            self._posted, self._posted_s = self._last, now
            await self.post({"ArrayData": self._last.pixels.astype(self._type).ravel()})


class PvaOutlet(Plugin):
    """``Pva1:``: every frame as an NTNDArray, for viewers.

    Attributes
    ----------
    pv : SharedPV
        What the PV Access server serves as ``Pva1:Image``.
    """

    def __init__(self, prefix: str, rows: int, columns: int, dtype: np.dtype[Any]) -> None:
        super().__init__(prefix, PvaPlugin_V34, kind="NDPluginPva", port="PVA1", enabled=True)
        self._type = NTNDArray()
        self.pv_name = f"{prefix}Image"
        self.pv = SharedPV(initial=self._type.wrap(np.zeros((rows, columns), dtype=dtype)))
        self._initial["PvName_RBV"] = self.pv_name

    def consume(self, frame: Frame) -> None:
        """Post the frame; a slow viewer misses some."""
        value = self._type.wrap(
            frame.pixels,
            timestamp=frame.time_s,
            attrib={
                "ColorMode": 0,
                "RotAngle": float(frame.angle_deg),
                "ImageKey": int(frame.kind),
                "FrameNumber": frame.number,
            },
        )
        value["uniqueId"] = frame.unique_id
        seconds = int(frame.time_s)
        value["dataTimeStamp"] = {
            "secondsPastEpoch": seconds,
            "nanoseconds": round((frame.time_s - seconds) * 1e9),
        }
        self.pv.post(value)


class FrameOutlet:
    """``ZMQ1:``: every frame to the frame port, without ever waiting.

    Parameters
    ----------
    prefix : str
        PV prefix.
    publisher : FramePublisher
        The frame port; used in the camera's thread only.
    """

    def __init__(self, prefix: str, publisher: FramePublisher) -> None:
        self._publisher = publisher
        self._enabled = False
        self._open = False
        self._series = 0
        self._names = {
            "EnableCallbacks": ca.choice(("Disable", "Enable")),
            "EnableCallbacks_RBV": ca.read_only(ca.choice(("Disable", "Enable"))),
            "PortName_RBV": ca.read_only(ca.text("ZMQ1")),
            "PluginType_RBV": ca.read_only(ca.text("FramePublisher")),
            "Address_RBV": ca.read_only(ca.long_text(publisher.address)),
            "Series": ca.integer(),
            "Series_RBV": ca.read_only(ca.integer()),
            "Sent_RBV": ca.read_only(ca.integer()),
            "DroppedArrays_RBV": ca.read_only(ca.integer()),
        }
        self.channels = {f"{prefix}{name}": channel for name, channel in self._names.items()}
        self._names["EnableCallbacks"].on_put = self._enable
        self._names["Series"].on_put = self._set_series

    async def start(self) -> None:
        """Nothing to do: the records have their values."""

    async def _enable(self, value: str) -> None:
        self._enabled = value == "Enable"
        await self._names["EnableCallbacks_RBV"].post(value)

    async def _set_series(self, value: int) -> None:
        self._series = value
        await self._names["Series_RBV"].post(value)

    def begin(self, num_frames: int | None, pixels: NDArray[Any]) -> None:
        """Announce an acquisition, in the camera's thread; `pixels` only show size and type."""
        if self._enabled:
            rows, columns = pixels.shape
            self._publisher.start_series(
                self._series,
                num_frames=_OPEN_END if num_frames is None else num_frames,
                rows=rows,
                columns=columns,
                dtype=pixels.dtype.str,
            )
            self._open = True

    def take(self, frame: Frame) -> None:
        """Send a frame, in the camera's thread."""
        if self._open:
            self._publisher.send(
                frame.pixels,
                number=frame.number,
                timestamp_s=frame.time_s,
                angle_deg=frame.angle_deg,
            )

    def end(self) -> None:
        """Announce the end of the acquisition, in the camera's thread."""
        if self._open:
            self._open = False
            self._publisher.end_series()

    async def report(self, *, final: bool) -> None:
        """Publish the counters."""
        await self._names["Sent_RBV"].post(self._publisher.sent)
        await self._names["DroppedArrays_RBV"].post(self._publisher.dropped)
