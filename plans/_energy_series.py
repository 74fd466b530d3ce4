"""The same sample at many photon energies."""

from __future__ import annotations

import math
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import Msg, MsgGenerator

from apsber_bluesky.core import InputError, submit_prediction
from apsber_bluesky.devices import Camera, FastShutter, Monochromator, RotationStage, SampleAxis
from apsber_bluesky.plans._checks import check_count
from apsber_bluesky.plans._detector_run import DetectorRun, detector_run, run_metadata
from apsber_bluesky.plans._fly_tomography import fly_tomography
from apsber_bluesky.plans._mosaic_tomography import predicted
from apsber_bluesky.plans._planned_series import Timing
from apsber_bluesky.plans._preflight import flats_s, motion_s, predict_series, series_s, together
from apsber_bluesky.plans._scan import (
    Instrument,
    References,
    check_references,
    check_timing,
    describe_scan,
)

_EV: Final = 1e-3
#: Regions about an absorption edge: from, to and step [eV to the edge]. Coarse where nothing is
#: expected, half the usual core-hole width where the edge rises, wider in the oscillations.
_XANES_EV: Final = ((-150.0, -20.0, 10.0), (-20.0, 30.0, 1.0), (30.0, 150.0, 5.0))
_MOST_ENERGIES: Final = 10_000


def energy_series(
    camera: Camera,
    rotation: RotationStage,
    shutter: FastShutter,
    sample_x: SampleAxis,
    monochromator: Monochromator,
    *,
    energies_keV: list[float] | None = None,
    edge_keV: float | None = None,
    mode: Literal["images", "tomography"] = "images",
    num_images: int = 1,
    num_projections: int = 180,
    exposure_s: float = 0.02,
    num_darks: int = 10,
    num_flats: int = 5,
    sample_in_mm: float = 0.0,
    sample_out_mm: float = 8.0,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, tuple[str, ...]]:
    """Take images or tomography scans at a list of photon energies, with flats at each.

    ``images`` is one run: `num_images` frames of stream ``primary`` and `num_flats` of ``flats``
    per energy, in the order of the energies, which stream ``energies`` has as read back.
    ``tomography`` is one run per energy; key ``energy_series`` of their start documents says which
    energy of which series, and ``tomography.energy_keV`` holds it.

    Parameters
    ----------
    camera : Camera
        Camera to expose.
    rotation : RotationStage
        Stage that turns the sample; stands still for images.
    shutter : FastShutter
        Shutter, closed for darks and after each run.
    sample_x : SampleAxis
        Axis that moves the sample out of the beam for flats.
    monochromator : Monochromator
        Sets the photon energy.
    energies_keV : list of float, optional
        The energies, in the order in which they are taken [keV].
    edge_keV : float, optional
        Absorption edge to take energies about, in place of `energies_keV`: from 150 eV below to
        150 eV above, in steps of 10 eV, of 1 eV from -20 to 30 eV, and of 5 eV [keV].
    mode : {"images", "tomography"}
        What is taken at each energy.
    num_images : int
        Images at each energy.
    num_projections : int
        Projections at each energy.
    exposure_s : float
        Exposure time of each frame [s].
    num_darks : int
        Darks: once for images, at each energy for tomography.
    num_flats : int
        Flats at each energy, 1 or more.
    sample_in_mm : float
        Position of `sample_x` with the sample in the beam [mm].
    sample_out_mm : float
        Position of `sample_x` with the sample out of the beam [mm].
    sample : str
        Name of the sample.
    md : dict, optional
        Further metadata of each run.

    Yields
    ------
    Msg
        Messages for the RunEngine.

    Returns
    -------
    tuple of str
        Bluesky run uids: one for images, one per energy for tomography.

    Raises
    ------
    InputError
        If an argument is wrong, an energy cannot be reached, or disk or memory would not suffice;
        before anything moves.
    """
    energies = _energies(energies_keV, edge_keV)
    monochromator.check(energies)
    if mode not in ("images", "tomography"):
        raise InputError(f"mode is {mode!r}; give 'images' or 'tomography'")
    check_count("num_images", num_images)
    check_count("num_flats", num_flats)
    instrument = Instrument(camera, rotation, shutter, sample_x)
    timing = check_timing(exposure_s, None)
    references = check_references(
        References(num_darks, num_flats, "start", "start", sample_in_mm, sample_out_mm)
    )
    series = _Series(instrument, monochromator, timing, references, energies, sample, md or {})
    if mode == "images":
        return ((yield from series.images(num_images)),)
    return (yield from series.tomography(num_projections))


def _energies(energies_keV: list[float] | None, edge_keV: float | None) -> list[float]:
    """The list of energies.

    Raises
    ------
    InputError
        If there is none or there are two, or a value is no positive number.
    """
    if (energies_keV is None) == (edge_keV is None):
        raise InputError("give either energies_keV, a list, or edge_keV")
    given: list[Any] = [edge_keV] if energies_keV is None else list(energies_keV)
    for value in given:
        if type(value) is bool or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise InputError(f"photon energy {value!r} is no positive number of keV")
    if energies_keV is None:
        return xanes_energies(float(given[0]))
    if not 1 <= len(given) <= _MOST_ENERGIES:
        raise InputError(f"energies_keV has {len(given)} values; give 1 to {_MOST_ENERGIES}")
    return [float(value) for value in given]


def xanes_energies(edge_keV: float) -> list[float]:
    """Energies about an absorption edge [keV], rising; see `energy_series`."""
    offsets = []
    for low, high, step in _XANES_EV:
        offsets += [low + step * number for number in range(round((high - low) / step))]
    offsets.append(_XANES_EV[-1][1])
    return [round(edge_keV + offset * _EV, 6) for offset in offsets]


@dataclass(frozen=True, slots=True)
class _Series:
    """A series of energies."""

    instrument: Instrument
    monochromator: Monochromator
    timing: Timing
    references: References
    energies: list[float]
    sample: str
    md: dict[str, Any]

    def _way_s(self) -> float:
        """Time that the monochromator takes from the first energy to the last [s]."""
        pairs = zip(self.energies, self.energies[1:], strict=False)
        return sum(motion_s(self.monochromator, after - before) for before, after in pairs)

    # -- images

    def images(self, num_images: int) -> Generator[Msg, Any, str]:
        """All energies in one run."""
        camera, references, timing = self.instrument.camera, self.references, self.timing
        count = len(self.energies)
        images_s = count * series_s(num_images, timing)
        took_s = self._way_s() + images_s + series_s(references.num_darks, timing)
        took_s += count * flats_s(self.instrument, references, timing)
        frames = references.num_darks + count * (num_images + references.num_flats)
        submit_prediction(predict_series("energy_series", camera, frames, took_s, images_s))
        conditions = {
            "purpose": "energy_series",
            "energies_keV": self.energies,
            "images_per_energy": num_images,
            "flats_per_energy": references.num_flats,
            "exposure_s": timing.exposure_s,
        }
        metadata = run_metadata(
            "energy_series",
            "detector",
            camera,
            count * num_images,
            conditions,
            motors=(self.monochromator,),
            sample=self.sample,
            md=self.md,
        )

        def body(run: DetectorRun) -> MsgGenerator[None]:
            if references.num_darks:
                yield from run.take("darks", references.num_darks, beam=False)
            for energy in self.energies:
                yield from bps.checkpoint()
                yield from bps.mv(self.monochromator, energy)
                yield from bps.create(name="energies")
                yield from bps.read(self.monochromator)
                yield from bps.save()
                yield from self._one_energy(run, num_images)

        stops = (self.monochromator, self.instrument.sample_x)
        shutter = self.instrument.shutter
        return (yield from detector_run(camera, shutter, timing, metadata, body, stops))

    def _one_energy(self, run: DetectorRun, num_images: int) -> MsgGenerator[None]:
        sample_x, references = self.instrument.sample_x, self.references
        yield from bps.mv(sample_x, references.sample_out_mm)
        # The shutter is closed between the two: the sample sees no beam that makes no image.
        yield from run.take("flats", references.num_flats, beam=True)
        yield from bps.mv(sample_x, references.sample_in_mm)
        yield from run.take("primary", num_images, beam=True)

    # -- tomography

    def tomography(self, num_projections: int) -> Generator[Msg, Any, tuple[str, ...]]:
        """One run per energy."""
        common = {"uid": str(uuid.uuid4()), "energies_keV": self.energies}
        first = predicted(self._scan(num_projections, common, 0))
        parts = [first] * len(self.energies)
        submit_prediction(together("energy_series", parts, self._way_s()))
        uids = []
        for index, energy in enumerate(self.energies):
            yield from bps.checkpoint()
            yield from bps.mv(self.monochromator, energy)
            uids.append((yield from self._scan(num_projections, common, index)))
        return tuple(uids)

    def _scan(
        self, num_projections: int, common: dict[str, Any], index: int
    ) -> Generator[Msg, Any, str]:
        instrument, references = self.instrument, self.references
        scan = describe_scan(
            instrument,
            self.timing,
            references,
            rotation_start_deg=0.0,
            rotation_stop_deg=180.0,
            num_projections=num_projections,
        )
        energy = self.energies[index]
        return fly_tomography(
            instrument.camera,
            instrument.rotation,
            instrument.shutter,
            instrument.sample_x,
            num_projections=num_projections,
            exposure_s=self.timing.exposure_s,
            num_darks=references.num_darks,
            num_flats=references.num_flats,
            sample_in_mm=references.sample_in_mm,
            sample_out_mm=references.sample_out_mm,
            sample=self.sample,
            md={
                "plan_name": "energy_series",
                "energy_series": {**common, "index": index, "energy_keV": energy},
                "tomography": scan.model_copy(update={"energy_keV": energy}).model_dump(),
                **self.md,
            },
        )
