"""A Jungfrau behind PSI's slsDetector IOC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ophyd import Component as Cpt
from ophyd import Device, EpicsSignal, EpicsSignalRO, Signal
from ophyd.areadetector.base import EpicsSignalWithRBV

from apsber_bluesky.core import InputError, PedestalNeed
from apsber_bluesky.devices._frame_detector import FrameDetector
from apsber_bluesky.devices._jungfrau_chip import NUM_CELLS, JungfrauChip
from apsber_bluesky.devices._jungfrau_driver import FIRST_FRAME, JungfrauDriver
from apsber_bluesky.devices._requests import FrameSeries

_PIXEL_SIZE_UM = 75.0


class JungfrauCam(Device):
    """Records of slsDetector's areaDetector driver; those that older ones lack connect lazily."""

    # What is absent is found out by the driver, and must not hold up who looks at it.
    lazy_wait_for_connection = False

    acquire = Cpt(EpicsSignal, "Acquire", kind="omitted")
    acquire_time = Cpt(EpicsSignalWithRBV, "AcquireTime", kind="config")
    acquire_period = Cpt(EpicsSignalWithRBV, "AcquirePeriod", kind="config")
    image_mode = Cpt(EpicsSignalWithRBV, "ImageMode", string=True, kind="omitted")
    setting = Cpt(EpicsSignalWithRBV, "Setting", string=True, kind="omitted")
    timing_mode = Cpt(EpicsSignalWithRBV, "TimingMode", string=True, kind="config")
    num_frames = Cpt(EpicsSignalWithRBV, "NumFrames", kind="omitted")
    num_cycles = Cpt(EpicsSignalWithRBV, "NumCycles", kind="omitted")
    command = Cpt(EpicsSignal, "Command", string=True, kind="omitted")
    detector_state = Cpt(EpicsSignalRO, "DetectorState_RBV", string=True, kind="omitted")
    size_x = Cpt(EpicsSignalRO, "MaxSizeX_RBV", kind="omitted")
    size_y = Cpt(EpicsSignalRO, "MaxSizeY_RBV", kind="omitted")
    trigger_software = Cpt(EpicsSignal, "TriggerSoftware", kind="omitted", lazy=True)
    receiver_stream = Cpt(EpicsSignal, "ReceiverStream", kind="omitted", lazy=True)
    receiver_mode = Cpt(EpicsSignalWithRBV, "ReceiverMode", kind="omitted", lazy=True)
    missed_packets = Cpt(EpicsSignalRO, "ReceiverMissedPackets_RBV", kind="omitted", lazy=True)


class JungfrauDetector(FrameDetector):
    """A Jungfrau for step and fly scans.

    Gain mode and storage cells are not read back by any record: the signals below hold what the
    next series sets.

    Parameters
    ----------
    prefix : str
        PV prefix of the IOC, e.g. ``"X09LB-SD1:"``.
    name : str
        Name in the documents; the frames are ``<name>_image``.
    arming_time_s : float
        Time from the start of an acquisition until triggers count [s]; no record tells.
    photon_energy_keV, detector_distance_mm : float, optional
        Photon energy [keV] and distance from the sample [mm].
    beam_centre_px : tuple of float, optional
        Row and column of the direct beam [pixel].
    pixel_size_um : float
        Side of a pixel [um].
    data_root : Path, optional
        Folder below which runs and pedestals are kept; the session provides it.
    **kwargs
        Further arguments of `FrameDetector`.

    Raises
    ------
    InputError
        If `arming_time_s` is negative.
    """

    driver: JungfrauDriver

    cam = Cpt(JungfrauCam, "cam1:", kind="config")
    gain_mode = Cpt(Signal, value="dynamic", kind="config")
    setting = Cpt(Signal, value="gain0", kind="config")
    extra_storage_cells = Cpt(Signal, value=0, kind="config")
    storage_cell_start = Cpt(Signal, value=NUM_CELLS - 1, kind="config")
    storage_cell_delay_s = Cpt(Signal, value=0.0, kind="config")

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        arming_time_s: float = 0.3,
        photon_energy_keV: float | None = None,
        detector_distance_mm: float | None = None,
        beam_centre_px: tuple[float, float] | None = None,
        pixel_size_um: float = _PIXEL_SIZE_UM,
        data_root: Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix, name=name, pixel_size_um=pixel_size_um, **kwargs)
        if arming_time_s < 0:
            raise InputError(f"{name}: arming_time_s is {arming_time_s!r}; give 0 or more")
        self.photon_energy_keV = photon_energy_keV
        self.detector_distance_mm = detector_distance_mm
        self.beam_centre_px = beam_centre_px
        self.data_root = data_root
        self.driver = JungfrauDriver(self, arming_time_s)

    def wait_for_connection(self, all_signals: bool = False, timeout: float = 2.0) -> None:
        """Wait for the signals that scans need; ophyd would wait for all that were looked at."""
        del all_signals
        self.driver.connect(timeout)

    @property
    def chip(self) -> JungfrauChip:
        """What the next series sets."""
        return JungfrauChip(
            gain_mode=self.gain_mode.get(),
            setting=self.setting.get(),
            extra_storage_cells=self.extra_storage_cells.get(),
            storage_cell_start=self.storage_cell_start.get(),
            storage_cell_delay_s=self.storage_cell_delay_s.get(),
        )

    def check(self, series: FrameSeries, chip: JungfrauChip | None = None) -> None:
        """Refuse a series that the detector cannot take.

        Parameters
        ----------
        series : FrameSeries
            What is to be taken.
        chip : JungfrauChip, optional
            What will be set for it; what is set when not given.

        Raises
        ------
        InputError
            If so; it names the value and what to do.
        """
        self.driver.check(series, chip)

    @property
    def images_per_exposure(self) -> int:
        """Images that each trigger or period gives: one for each storage cell."""
        return self.chip.images_per_exposure

    @property
    def storage_cells(self) -> tuple[int, ...]:
        """Storage cells of the images of an exposure, in the order in which they come."""
        return self.chip.storage_cells

    def pedestal_need(self, exposure_s: float, chip: JungfrauChip | None = None) -> PedestalNeed:
        """What pedestals a series needs.

        Parameters
        ----------
        exposure_s : float
            Its exposure time [s].
        chip : JungfrauChip, optional
            What will be set for it; what is set when not given.
        """
        chip = self.chip if chip is None else chip
        rows, columns = self.frame_shape
        return PedestalNeed(
            detector=self.name,
            rows=rows,
            columns=columns,
            exposure_s=exposure_s,
            setting=chip.setting,
            cells=chip.storage_cells,
        )

    def unstage(self) -> list[Any]:
        """Stop, close the spool, and leave pixels free to choose their gain."""
        unstaged = super().unstage()
        self.driver.free_gain()
        return unstaged

    def detector_metadata(self) -> dict[str, Any]:
        """What the start document says of the detector; see `FrameDetector`.

        Returns
        -------
        dict
            Besides the common keys ``gain_mode``, ``setting`` and ``storage_cells``.
        """
        centre = self.beam_centre_px
        return {
            **super().detector_metadata(),
            "first_frame_number": FIRST_FRAME,
            "photon_energy_keV": self.photon_energy_keV,
            "detector_distance_mm": self.detector_distance_mm,
            "beam_centre_px": None if centre is None else list(centre),
            "gain_mode": str(self.gain_mode.get()),
            "setting": str(self.setting.get()),
            "storage_cells": list(self.storage_cells),
        }
