"""A real spectrum: cobalt and rhenium on a carrier, in argon-laden air, at 13 keV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from apsber_bluesky.processing.fluorescence import (
    DetectorResponse,
    Excitation,
    SpectrumFit,
    SpectrumModel,
    calibrate,
    find_elements,
)

# The element before the last has a hump at 5 keV that is in no other: it is not of the sample.
GOOD = [0, 1, 3]


@pytest.fixture(scope="module")
def total() -> np.ndarray:
    path = Path(__file__).parents[2] / "data" / "i18_xrf.h5"
    with h5py.File(path) as file:
        return file["spectra"][:][:, GOOD].sum(axis=(0, 1), dtype=np.float64)


@pytest.fixture(scope="module")
def model(total: np.ndarray) -> SpectrumModel:
    rough = SpectrumModel((), Excitation(13_000.0), DetectorResponse(), (2000.0, 11_000.0))
    found = find_elements(rough, total, tolerance_eV=60.0)
    named = rough.with_elements(tuple(element.symbol for element in found))
    return rough.with_response(calibrate(named, total).response)


def test_the_elements_of_the_sample_are_found_and_no_others(model, total):
    found = find_elements(model, total)
    assert {element.symbol for element in found} == {"Co", "Re", "Ar", "Fe", "Cr", "S"}
    assert found[0].symbol == "Co"
    assert found[0].significance > 50


@pytest.mark.parametrize(
    ("symbol", "line_eV"),
    [("Co", 6926), ("Re", 8646), ("Fe", 6400), ("Ar", 2957), ("Cr", 5412)],
)
def test_its_peaks_are_within_30_eV_of_the_tables(model, total, symbol, line_eV):
    (found,) = (e for e in find_elements(model, total) if e.symbol == symbol)
    assert found.line_eV == pytest.approx(line_eV, abs=5)
    assert found.peak_eV == pytest.approx(line_eV, abs=30)


def test_calibration_stays_at_the_10_eV_of_the_electronics(model):
    assert model.response.gain_eV == pytest.approx(10.0, rel=0.003)
    assert abs(model.response.offset_eV) < 20


def with_titanium(model: SpectrumModel, total: np.ndarray, counts: float) -> np.ndarray:
    shape = model.element_shape("Ti")
    return total + np.random.default_rng(5).poisson(counts * shape)


def titanium(model: SpectrumModel, total: np.ndarray) -> tuple[float, float]:
    elements = ("Co", "Re", "Ar", "Fe", "Cr", "S", "Ti")
    fit = SpectrumFit(model.with_elements(elements), total, non_negative=False)
    result = fit.fit(total[None])
    return float(result.of("Ti")[0]), float(result.sigma_of("Ti")[0])


def test_its_titanium_is_below_what_four_points_can_show(model, total):
    # The file has a region of interest for it, but no peak above the background there.
    counts, sigma = titanium(model, total)
    assert abs(counts) < 3 * sigma
    assert sigma < 25


def test_titanium_would_be_found_if_there_were_a_hundredth_of_the_cobalt(model, total):
    spiked = with_titanium(model, total, 200)
    counts, sigma = titanium(model, spiked)
    assert counts == pytest.approx(200 + titanium(model, total)[0], abs=4 * sigma)
    (found,) = (e for e in find_elements(model, spiked) if e.symbol == "Ti")
    assert found.peak_eV == pytest.approx(4509, abs=30)


def test_the_function_of_the_how_to_gives_the_counts_of_each_element(documented_code, total):
    names: dict[str, Any] = {}
    exec(documented_code("docs/how-to/fluorescence.md", "fit-spectrum"), names)
    amounts = names["fit"](total, 13_000.0)
    assert {"Co", "Re", "Fe"} <= set(amounts)
    counts, sigma = amounts["Co"]
    assert counts == pytest.approx(17_500, rel=0.03)
    assert 50 < sigma < 300
