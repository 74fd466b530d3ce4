"""Settings of the search for Bragg peaks in frames."""

from __future__ import annotations

from typing import Final, Self

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from apsber_bluesky.core._settings import FolderPath, Settings

#: Name of the file in a run folder that has the flag of each frame, and its peaks.
HITS_NAME: Final = "hits.h5"
#: Frames with enough peaks so far, and their part of those looked at; see `LiveMetric`.
HITS: Final = "hits"
HIT_RATE: Final = "hit_rate"


class HitSettings(Settings):
    """What counts as a Bragg peak, and how many of them make a frame a hit.

    The defaults suit EIGER and Jungfrau detectors; they were chosen on simulated frames.

    Attributes
    ----------
    least_peaks : int
        A frame with so many peaks is a hit.
    pixel_snr : float
        How far a pixel of a peak stands above the background of its ring [standard deviation].
    peak_snr : float
        How far a whole peak stands above the background around it [standard deviation].
    least_photons : float
        Photons above the background that a pixel of a peak has at least.
    least_pixels, most_pixels : int
        Size of a peak [pixel]; one pixel alone may be a hot one.
    smallest_radius_px, largest_radius_px : float
        Where peaks are looked for, from the beam [pixel].
    beam_centre_px : tuple of 2 float or None
        Row and column of the beam; None takes what the detector says, or the middle of the frame.
    mask : Path or None
        HDF5 file with a dataset ``/mask`` of the frame's shape, where bad pixels are not 0. Pixels
        that the detector itself marks are left out without it.
    most_peaks : int
        Peaks of a frame whose positions are kept.
    """

    least_peaks: PositiveInt = 10
    pixel_snr: PositiveFloat = 5.0
    peak_snr: PositiveFloat = 6.0
    least_photons: NonNegativeFloat = 3.0
    least_pixels: PositiveInt = 2
    most_pixels: PositiveInt = 60
    smallest_radius_px: NonNegativeFloat = 0.0
    largest_radius_px: PositiveFloat = 1e6
    beam_centre_px: tuple[float, float] | None = None
    mask: FolderPath | None = None
    most_peaks: PositiveInt = 1024

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for least, most in (
            ("least_peaks", "most_peaks"),
            ("least_pixels", "most_pixels"),
            ("smallest_radius_px", "largest_radius_px"),
        ):
            if getattr(self, least) > getattr(self, most):
                raise ValueError(
                    f"{least} {getattr(self, least):g} is above {most} {getattr(self, most):g}"
                )
        return self
