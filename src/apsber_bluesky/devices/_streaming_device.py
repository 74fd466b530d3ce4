"""A device whose frames stream to a receiver, as the documents see it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from ophyd import Device

from apsber_bluesky.core import FrameReceiver, InputError, SeriesTicket, ServiceError
from apsber_bluesky.devices._driver import DetectorDriver
from apsber_bluesky.devices._requests import FrameSeries
from apsber_bluesky.devices._stream_assets import Asset, StreamAssets


class StreamingDevice(Device):
    """What frames look like, and which of them there are.

    Attributes
    ----------
    driver : DetectorDriver
        Knows the records of this kind of detector.
    receiver : FrameReceiver or None
        The one reader of the detector's frames.
    has_own_receiver : bool
        Whether the receiver serves no other detector; then the spool has the detector's name.
    pixel_size_um : float or None
        Size of a pixel, at the sample where there is optics [um].
    """

    driver: DetectorDriver

    def __init__(self, prefix: str, *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.pixel_size_um: float | None = None
        self.receiver: FrameReceiver | None = None
        self.has_own_receiver = False
        self._run_uid: str | None = None
        self._series: FrameSeries | None = None
        self._ticket: SeriesTicket | None = None
        self._assets: dict[str, StreamAssets] = {}

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Rows and columns of a frame [pixel]."""
        return self.driver.frame_shape()

    @property
    def frame_dtype(self) -> str:
        """NumPy dtype string of a frame."""
        return self.driver.frame_dtype()

    @property
    def data_key(self) -> str:
        """Name of the frames in the documents."""
        return f"{self.name}_image"

    def detector_metadata(self) -> dict[str, Any]:
        """What the start document says of the detector, as plain values.

        Returns
        -------
        dict
            ``shape`` (rows, columns), ``dtype``, ``pixel_size_um`` and ``first_frame_number``, the
            detector's own number of the first frame of a series; subclasses that know more add
            ``photon_energy_keV``, ``detector_distance_mm``, ``beam_centre_px`` (row, column).
        """
        return {
            "shape": list(self.frame_shape),
            "dtype": self.frame_dtype,
            "pixel_size_um": self.pixel_size_um,
            "first_frame_number": 0,
        }

    def _connected_receiver(self) -> FrameReceiver:
        if self.receiver is None:
            raise ServiceError(
                f"{self.name} has no frame receiver; start a session, or pass receiver=..."
            )
        return self.receiver

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
        if self._series is None:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        return self._connected_receiver().written(self._series.run_uid, self._series.stream)

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
