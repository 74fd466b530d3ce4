"""An areaDetector camera whose frames stream to the suite's receiver."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Final

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.areadetector.cam import CamBase
from ophyd.areadetector.plugins import HDF5Plugin_V34, ImagePlugin_V34, PvaPlugin_V34
from ophyd.device import RedundantStaging, Staged
from ophyd.status import Status, SubscriptionStatus

from apsber_bluesky.core import (
    FrameReceiver,
    InputError,
    SeriesRequest,
    SeriesTicket,
    ServiceError,
)
from apsber_bluesky.devices._requests import CameraSeries
from apsber_bluesky.devices._status import run_in_thread
from apsber_bluesky.devices._stream_assets import Asset, StreamAssets

_ARM_TIMEOUT_S: Final = 10.0
_DTYPES: Final = {
    "Int8": "|i1",
    "UInt8": "|u1",
    "Int16": "<i2",
    "UInt16": "<u2",
    "Int32": "<i4",
    "UInt32": "<u4",
    "Int64": "<i8",
    "UInt64": "<u8",
    "Float32": "<f4",
    "Float64": "<f8",
}
_USED_SIGNALS: Final = (
    "acquire",
    "acquire_period",
    "acquire_time",
    "array_callbacks",
    "array_counter",
    "array_size.array_size_x",
    "array_size.array_size_y",
    "data_type",
    "image_mode",
    "num_images",
    "trigger_mode",
)
_TRIGGER_MODES: Final = {"internal": "Internal", "step": "Internal", "external": "External"}


class CameraCam(CamBase):
    """The camera's driver; records that current areaDetector lacks are left out."""

    pool_max_buffers = None
    num_images_counter = Cpt(EpicsSignalRO, "NumImagesCounter_RBV")


class FramePort(Device):
    """The plugin that publishes frames over ZMQ."""

    enable = Cpt(EpicsSignal, "EnableCallbacks_RBV", write_pv="EnableCallbacks", kind="config")
    series = Cpt(EpicsSignal, "Series", kind="omitted")
    address = Cpt(EpicsSignalRO, "Address_RBV", string=True, kind="omitted")
    dropped = Cpt(EpicsSignalRO, "DroppedArrays_RBV", kind="omitted")


class TomographyCamera(Device):
    """A camera for step and fly scans, behind an areaDetector IOC.

    Parameters
    ----------
    prefix : str
        PV prefix of the IOC, e.g. ``"2bmSP1:"``.
    name : str
        Name in the documents; the frames are ``<name>_image``.
    pixel_size_um : float, optional
        Size of a pixel at the sample [um].
    receiver : FrameReceiver, optional
        The one reader of the camera's frame port; the session provides it.
    series_timeout_s : float
        How long a series may be silent [s] before its missing frames are given up.
    **kwargs
        Further arguments of `ophyd.Device`, e.g. ``labels``.
    """

    _staged: Staged

    cam = Cpt(CameraCam, "cam1:", kind="config")
    image = Cpt(ImagePlugin_V34, "image1:", kind="omitted")
    hdf1 = Cpt(HDF5Plugin_V34, "HDF1:", kind="omitted")
    pva1 = Cpt(PvaPlugin_V34, "Pva1:", kind="omitted")
    frame_port = Cpt(FramePort, "ZMQ1:", kind="config")

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        pixel_size_um: float | None = None,
        receiver: FrameReceiver | None = None,
        series_timeout_s: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.pixel_size_um = pixel_size_um
        self.receiver = receiver
        self.series_timeout_s = series_timeout_s
        self.cam.configuration_attrs = ["acquire_time", "acquire_period", "trigger_mode"]
        self.cam.read_attrs = []
        self._run_uid: str | None = None
        self._series: CameraSeries | None = None
        self._ticket: SeriesTicket | None = None
        self._assets: dict[str, StreamAssets] = {}

    def wait_for_connection(self, all_signals: bool = False, timeout: float = 2.0) -> None:
        """Wait for the signals that scans use; ophyd connects those of areaDetector when used."""
        super().wait_for_connection(all_signals=all_signals, timeout=timeout)
        for name in _USED_SIGNALS:
            attrgetter(name)(self.cam).wait_for_connection(timeout=timeout)

    # -- what frames look like

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of a frame [pixel]."""
        size = self.cam.array_size
        return int(size.array_size_y.get()), int(size.array_size_x.get())

    @property
    def frame_dtype(self) -> str:
        """NumPy dtype string of a frame."""
        data_type = self.cam.data_type.get(as_string=True)
        if data_type not in _DTYPES:
            raise InputError(f"{self.name}: data type {data_type!r} has no NumPy equivalent")
        return _DTYPES[data_type]

    @property
    def data_key(self) -> str:
        """Name of the frames in the documents."""
        return f"{self.name}_image"

    # -- staging

    def stage(self) -> list[Any]:
        """Let frames flow to the receiver.

        The other plugins stay as they are: they are not part of the way to the receiver, and
        staging a file plugin that has not seen a frame fails.
        """
        if self._staged is not Staged.no:
            raise RedundantStaging(f"{self.name} is {self._staged.value}; unstage it first")
        self._staged = Staged.yes
        self.cam.acquire.put(0, wait=True)
        self.cam.array_callbacks.put(1, wait=True)
        self.frame_port.enable.put(1, wait=True)
        return [self]

    def unstage(self) -> list[Any]:
        """Stop the camera and close the spool of the run."""
        self._staged = Staged.no
        self.cam.acquire.put(0)
        run_uid, self._run_uid = self._run_uid, None
        self._series = self._ticket = None
        self._assets = {}
        if run_uid is not None:
            self._connected_receiver().close_run(run_uid)
        return [self]

    def stop(self, *, success: bool = False) -> None:
        """Stop exposing."""
        self.cam.acquire.put(0)
        super().stop(success=success)

    def _connected_receiver(self) -> FrameReceiver:
        if self.receiver is None:
            raise ServiceError(
                f"{self.name} has no frame receiver; start a session, or pass receiver=..."
            )
        return self.receiver

    # -- series

    def prepare(self, series: CameraSeries) -> Status:
        """Set the camera up for a series and arm the receiver.

        Parameters
        ----------
        series : CameraSeries
            Frames to take.

        Returns
        -------
        Status
            Finished when `kickoff`, or `trigger` for ``trigger="step"``, may be called.
        """
        return run_in_thread(lambda: self._prepare(series), self)

    def _prepare(self, series: CameraSeries) -> None:
        cam = self.cam
        if series.run_uid != self._run_uid:
            # The camera's own frame number is what noise of the simulation and logs count by.
            cam.array_counter.put(0, wait=True)
            self._run_uid, self._assets = series.run_uid, {}
        cam.trigger_mode.put(_TRIGGER_MODES[series.trigger], wait=True)
        cam.acquire_time.put(series.exposure_s, wait=True)
        cam.acquire_period.put(series.period_s, wait=True)
        step = series.trigger == "step"
        cam.image_mode.put("Single" if step else "Multiple", wait=True)
        cam.num_images.put(1 if step else series.num_frames, wait=True)
        self._series = series
        if not step:
            self._arm(series.num_frames)

    def _arm(self, num_frames: int) -> None:
        series = self._series
        if series is None:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        rows, columns = self.frame_shape
        request = SeriesRequest(
            run_uid=series.run_uid,
            stream=series.stream,
            num_frames=num_frames,
            rows=rows,
            columns=columns,
            dtype=self.frame_dtype,
        )
        self._ticket = self._connected_receiver().arm(request)
        self.frame_port.series.put(self._ticket.series, wait=True)
        self._assets.setdefault(series.stream, StreamAssets(self.data_key, (1, rows, columns)))

    def _armed(self) -> tuple[CameraSeries, SeriesTicket]:
        if self._series is None or self._ticket is None:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        return self._series, self._ticket

    # -- fly scans

    def kickoff(self) -> Status:
        """Start the prepared series; finished when the camera accepts triggers."""
        self._armed()
        started = SubscriptionStatus(
            self.cam.acquire,
            lambda *, value, **_: value == 1,
            run=False,
            timeout=_ARM_TIMEOUT_S,
        )
        self.cam.acquire.put(1, wait=False)
        return started

    def complete(self) -> Status:
        """Wait until every frame of the series is on disk, or named as missing."""
        return run_in_thread(self._complete, self)

    def _complete(self) -> None:
        series, _ = self._armed()
        self._connected_receiver().finish(
            series.run_uid, series.stream, timeout_s=self.series_timeout_s + series.period_s
        )
        # A camera that waits for triggers that will not come any more is stopped.
        self.cam.acquire.put(0)

    # -- step scans

    def trigger(self) -> Status:
        """Take one frame of a series that was prepared with ``trigger="step"``."""
        return run_in_thread(self._trigger, self)

    def _trigger(self) -> None:
        self._arm(1)
        self.cam.acquire.put(1, wait=True, timeout=_ARM_TIMEOUT_S + self.cam.acquire_time.get())
        self._complete()

    # -- documents

    def describe(self) -> OrderedDict[str, Any]:
        """Describe one reading; the frames themselves come as stream documents."""
        described: OrderedDict[str, Any] = super().describe()
        described.update(self.describe_collect())
        return described

    def describe_collect(self) -> dict[str, Any]:
        """Describe the frames of a stream."""
        rows, columns = self.frame_shape
        return {
            self.data_key: {
                "source": f"PV:{self.prefix}",
                "dtype": "array",
                "dtype_numpy": self.frame_dtype,
                "shape": [rows, columns],
                "external": "STREAM:",
            }
        }

    def get_index(self) -> int:
        """Frames of the current stream that can be read."""
        series, _ = self._armed()
        return self._connected_receiver().written(series.run_uid, series.stream)

    def collect_asset_docs(self, index: int | None = None) -> Iterator[Asset]:
        """Announce the frames that came since the last call.

        Parameters
        ----------
        index : int, optional
            Announce no more than this many frames of the stream.
        """
        if self._series is None or self._ticket is None:
            return
        available = self.get_index()
        if index is not None:
            available = min(available, index)
        yield from self._assets[self._series.stream].advance(self._ticket, available)
