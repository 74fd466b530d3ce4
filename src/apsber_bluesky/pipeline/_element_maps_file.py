"""``maps.h5``: a NeXus file with a map of each element."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    PROGRAM,
    FluorescenceMap,
    RunDescription,
    atomic_file,
    explain_disk_errors,
)
from apsber_bluesky.processing.fluorescence import (
    Calibration,
    DetectorResponse,
    FoundElement,
    SpectrumFit,
    is_element,
)

_KEV_NM = 1.2398419843320026


@dataclass(slots=True)
class MapProducts:
    """What came of a map.

    Attributes
    ----------
    fit : SpectrumFit
        What the spectra were fitted with.
    total : ndarray, shape (bins,)
        Sum of all spectra, corrected for dead time [counts].
    counts, sigma : ndarray, shape (pixels, names)
        Counts and their uncertainties, row by row; NaN where a frame is missing.
    reduced_chi2 : ndarray, shape (pixels,)
        Misfit of each pixel.
    found : tuple of FoundElement
        Elements that are significant in the sum.
    calibration : Calibration
        That of the detector.
    """

    fit: SpectrumFit
    total: NDArray[np.float64]
    counts: NDArray[np.float64]
    sigma: NDArray[np.float64]
    reduced_chi2: NDArray[np.float64]
    found: tuple[FoundElement, ...] = ()
    calibration: Calibration = field(
        default_factory=lambda: Calibration(DetectorResponse(), float("nan"))
    )

    @classmethod
    def empty(cls, raster: FluorescenceMap, fit: SpectrumFit, total: NDArray[np.float64]) -> Self:
        """Maps of which no pixel is known yet."""
        shape = (raster.num_frames, len(fit.names))
        return cls(
            fit, total, np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape[0], np.nan)
        )


def write_element_maps(
    path: Path, run: RunDescription, raster: FluorescenceMap, products: MapProducts
) -> None:
    """Write the maps, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    run : RunDescription
        Whose maps.
    raster : FluorescenceMap
        Where the pixels are.
    products : MapProducts
        What was found.

    Raises
    ------
    StorageError
        If the disk refuses.
    """
    with (
        explain_disk_errors(path, "write the element maps"),
        atomic_file(path) as partial,
        h5py.File(partial, "w", libver="latest") as file,
    ):
        file.attrs["default"] = "entry"
        entry = _group(file, "entry", "NXentry", default="maps")
        entry["entry_identifier"] = run.uid
        entry["title"] = f"element maps of {run.sample or 'a sample'}"
        entry["program_name"] = PROGRAM
        _group(entry, "sample", "NXsample")["name"] = run.sample
        _write_instrument(entry, raster, products)
        maps = _group(entry, "maps", "NXcollection")
        for index, name in enumerate(products.fit.names):
            _write_map(maps, name, index, raster, products)
        chi2 = _data(maps, "reduced_chi2", raster, products.reduced_chi2)
        chi2["data"].attrs["long_name"] = "misfit per degree of freedom"
        elements = [name for name in products.fit.names if is_element(name)]
        maps.attrs["elements"] = elements
        maps.attrs["default"] = elements[0]
        _write_process(entry, raster, products)


def _group(parent: Any, name: str, kind: str, **attributes: Any) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    group.attrs.update(attributes)
    return group


def _data(parent: Any, name: str, raster: FluorescenceMap, values: NDArray[np.float64]) -> Any:
    data = _group(parent, name, "NXdata", signal="data", axes=["slow", "fast"])
    data["data"] = values.reshape(raster.rows, raster.columns)
    for axis, positions, of in (
        ("slow", raster.slow_mm, raster.slow_axis),
        ("fast", raster.fast_mm, raster.fast_axis),
    ):
        data[axis] = positions
        data[axis].attrs.update(units="mm", long_name=f"{of} (mm)")
    return data


def _write_map(
    maps: Any, name: str, index: int, raster: FluorescenceMap, products: MapProducts
) -> None:
    counts, sigma = products.counts[:, index], products.sigma[:, index]
    shape = (raster.rows, raster.columns)
    data = _data(maps, name, raster, counts)
    data["data"].attrs.update(units="counts", long_name=f"{name} (counts)")
    data["data_errors"] = sigma.reshape(shape)
    data["data_errors"].attrs["units"] = "counts"
    if not is_element(name):
        return
    sensitivity = products.fit.model.sensitivity_cm2_g(name)
    data["relative_areal_density"] = (counts / sensitivity).reshape(shape)
    data["relative_areal_density"].attrs.update(
        units="g/cm2 times a factor that all elements share",
        long_name=f"{name}: counts over its fluorescence cross section, for a thin sample",
    )
    data["sensitivity"] = sensitivity
    data["sensitivity"].attrs["units"] = "cm2/g"


def _write_instrument(entry: Any, raster: FluorescenceMap, products: MapProducts) -> None:
    """The sum spectrum, under the names that NXfluo has."""
    instrument = _group(entry, "instrument", "NXinstrument")
    energy_keV = float(raster.photon_energy_keV or np.nan)
    monochromator = _group(instrument, "monochromator", "NXmonochromator")
    monochromator["energy"] = energy_keV
    monochromator["energy"].attrs["units"] = "keV"
    monochromator["wavelength"] = _KEV_NM / energy_keV
    monochromator["wavelength"].attrs["units"] = "nm"
    fluorescence = _group(instrument, "fluorescence", "NXdetector")
    model = products.fit.model
    fluorescence["data"] = products.total
    fluorescence["data"].attrs["units"] = "counts"
    fluorescence["energy"] = model.response.energies_eV(products.total.size)
    fluorescence["energy"].attrs["units"] = "eV"
    fluorescence["exposure_s"] = raster.exposure_s
    fluorescence["event_width_s"] = np.asarray(raster.event_width_s)
    spectrum = _group(entry, "data", "NXdata", signal="data", axes=["energy"])
    spectrum["data"] = fluorescence["data"]
    spectrum["energy"] = fluorescence["energy"]
    spectrum["fit"] = products.fit.fitted(products.total)
    spectrum["fit"].attrs["units"] = "counts"
    spectrum["background"] = model.background(products.total)
    spectrum["background"].attrs["units"] = "counts"


def _write_process(entry: Any, raster: FluorescenceMap, products: MapProducts) -> None:
    process = _group(entry, "process", "NXprocess")
    process["program"] = PROGRAM
    process["sequence_index"] = 1
    response = products.calibration.response
    parameters = _group(process, "parameters", "NXparameters")
    for name, value, units in (
        ("gain", response.gain_eV, "eV"),
        ("offset", response.offset_eV, "eV"),
        ("noise", response.noise_eV, "eV"),
        ("reduced_chi2_of_sum", products.calibration.reduced_chi2, ""),
    ):
        parameters[name] = value
        parameters[name].attrs["units"] = units
    parameters["map"] = json.dumps(raster.model_dump())
    found = _group(process, "found", "NXcollection")
    for element in products.found:
        group = _group(found, element.symbol, "NXcollection")
        group["counts"], group["counts_errors"] = element.counts, element.sigma
        group["peak_energy"], group["line_energy"] = element.peak_eV, element.line_eV
        for name in ("peak_energy", "line_energy"):
            group[name].attrs["units"] = "eV"
