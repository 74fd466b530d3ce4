"""From frames to line integrals, as the profile asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    InputError,
    ProcessingSettings,
    RunDescription,
    TomographyScan,
    array_checksum,
)
from apsber_bluesky.processing import (
    Normaliser,
    PaganinFilter,
    average_reference,
    find_bad_references,
    remove_zingers,
)


@dataclass(frozen=True, slots=True)
class ReferenceFrames:
    """Darks or flats of a run.

    Attributes
    ----------
    frames : ndarray
        Shape ``(n, rows, columns)``.
    numbers : list of int
        Number of each within its stream.
    """

    frames: NDArray[Any]
    numbers: list[int]


class PreparationSteps:
    """From counts to line integrals, in this order: normalise, replace zingers, retrieve phase.

    Parameters
    ----------
    normaliser : Normaliser
        Holds the references.
    zingers : float or None
        Threshold; None leaves zingers.
    phase : PaganinFilter or None
        Filter for projections of this size; None leaves the phase.

    Attributes
    ----------
    zingers_replaced : int
        Pixels so far.
    """

    def __init__(
        self, normaliser: Normaliser, zingers: float | None, phase: PaganinFilter | None
    ) -> None:
        self._normaliser, self._zingers, self._phase = normaliser, zingers, phase
        self.zingers_replaced = 0

    def __call__(
        self,
        frames: NDArray[Any],
        out: NDArray[np.float32] | None = None,
        *,
        positions: NDArray[np.float64] | None = None,
        own_rows: slice | None = None,
    ) -> NDArray[np.float32]:
        """Turn frames into line integrals.

        Parameters
        ----------
        frames : ndarray
            Shape ``(n, rows, columns)``.
        out : ndarray of float32, optional
            Where to put the result; may be `frames` itself.
        positions : ndarray, optional
            When each was taken, for flats of several times.
        own_rows : slice, optional
            Rows whose zingers count; another slab counts the others. By default all.

        Returns
        -------
        ndarray of float32
            Shape ``(n, rows, columns)``.
        """
        lines = self._normaliser(frames, out, positions=positions)
        if self._zingers is not None:
            before = None if own_rows is None else lines[:, own_rows].copy()
            replaced = remove_zingers(lines, self._zingers)
            if before is not None:
                replaced = int(np.count_nonzero(before != lines[:, own_rows]))
            self.zingers_replaced += replaced
        if self._phase is not None:
            self._phase(lines)
        return lines

    @property
    def parameters(self) -> dict[str, Any]:
        """What was done beside normalising; for the provenance."""
        found: dict[str, Any] = {}
        if self._zingers is not None:
            found |= {"zinger_threshold": self._zingers, "zingers": self.zingers_replaced}
        if self._phase is not None:
            found |= {"phase": "Paganin", "phase_reach_px": self._phase.reach_px}
        return found


class Preparation:
    """Normalises the projections of one run, and does what else the profile asks for.

    References that are unlike the others are left out. With ``flats: interpolate`` and flats from
    before and after the scan, the flat of each projection lies between the two averages.

    Parameters
    ----------
    run : RunDescription
        The run.
    settings : ProcessingSettings
        What is asked for.
    darks : ReferenceFrames or None
        Darks; without any the dark is zero.
    flats : ReferenceFrames
        Flats.

    Attributes
    ----------
    warnings : list of str
        What the user should know about the references.
    used_darks, used_flats : list of int
        Numbers of those that went into an average.
    inputs : dict of str to str
        Checksums of the mean references.
    bad_pixels : ndarray of bool, shape (rows, columns)
        Pixels that do not answer to light.

    Raises
    ------
    InputError
        If references are missing or unusable, or phase retrieval lacks a number.
    """

    def __init__(
        self,
        run: RunDescription,
        settings: ProcessingSettings,
        darks: ReferenceFrames | None,
        flats: ReferenceFrames,
    ) -> None:
        scan = run.scan
        self._settings = settings
        self.warnings: list[str] = []
        self.used_darks: list[int] = []
        self.inputs: dict[str, str] = {}
        dark = np.zeros((scan.rows, scan.columns), np.float32)
        if darks is not None:
            dark, self.used_darks = self._average(darks, "darks")
        self.inputs["dark"] = array_checksum(dark)
        series = _series(flats, run) if settings.flats == "interpolate" else [(0.0, flats)]
        means = []
        self.used_flats: list[int] = []
        for _, part in series:
            mean, used = self._average(part, "flats")
            means.append(mean)
            self.used_flats += used
        names = ["flat"] if len(means) == 1 else ["flat before", "flat after"]
        self.inputs |= {n: array_checksum(m) for n, m in zip(names, means, strict=True)}
        self._interpolated = len(means) > 1
        self._normaliser = (
            Normaliser(dark, np.stack(means), flat_positions=[place for place, _ in series])
            if self._interpolated
            else Normaliser(dark, means[0])
        )
        self.bad_pixels: NDArray[np.bool_] = self._normaliser.bad
        phase = _phase_filter(scan, settings)
        self._steps = PreparationSteps(self._normaliser, settings.zingers, phase)

    @property
    def parameters(self) -> dict[str, Any]:
        """What was done, and how often so far; for the provenance."""
        found: dict[str, Any] = {
            "num_darks": len(self.used_darks),
            "num_flats": len(self.used_flats),
            "bad_pixels": int(self.bad_pixels.sum()),
            "flats": "interpolate" if self._interpolated else "average",
        }
        if self.warnings:
            found["references_left_out"] = "; ".join(self.warnings)
        return found | self._steps.parameters

    def __call__(
        self, frames: NDArray[Any], first: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Turn projections ``first`` to ``first + n`` into line integrals.

        Parameters
        ----------
        frames : ndarray
            Shape ``(n, rows, columns)``.
        first : int
            Number of the first of them in the scan.
        out : ndarray of float32, optional
            Where to put the result; may be `frames` itself.

        Returns
        -------
        ndarray of float32
            Shape ``(n, rows, columns)``.
        """
        positions: NDArray[np.float64] | None = None
        if self._interpolated:
            positions = np.arange(first, first + len(frames), dtype=np.float64) + 0.5
        return self._steps(frames, out, positions=positions)

    def _average(
        self, references: ReferenceFrames, what: Literal["darks", "flats"]
    ) -> tuple[NDArray[np.float32], list[int]]:
        frames, numbers = references.frames, references.numbers
        if not numbers:
            # Says that there are none.
            return average_reference(frames, what=what), []
        bad = find_bad_references(frames, what=what)
        self.warnings += [
            f"{what[:-1]} {numbers[place]} is left out: it {bad[place]}" for place in sorted(bad)
        ]
        mean = average_reference(frames, what=what, ignore=bad)
        return mean, [number for place, number in enumerate(numbers) if place not in bad]


def _series(flats: ReferenceFrames, run: RunDescription) -> list[tuple[float, ReferenceFrames]]:
    """Flats of each time they were taken at, with its place among the numbers of projections."""
    half = run.scan.num_flats // 2
    after = np.array(flats.numbers, dtype=np.int64) >= half
    # If one of the two series is lost, the other serves all projections.
    if run.flat_mode != "both" or after.all() or not after.any():
        return [(0.0, flats)]
    places = ((0.0, ~after), (float(run.scan.num_projections), after))
    return [
        (place, ReferenceFrames(flats.frames[own], np.array(flats.numbers)[own].tolist()))
        for place, own in places
    ]


def _phase_filter(scan: TomographyScan, settings: ProcessingSettings) -> PaganinFilter | None:
    phase = settings.phase
    if phase is None:
        return None
    distance_mm = phase.distance_mm or scan.sample_detector_distance_mm
    return phase_filter(
        scan.rows,
        scan.columns,
        delta_over_beta=phase.delta_over_beta,
        numbers={
            "processing.phase.energy_keV": phase.energy_keV or scan.energy_keV,
            "processing.phase.distance_mm": distance_mm,
            "the camera's pixel size": scan.pixel_size_um,
        },
    )


def phase_filter(
    rows: int, columns: int, *, delta_over_beta: float, numbers: dict[str, float | None]
) -> PaganinFilter:
    """The filter for projections of a size.

    Parameters
    ----------
    rows, columns : int
        Size of a projection [pixel].
    delta_over_beta : float
        Of the sample's material.
    numbers : dict
        Photon energy [keV], distance [mm] and pixel size [um], in this order, by what a user
        would call them.

    Raises
    ------
    InputError
        If a number is missing; it is named.
    """
    missing = [name for name, value in numbers.items() if value is None]
    energy_keV, distance_mm, pixel_size_um = numbers.values()
    if energy_keV is None or distance_mm is None or pixel_size_um is None:
        raise InputError(f"phase retrieval needs {' and '.join(missing)}, which nothing says")
    return PaganinFilter(
        rows,
        columns,
        energy_keV=energy_keV,
        distance_m=distance_mm / 1e3,
        pixel_size_um=pixel_size_um,
        delta_over_beta=delta_over_beta,
    )
