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
        self._phase = _phase_filter(scan, settings)
        self._zingers = 0

    @property
    def parameters(self) -> dict[str, Any]:
        """What was done, and how often so far; for the provenance."""
        found: dict[str, Any] = {
            "num_darks": len(self.used_darks),
            "num_flats": len(self.used_flats),
            "bad_pixels": int(self._normaliser.bad.sum()),
            "flats": "interpolate" if self._interpolated else "average",
        }
        if self.warnings:
            found["references_left_out"] = "; ".join(self.warnings)
        if self._settings.zingers is not None:
            found |= {"zinger_threshold": self._settings.zingers, "zingers": self._zingers}
        if self._phase is not None:
            found |= {"phase": "Paganin", "phase_reach_px": self._phase.reach_px}
        return found

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
        positions = np.arange(first, first + len(frames)) + 0.5 if self._interpolated else None
        projections = self._normaliser(frames, out, positions=positions)
        if self._settings.zingers is not None:
            self._zingers += remove_zingers(projections, self._settings.zingers)
        if self._phase is not None:
            self._phase(projections)
        return projections

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
    energy_keV = phase.energy_keV or scan.energy_keV
    distance_mm = phase.distance_mm or scan.sample_detector_distance_mm
    if energy_keV is None or distance_mm is None or scan.pixel_size_um is None:
        known = {
            "processing.phase.energy_keV": energy_keV,
            "processing.phase.distance_mm": distance_mm,
            "the camera's pixel size": scan.pixel_size_um,
        }
        missing = [name for name, value in known.items() if value is None]
        raise InputError(
            f"phase retrieval needs {' and '.join(missing)}, which neither the scan nor the "
            "profile says"
        )
    return PaganinFilter(
        scan.rows,
        scan.columns,
        energy_keV=energy_keV,
        distance_m=distance_mm / 1e3,
        pixel_size_um=scan.pixel_size_um,
        delta_over_beta=phase.delta_over_beta,
    )
