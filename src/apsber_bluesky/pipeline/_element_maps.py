"""Maps of elements out of the spectra of a fluorescence run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    ELEMENT_MAPS_NAME,
    FluorescenceMap,
    FrameRange,
    InputError,
    array_checksum,
    file_checksum,
)
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.pipeline._element_maps_file import MapProducts, write_element_maps
from apsber_bluesky.processing.fluorescence import (
    Calibration,
    DetectorResponse,
    Excitation,
    FoundElement,
    SpectrumFit,
    SpectrumModel,
    calibrate,
    find_elements,
    sum_channels,
)

#: Frames that are read at once; of 4 x 4096 counts each they are 16 MB.
_BATCH: Final = 256
# Before the calibration is refined peaks may be further from their place.
_ROUGH_EV: Final = 60.0


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How spectra are fitted.

    Attributes
    ----------
    lowest_eV : float
        Energy at which the fit begins [eV]; it ends above the elastic peak.
    scattering_angle_deg : float
        Angle between beam and detector [deg].
    significance : float
        Standard uncertainties that an element must have to be found.
    """

    lowest_eV: float = 2000.0
    scattering_angle_deg: float = 90.0
    significance: float = 5.0


class ElementMaps:
    """Fit the spectra of a map, and write a map of each element.

    Parameters
    ----------
    settings : FitSettings, optional
        How spectra are fitted.
    """

    name = "element maps"
    essential = True

    def __init__(self, settings: FitSettings | None = None) -> None:
        self._settings = settings or FitSettings()

    def run(self, context: RunContext) -> None:
        """Write ``maps.h5``.

        Raises
        ------
        InputError
            If the run is no map, has no spectra, or none of its elements can be seen.
        RunCancelled
            If it was told to stop.
        """
        started = time.time()
        if "rows" not in context.run.conditions:
            # A series of spectra that is no map is kept as it is.
            return
        raster = FluorescenceMap.check(context.run.conditions)
        spectra = _Spectra(context, raster)
        total = np.zeros(0)
        for _, counts, _ in spectra:
            total = total + counts.sum(axis=0) if total.size else counts.sum(axis=0)
        if not total.any():
            raise InputError("the spectra of this map are empty; was the shutter open?")
        model, found, calibration = self._model(raster, total)
        products = self._fit(context, raster, spectra, model, total)
        path = context.folder.path / ELEMENT_MAPS_NAME
        products.found, products.calibration = found, calibration
        write_element_maps(path, context.run, raster, products)
        response = calibration.response
        context.record(
            self.name,
            started,
            {
                "elements": list(model.elements),
                "photon_energy_keV": raster.photon_energy_keV,
                "fit_range_eV": list(model.fit_range_eV),
                "gain_eV": response.gain_eV,
                "offset_eV": response.offset_eV,
                "noise_eV": response.noise_eV,
                "event_width_s": raster.event_width_s,
                "reduced_chi2_of_sum": calibration.reduced_chi2,
            },
            inputs={"sum_spectrum": array_checksum(total)},
            outputs={ELEMENT_MAPS_NAME: file_checksum(path)},
        )

    def _model(
        self, raster: FluorescenceMap, total: NDArray[np.float64]
    ) -> tuple[SpectrumModel, tuple[FoundElement, ...], Calibration]:
        """The elements, and the calibration that puts their lines on the peaks."""
        if raster.photon_energy_keV is None:
            raise InputError("the photon energy of this map is not known; give photon_energy_keV")
        energy_eV = 1e3 * raster.photon_energy_keV
        response = DetectorResponse(gain_eV=raster.bin_width_eV)
        highest_eV = min(1.03 * energy_eV, response.gain_eV * (total.size - 1))
        model = SpectrumModel(
            (),
            Excitation(energy_eV, self._settings.scattering_angle_deg),
            response,
            (self._settings.lowest_eV, highest_eV),
            total.size,
        )
        wanted = tuple(raster.elements) if raster.elements else None
        found = self._find(model, total, wanted, _ROUGH_EV)
        calibration = Calibration(response, float("nan"))
        if found:
            calibration = calibrate(model.with_elements(tuple(e.symbol for e in found)), total)
            model = model.with_response(calibration.response)
            found = find_elements(
                model, total, candidates=wanted, significance=self._settings.significance
            )
        # Those that were asked for are mapped, though there may be nothing of them.
        names = wanted or tuple(element.symbol for element in found)
        if not names:
            raise InputError("no element is significant in the sum of these spectra; name some")
        return model.with_elements(names), found, calibration

    def _find(
        self,
        model: SpectrumModel,
        total: NDArray[np.float64],
        candidates: tuple[str, ...] | None,
        tolerance_eV: float,
    ) -> tuple[FoundElement, ...]:
        return find_elements(
            model,
            total,
            candidates=candidates,
            significance=self._settings.significance,
            tolerance_eV=tolerance_eV,
        )

    def _fit(
        self,
        context: RunContext,
        raster: FluorescenceMap,
        spectra: _Spectra,
        model: SpectrumModel,
        total: NDArray[np.float64],
    ) -> MapProducts:
        fit = SpectrumFit(model, total)
        products = MapProducts.empty(raster, fit, total)
        pixels = raster.pixel_of_frame
        for frames, counts, variances in spectra:
            context.check_cancelled(self.name)
            result = fit.fit(counts, variances)
            places = pixels[frames]
            products.counts[places] = result.counts
            products.sigma[places] = result.sigma
            products.reduced_chi2[places] = result.reduced_chi2
            context.report(self.name, int(frames[-1]) + 1, raster.num_frames)
        return products


class _Spectra:
    """The spectra of a map, batch by batch: numbers of the frames, counts and variances.

    Counts are sums over the elements of the detector, corrected for dead time. Frames that are
    missing are left out.
    """

    def __init__(self, context: RunContext, raster: FluorescenceMap) -> None:
        source = context.findings.source
        ranges = [f for f in context.findings.frames if f.stream == "primary"]
        if source is None or not ranges:
            raise InputError("this map has no spectra; were frames of the detector announced?")
        self._source, self._raster, self._ranges = source, raster, ranges
        books = context.findings.books.streams
        self._unusable = frozenset().union(
            *(book.unusable for name, book in books.items() if name.endswith("primary"))
        )

    def __iter__(
        self,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
        raster = self._raster
        for frames in _batches(self._ranges):
            numbers = np.arange(frames.start, frames.stop, dtype=np.int64)
            usable = (numbers < raster.num_frames) & ~np.isin(numbers, list(self._unusable))
            if not usable.any():
                continue
            read = self._source.read(frames)[usable]
            yield (
                numbers[usable],
                *sum_channels(read, raster.exposure_s, np.asarray(raster.event_width_s)),
            )


def _batches(ranges: list[FrameRange]) -> Iterator[FrameRange]:
    """The same frames, none twice, in ranges of a size that fits memory."""
    done = 0
    for frames in sorted(ranges, key=lambda one: one.start):
        for start in range(max(frames.start, done), frames.stop, _BATCH):
            stop = min(start + _BATCH, frames.stop)
            yield FrameRange(
                frames.run_uid, frames.stream, start, stop, frames.uri, frames.dataset,
                frames.detector,
            )  # fmt: skip
        done = max(done, frames.stop)
