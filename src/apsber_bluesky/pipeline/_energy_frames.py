"""Frames of a detector that measures energy, converted on their way from the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, InputError, JungfrauSettings, file_checksum
from apsber_bluesky.processing import JungfrauConverter, JungfrauMap, MapKind, read_jungfrau_map

_KINDS: tuple[MapKind, ...] = ("pedestal", "gain")


class FrameCalibration(Protocol):
    """Turns raw frames into what is then normalised."""

    @property
    def name(self) -> str:
        """Name of the transformation in the provenance."""
        ...

    def begin_run(self) -> None:
        """Take the calibration that is valid now, and count from zero."""
        ...

    def __call__(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Convert frames ``(n, rows, columns)``."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """What the conversion was told, and how it went so far."""
        ...

    @property
    def inputs(self) -> dict[str, str]:
        """Checksums of the calibration's files."""
        ...


class JungfrauEnergy:
    """Raw pixels of a Jungfrau become keV; implements `FrameCalibration`.

    Pedestals drift, so their file may be replaced between two runs: each run reads what is there
    when it begins.

    Parameters
    ----------
    settings : JungfrauSettings
        Where the files are.

    Raises
    ------
    DataFileError
        If a file cannot be read, or holds what cannot be right.
    InputError
        If the two are not of one detector, or there is no file of pedestals.
    """

    name = "jungfrau_energy"

    def __init__(self, settings: JungfrauSettings) -> None:
        if settings.pedestal_file is None:
            raise InputError(
                "processing.jungfrau.pedestal_file is not set; give a file of pedestals"
            )
        self._files = {"pedestal": settings.pedestal_file, "gain": settings.gain_file}
        self._stamps: dict[str, tuple[int, int, int] | None] = {}
        self._maps: dict[str, JungfrauMap] = {}
        self._checksums: dict[str, str] = {}
        self._converter = self._load()

    def begin_run(self) -> None:
        """Read files that have changed, and count from zero.

        Raises
        ------
        DataFileError, InputError
            As when it was made.
        """
        self._converter = self._load()

    def _load(self) -> JungfrauConverter:
        for kind in _KINDS:
            path = self._files[kind]
            if kind not in self._maps or _stamp(path) != self._stamps[kind]:
                self._read(kind, path)
        pedestal, gain = (self._maps[kind].values for kind in _KINDS)
        if pedestal.shape != gain.shape:
            raise InputError(
                f"{self._files['pedestal']} holds pedestals of {pedestal.shape[1:]} pixels,"
                f" {self._files['gain']} gains of {gain.shape[1:]}; give those of one detector"
            )
        return JungfrauConverter(pedestal, gain)

    def _read(self, kind: MapKind, path: Path) -> None:
        stamp = _stamp(path)
        found = read_jungfrau_map(path, kind)
        try:
            checksum = file_checksum(path)
        except OSError as error:
            raise DataFileError(f"cannot read {kind} from {path}: {error}") from error
        # The checksum is that of what was read, or nobody can find it again.
        if _stamp(path) != stamp:
            raise DataFileError(f"{path} changed while it was read; try again")
        self._stamps[kind], self._maps[kind], self._checksums[kind] = stamp, found, checksum

    def __call__(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Convert frames ``(n, rows, columns)`` to energies [keV], finite in every pixel.

        Raises
        ------
        InputError
            If the frames are not uint16, or not of the calibrated detector's size.
        """
        return self._converter(raw)

    @property
    def parameters(self) -> dict[str, Any]:
        """Which calibration it was, and the pixels that it did not fit so far."""
        converter = self._converter
        return {
            "pedestal_file": str(self._files["pedestal"]),
            "pedestal_taken": self._maps["pedestal"].taken,
            "gain_file": str(self._files["gain"]),
            "gain_taken": self._maps["gain"].taken,
            "unit": "keV",
            "num_frames": converter.frames,
            "dead_pixels": converter.dead_pixels,
            "invalid_pixels": converter.invalid_pixels,
            "uncalibrated_pixels": converter.uncalibrated_pixels,
        }

    @property
    def inputs(self) -> dict[str, str]:
        """Checksums of the two files."""
        return dict(self._checksums)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        # Reading it says what is wrong.
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
