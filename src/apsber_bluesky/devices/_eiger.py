"""An EIGER or EIGER2 whose stream goes to the suite's receiver."""

from __future__ import annotations

import logging
from typing import Any, Literal

from ophyd import Component as Cpt

from apsber_bluesky.core import InputError
from apsber_bluesky.devices._eiger_driver import EigerDriver
from apsber_bluesky.devices._eiger_records import EigerCam, EigerRecords
from apsber_bluesky.devices._frame_detector import FrameDetector

logger = logging.getLogger(__name__)


class EigerDetector(FrameDetector):
    """An EIGER or EIGER2 for step and fly scans, behind an ADEiger IOC.

    Frames go from the detector straight to the receiver: the IOC only controls. A record that an
    older IOC or an EIGER of the first generation lacks is named in one warning and done without.

    Parameters
    ----------
    prefix : str
        PV prefix of the IOC, e.g. ``"6idEiger:"``; the driver's records are below ``cam1:``.
    name : str
        Name in the documents; the frames are ``<name>_image``.
    stream : {2, 1}
        Stream V2, which an EIGER2 has from release 2022.1, or the legacy stream; the receiver's
        ``format`` is ``eiger2`` or ``eiger1``.
    compression : {"bslz4", "lz4", "none"}
        How frames are compressed; the receiver's ``codec`` is the same.
    pixel_size_um : float, optional
        Size of a pixel [um]; by default what the detector says.
    **kwargs
        As of `FrameDetector`.

    Raises
    ------
    InputError
        If `stream` or `compression` is none of these.
    """

    cam = Cpt(EigerCam, "cam1:", kind="config")

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        stream: Literal[1, 2] = 2,
        compression: Literal["bslz4", "lz4", "none"] = "bslz4",
        pixel_size_um: float | None = None,
        **kwargs: Any,
    ) -> None:
        if stream not in (1, 2):
            raise InputError(f"{name}: stream is {stream!r}; give 1 or 2")
        if compression not in ("bslz4", "lz4", "none"):
            raise InputError(
                f"{name}: compression is {compression!r}; give 'bslz4', 'lz4' or 'none'"
            )
        super().__init__(prefix, name=name, pixel_size_um=pixel_size_um, **kwargs)
        self._given_pixel_size_um = pixel_size_um
        self.cam.configuration_attrs = []
        self.cam.read_attrs = []
        self._records = EigerRecords(name, self.cam)
        self.driver: EigerDriver = EigerDriver(
            name, self._records, stream=stream, compression=compression
        )

    def wait_for_connection(self, all_signals: bool = False, timeout: float = 2.0) -> None:
        """Wait for the records that scans need, and learn which of the others there are."""
        if all_signals:
            super().wait_for_connection(all_signals=True, timeout=timeout)
        else:
            # Not of all that were made: some may not exist.
            self.driver.connect(timeout)
        self.cam.configuration_attrs = self._records.configuration
        pixel_size_m = self._records.value("x_pixel_size")
        if self._given_pixel_size_um is not None:
            self.pixel_size_um = self._given_pixel_size_um
        elif pixel_size_m:
            self.pixel_size_um = float(pixel_size_m) * 1e6

    # -- metadata

    @property
    def photon_energy_keV(self) -> float | None:
        """Photon energy that the detector is set for [keV]; None if its IOC does not say."""
        energy_eV = self._records.value("photon_energy")
        return None if energy_eV is None else float(energy_eV) / 1000

    @property
    def detector_distance_mm(self) -> float | None:
        """Distance from the sample [mm]; None if its IOC does not say."""
        distance_m = self._records.value("detector_distance")
        return None if distance_m is None else float(distance_m) * 1000

    @property
    def beam_centre_px(self) -> tuple[float, float] | None:
        """Row and column of the direct beam [pixel]; None if its IOC does not say."""
        row, column = self._records.value("beam_y"), self._records.value("beam_x")
        return None if row is None or column is None else (float(row), float(column))

    #: The stream numbers the images of each series from here.
    first_frame_number = 0

    def detector_metadata(self) -> dict[str, Any]:
        """What the start document says of the detector; its keys are those of `FrameDetector`.

        The pixel type is not among them: it follows from the exposure time.
        """
        metadata = super().detector_metadata()
        del metadata["dtype"]
        centre = self.beam_centre_px
        metadata |= {
            "photon_energy_keV": self.photon_energy_keV,
            "detector_distance_mm": self.detector_distance_mm,
            "beam_centre_px": None if centre is None else list(centre),
            "first_frame_number": self.first_frame_number,
        }
        for key in ("description", "serial_number", "sensor_material"):
            metadata[key] = self._records.value(key) or ""
        for key, record, factor in (
            ("threshold_energy_keV", "threshold_energy", 1e-3),
            ("sensor_thickness_um", "sensor_thickness", 1e6),
        ):
            value = self._records.value(record)
            metadata[key] = None if value is None else float(value) * factor
        return metadata

    @property
    def images_dropped(self) -> int:
        """Images that the detector itself dropped in the last series."""
        return self.driver.dropped

    # -- series

    def shortest_period_s(self, exposure_s: float) -> float:
        """Least time between the beginnings of two exposures of a length [s]."""
        return exposure_s + float(self._records.value("dead_time") or 0.0)

    def _end_series(self, *, whole: bool) -> None:
        if whole:
            # With all frames here it ends by itself; an abort could cost its own file the last.
            self.driver.await_end()
        super()._end_series(whole=whole)
        dropped = self.driver.report_drops()
        by_pulses = self._series is not None and self._series.trigger in ("external", "gate")
        if by_pulses and not whole and not dropped:
            logger.warning(
                "%s took fewer images than it was to get pulses; behind a pulse that it ignored its"
                " images are those of later pulses: compare the timestamps of the frames",
                self.name,
            )
