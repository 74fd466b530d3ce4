"""An areaDetector camera whose frames stream to the suite's receiver."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final, Literal

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.areadetector.cam import CamBase
from ophyd.areadetector.plugins import HDF5Plugin_V34, ImagePlugin_V34, PvaPlugin_V34
from ophyd.status import SubscriptionStatus

from apsber_bluesky.core import InputError, SeriesTicket
from apsber_bluesky.devices._frame_detector import FrameDetector
from apsber_bluesky.devices._requests import FrameSeries

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


class CameraDriver:
    """Drives the records of a camera: ADSpinnaker, ADAravis, ADSimDetector and their like.

    Parameters
    ----------
    camera : Camera
        The device.
    """

    arms_once = False

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._cam = camera.cam

    def connect(self, timeout_s: float) -> None:
        """Wait for the records that scans need."""
        for name in _USED_SIGNALS:
            attrgetter(name)(self._cam).wait_for_connection(timeout=timeout_s)
        if self._camera.frames_by == "zmq":
            self._camera.frame_port.wait_for_connection(timeout=timeout_s)

    def check(self, series: FrameSeries) -> None:
        """Refuse triggers that a camera does not have.

        Raises
        ------
        InputError
            If so.
        """
        if series.trigger not in _TRIGGER_MODES:
            raise InputError(
                f"{self._camera.name} cannot be triggered by {series.trigger!r}; give one of"
                f" {', '.join(_TRIGGER_MODES)}"
            )

    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of a frame [pixel]."""
        size = self._cam.array_size
        return int(size.array_size_y.get()), int(size.array_size_x.get())

    def frame_dtype(self) -> str:
        """NumPy dtype string of a frame.

        Raises
        ------
        InputError
            If NumPy has no such type.
        """
        data_type = self._cam.data_type.get(as_string=True)
        if data_type not in _DTYPES:
            raise InputError(
                f"{self._camera.name}: data type {data_type!r} has no NumPy equivalent"
            )
        return _DTYPES[data_type]

    def let_flow(self) -> None:
        """Stop the camera and enable the plugin that frames leave by."""
        self._cam.acquire.put(0, wait=True)
        self._cam.array_callbacks.put(1, wait=True)
        if self._camera.frames_by == "zmq":
            self._camera.frame_port.enable.put(1, wait=True)
        else:
            self._camera.pva1.enable.put(1, wait=True)

    def begin_run(self) -> None:
        """Count frames anew: noise of the simulation and logs go by the camera's own number."""
        self._cam.array_counter.put(0, wait=True)

    def prepare(self, series: FrameSeries) -> None:
        """Set trigger, exposure time and number of frames."""
        cam, step = self._cam, series.trigger == "step"
        cam.trigger_mode.put(_TRIGGER_MODES[series.trigger], wait=True)
        cam.acquire_time.put(series.exposure_s, wait=True)
        cam.acquire_period.put(series.period_s, wait=True)
        cam.image_mode.put("Single" if step else "Multiple", wait=True)
        cam.num_images.put(1 if step else series.num_frames, wait=True)
        if series.first_number is not None:
            # Frames that are taken again have the numbers that they would have had.
            cam.array_counter.put(series.first_number, wait=True)

    def announce(self, ticket: SeriesTicket) -> None:
        """Tell the frame port the number of the series; a relay is told by the receiver."""
        if self._camera.frames_by == "zmq":
            self._camera.frame_port.series.put(ticket.series, wait=True)

    def arm(self) -> None:
        """Start the acquisition."""
        started = SubscriptionStatus(
            self._cam.acquire, lambda *, value, **_: value == 1, run=False, timeout=_ARM_TIMEOUT_S
        )
        self._cam.acquire.put(1, wait=False)
        started.wait()

    def expose(self, *, timeout_s: float) -> None:
        """Take one frame."""
        self._cam.acquire.put(1, wait=True, timeout=timeout_s)

    def disarm(self) -> None:
        """Stop the acquisition."""
        self._cam.acquire.put(0)


class Camera(FrameDetector):
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
    frames_by : {"zmq", "pva"}
        The way frames leave the IOC: a ZMQ plugin that speaks the suite's protocol, or
        areaDetector's own PVA plugin, which the session relays
        (``streaming.detectors.<name>.pva``).
    **kwargs
        Further arguments of `ophyd.Device`, e.g. ``labels``.

    Raises
    ------
    InputError
        If `frames_by` is neither.
    """

    cam = Cpt(CameraCam, "cam1:", kind="config")
    image = Cpt(ImagePlugin_V34, "image1:", kind="omitted")
    hdf1 = Cpt(HDF5Plugin_V34, "HDF1:", kind="omitted")
    pva1 = Cpt(PvaPlugin_V34, "Pva1:", kind="omitted")
    # Not every IOC has one; it is looked for where frames go that way.
    frame_port = Cpt(FramePort, "ZMQ1:", kind="omitted", lazy=True)

    def __init__(
        self, prefix: str, *, name: str, frames_by: Literal["zmq", "pva"] = "zmq", **kwargs: Any
    ) -> None:
        if frames_by not in ("zmq", "pva"):
            raise InputError(f"{name}: frames_by is {frames_by!r}; give 'zmq' or 'pva'")
        super().__init__(prefix, name=name, **kwargs)
        self.frames_by = frames_by
        self.cam.configuration_attrs = ["acquire_time", "acquire_period", "trigger_mode"]
        self.cam.read_attrs = []
        self.driver = CameraDriver(self)
