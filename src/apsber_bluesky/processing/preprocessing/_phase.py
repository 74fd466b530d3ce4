"""Phase retrieval from single projections taken at a distance."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing._arrays import array_namespace

# h c / e [keV m]
_KEV_METRE = 1.239841984332e-9
# What lies so many lengths of decay off is lost in single precision.
_DECAYS = 16
# Bytes that a padded pixel takes while its projection is filtered, or the response is made.
_PIXEL_BYTES = 18


class PaganinFilter:
    """Turns edge-enhanced projections of one material into those of its attenuation.

    Behind a homogeneous object, at a distance at which each edge shows one fringe, the thickness
    follows from a single image: with ``mu`` the attenuation, ``mu t = -log F^-1[F[I / I0] /
    (1 + (d delta / mu) k^2)]`` (D. Paganin et al., Journal of Microscopy 206 (2002) 33), where
    ``k^2`` is that of the differences between pixels, ``2 (2 - cos k_x - cos k_y)``: that blurs
    less, and decays exponentially (D. Paganin et al., Journal of Optics 22 (2020) 115607). The
    result is a line integral of ``mu``, as without the filter, with far less noise. Each
    projection is filtered on its own, continued beyond its edges by its edge pixels.

    A part of the rows has the wrong neighbours within `halo` rows of its edges; what lies further
    inside is, to the rounding of single precision, what a whole projection gives.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    energy_keV : float
        Photon energy [keV].
    distance_m : float
        From the object to the detector [m].
    pixel_size_um : float
        Size of a pixel at the object [um].
    delta_over_beta : float
        Decrement of the refractive index over its imaginary part, of the object's material.

    Attributes
    ----------
    reach_px : float
        Distance over which the filter averages [pixel].
    halo : int
        Rows and columns by which projections are continued [pixel].

    Raises
    ------
    InputError
        If a value is not positive and finite.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        energy_keV: float,
        distance_m: float,
        pixel_size_um: float,
        delta_over_beta: float,
    ) -> None:
        given = {
            "rows": rows,
            "columns": columns,
            "energy_keV": energy_keV,
            "distance_m": distance_m,
            "pixel_size_um": pixel_size_um,
            "delta_over_beta": delta_over_beta,
        }
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; give a positive number")
        wavelength_m = _KEV_METRE / energy_keV
        # delta / mu = (delta / beta) wavelength / (4 pi), for mu = 4 pi beta / wavelength.
        area_m2 = distance_m * delta_over_beta * wavelength_m / (4 * math.pi)
        self.reach_px = math.sqrt(area_m2) / (pixel_size_um * 1e-6)
        decay_px = 1 / math.acosh(1 + 0.5 / self.reach_px**2)
        self.halo = math.ceil(min(_DECAYS * decay_px, max(rows, columns))) + 1
        self._shape = (rows, columns)
        self._padded = tuple(
            int(scipy.fft.next_fast_len(size + 2 * self.halo, real=True)) for size in self._shape
        )

    @property
    def work_bytes(self) -> int:
        """Memory that the filter works with, beside the projections."""
        return _PIXEL_BYTES * math.prod(self._padded)

    @functools.cached_property
    def _response(self) -> NDArray[np.float32]:
        down = 2 * np.pi * scipy.fft.fftfreq(self._padded[0])[:, None]
        right = 2 * np.pi * scipy.fft.rfftfreq(self._padded[1])[None, :]
        response = 1 / (1 + 2 * self.reach_px**2 * (2 - np.cos(down) - np.cos(right)))
        return np.asarray(response, dtype=np.float32)

    def __call__(self, projections: NDArray[np.float32]) -> None:
        """Filter line integrals in their place.

        Parameters
        ----------
        projections : ndarray of float32
            Finite line integrals ``-log(I / I0)``, shape ``(n, rows, columns)``; on a GPU if it
            is a CuPy array.

        Raises
        ------
        InputError
            If `projections` is not float32 of that shape.
        """
        if projections.shape[1:] != self._shape or projections.dtype != np.float32:
            raise InputError(
                f"projections are {projections.dtype} {projections.shape}; this filter takes "
                f"float32 (n, {self._shape[0]}, {self._shape[1]})"
            )
        xp = array_namespace(projections)
        response = xp.asarray(self._response)
        for image in projections:
            image[...] = self._thickness(xp, image, response)

    def _thickness(self, xp: Any, image: Any, response: Any) -> Any:
        rows, columns = self._shape
        margins = [
            (self.halo, padded - size - self.halo)
            for size, padded in zip(self._shape, self._padded, strict=True)
        ]
        fft = scipy.fft if xp is np else xp.fft
        waves = fft.rfft2(xp.pad(xp.exp(-image), margins, mode="edge"))
        waves *= response
        smooth = fft.irfft2(waves, s=self._padded)
        inside = smooth[self.halo : self.halo + rows, self.halo : self.halo + columns]
        # An average of positive numbers is positive, but for the rounding of the transform.
        least = np.finfo(np.float32).tiny
        return -xp.log(xp.maximum(inside, least))
