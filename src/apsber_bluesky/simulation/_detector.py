"""What an indirect X-ray camera makes of a beam: structure, noise and defects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ImageKey, SimulationSettings

_SATURATION = 65535
# Streams of random numbers: structure that belongs to the detector, not to a frame.
_STRUCTURE = 0xD37EC7
_CHANGES = 0xC4A26E
_SWING_FRAMES = 1000


class Detector:
    """Image formation: Beer-Lambert attenuation, flat field, dark field, noise, dead pixels.

    The structure follows from the seed alone, and the noise of a frame from the seed, the kind of
    frame and its number; equal settings therefore give equal frames, whenever they are taken.

    Parameters
    ----------
    settings : SimulationSettings
        Camera size, seed, and strength of each effect.

    Attributes
    ----------
    rows, columns : int
        Size [pixel].
    dtype : numpy.dtype
        Pixel type, ``uint16``.
    flat_field : ndarray of float32, shape (rows, columns)
        Expected counts of the open beam above the dark field; 0 in dead pixels.
    dark_field : ndarray of float32, shape (rows, columns)
        Expected counts without beam.
    dead : ndarray of bool, shape (rows, columns)
        Pixels that do not respond to light.
    column_gains : ndarray of float32, shape (columns,)
        Relative response of each column; it makes stripes in a sinogram, rings in a slice.
    """

    def __init__(self, settings: SimulationSettings) -> None:
        self.rows, self.columns = settings.rows, settings.columns
        self.dtype = np.dtype(np.uint16)
        self._seed = settings.seed
        self._read_noise = np.float32(settings.read_noise_counts)
        random = np.random.default_rng((settings.seed, _STRUCTURE))
        shape = (self.rows, self.columns)
        gains = 1.0 + settings.stripe_strength * random.standard_normal(self.columns)
        self.column_gains = np.maximum(gains, 0.1).astype(np.float32)
        texture = 1.0 + 0.01 * random.standard_normal(shape, dtype=np.float32)
        self.dead = random.random(shape) < settings.dead_pixel_fraction
        beam = _beam_profile(self.rows, self.columns).astype(np.float32)
        flat = np.float32(settings.flat_counts) * beam * texture * self.column_gains
        self.flat_field = np.where(self.dead, np.float32(0), flat)
        # Drawn from a stream of their own, so that they alter nothing else.
        changes = np.random.default_rng((settings.seed, _CHANGES)).standard_normal(self.columns)
        self._gain_change = settings.gain_change
        self._changed_gains = (1.0 + settings.gain_change * changes).astype(np.float32)
        self._beam_swing = settings.beam_swing
        offsets = 1.0 + 0.03 * random.standard_normal(shape) + _dark_slope(shape)
        self.dark_field = (settings.dark_counts * np.maximum(offsets, 0.0)).astype(np.float32)

    def expose(
        self,
        kind: ImageKey,
        number: int,
        line_integrals: NDArray[np.float32] | None = None,
        *,
        transmission: float = 1.0,
    ) -> NDArray[np.uint16]:
        """Take one frame.

        Parameters
        ----------
        kind : ImageKey
            Projection, flat or dark.
        number : int
            Number of the frame; with the seed and the kind it fixes the noise.
        line_integrals : ndarray of float32, shape (rows, columns), optional
            What is in the beam [1]; needed for a projection, ignored otherwise.
        transmission : float
            Part of the light that arrives.

        Returns
        -------
        ndarray of uint16, shape (rows, columns)
            Counts, saturated at 65535.
        """
        random = np.random.default_rng((self._seed, int(kind), number))
        counts = self._read_noise * random.standard_normal(self.flat_field.shape, dtype=np.float32)
        counts += self.dark_field
        if kind is not ImageKey.DARK:
            light = self.flat_field
            if self._beam_swing:
                transmission *= 1 + self._beam_swing * math.sin(math.tau * number / _SWING_FRAMES)
            if transmission != 1.0:
                light = light * np.float32(transmission)
            if kind is ImageKey.PROJECTION and self._gain_change:
                light = light * np.maximum(self._changed_gains, np.float32(0))
            if kind is ImageKey.PROJECTION and line_integrals is not None:
                light = light * np.exp(-line_integrals)
            counts += random.poisson(light)
        result: NDArray[Any] = np.clip(np.rint(counts), 0, _SATURATION).astype(np.uint16)
        return result


def _beam_profile(rows: int, columns: int) -> NDArray[np.float64]:
    """Smooth profile of an undulator beam with a slight tilt, mean near 1."""
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] / max(rows, 2)
    x = (np.arange(columns) - (columns - 1) / 2)[None, :] / max(columns, 2)
    profile: NDArray[np.float64] = (
        1.08 * np.exp(-0.5 * ((y / 0.9) ** 2 + (x / 1.1) ** 2)) * (1 + 0.06 * x)
    )
    return profile


def _dark_slope(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Dark level that rises towards the readout amplifier, and the odd-even rows of its ADCs."""
    rows, columns = shape
    slope = 0.05 * (np.arange(columns) / columns - 0.5)[None, :]
    odd_even = 0.01 * (np.arange(rows) % 2)[:, None]
    return np.broadcast_to(slope + odd_even, shape)
