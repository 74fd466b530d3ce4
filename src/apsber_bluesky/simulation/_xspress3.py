"""A Vortex read out by Xspress3: spectra over PV Access, numbered by the hardware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation._pva_detector import PvaDetector
from apsber_bluesky.simulation._sls_receiver import StreamFaults

BINS: Final = 4096
BIN_WIDTH_EV: Final = 10.0

# K alpha lines [eV] and their counts per frame; a line of 5.9 keV is 140 eV wide (Fano noise).
_LINES: Final = {"Ca": (3692.0, 400.0), "Fe": (6404.0, 900.0), "Zn": (8639.0, 250.0)}
_NOISE_EV: Final = 40.0
_FANO_EV: Final = 0.114 * 3.65


class Xspress3:
    """Serve fluorescence spectra of several channels.

    Parameters
    ----------
    channel : str
        PV name.
    num_channels : int
        Elements of the detector.
    corrected : bool
        Whether spectra are corrected for dead time; they are float64 then, else uint32.
    seed : int
        Of the photons' random numbers.

    Attributes
    ----------
    detector : PvaDetector
        What serves them.

    Raises
    ------
    InputError
        If there is no channel.
    """

    def __init__(
        self, channel: str, *, num_channels: int = 4, corrected: bool = False, seed: int = 0
    ) -> None:
        if num_channels < 1:
            raise InputError(f"num_channels is {num_channels}; give 1 or more")
        self._num_channels = num_channels
        self._dtype = np.dtype("<f8" if corrected else "<u4")
        self._seed = seed
        self.detector = PvaDetector(channel, np.zeros((num_channels, BINS), dtype=self._dtype))

    def spectra(self, number: int) -> NDArray[Any]:
        """Spectra of one frame, shape ``(channels, 4096)`` [counts]; always the same ones."""
        rng = np.random.default_rng([self._seed, number])
        counts: NDArray[np.int64] = rng.poisson(_mean_spectrum(), (self._num_channels, BINS))
        if self._dtype.kind == "u":
            return counts.astype(np.uint32)
        # An element that is dead for a hundredth of the time per thousand counts.
        total = counts.sum(axis=1, keepdims=True)
        corrected: NDArray[np.float64] = counts / (1 - 1e-5 * total)
        return corrected

    def send(
        self,
        num_frames: int,
        *,
        faults: StreamFaults | None = None,
        before_each: Callable[[int], None] | None = None,
    ) -> NDArray[Any]:
        """Take `num_frames`; the hardware numbers them from 0 each time.

        Parameters
        ----------
        num_frames : int
            Frames of the acquisition.
        faults : StreamFaults, optional
            What goes wrong.
        before_each : callable, optional
            Called with the number of posts so far, to hold them back.

        Returns
        -------
        ndarray, shape (n, channels, 4096)
            What was seen.
        """
        spectra = np.stack([self.spectra(number) for number in range(num_frames)])
        self.detector.send(spectra, first_id=0, faults=faults, before_each=before_each)
        return spectra

    def close(self) -> None:
        """Stop serving."""
        self.detector.close()


def _mean_spectrum() -> NDArray[np.float64]:
    energy_eV = (np.arange(BINS) + 0.5) * BIN_WIDTH_EV
    mean = np.full(BINS, 0.02)
    for line_eV, counts in _LINES.values():
        sigma_eV = np.sqrt(_NOISE_EV**2 + _FANO_EV * line_eV)
        peak = np.exp(-0.5 * ((energy_eV - line_eV) / sigma_eV) ** 2)
        mean += counts * peak / peak.sum()
    return mean
