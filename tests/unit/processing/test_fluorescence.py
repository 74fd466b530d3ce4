from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.fluorescence import (
    DetectorResponse,
    Excitation,
    SpectrumFit,
    SpectrumModel,
    calibrate,
    dead_time_factor,
    element_lines,
    escape_fraction,
    find_elements,
    non_negative_least_squares,
    snip_background,
    sum_channels,
)

BINS = 2048
TRUE = DetectorResponse(gain_eV=10.03, offset_eV=-14.0, noise_eV=52.0)


def model_of(*elements: str, response: DetectorResponse | None = None) -> SpectrumModel:
    return SpectrumModel(
        elements, Excitation(12_000.0), response or DetectorResponse(), (2500.0, 12_400.0), BINS
    )


def spectrum_of(amounts: dict[str, float], seed: int = 1) -> np.ndarray:
    """Counts of some elements, scattering and a smooth background, with noise."""
    model = model_of(*amounts, response=TRUE)
    mean = sum(counts * model.element_shape(symbol) for symbol, counts in amounts.items())
    shapes = model.scatter_shapes()
    mean = mean + 40_000 * shapes["elastic"] + 30_000 * shapes["compton 90 deg"]
    mean = mean + 30 * np.exp(-np.arange(BINS) / 500)
    return np.random.default_rng(seed).poisson(mean).astype(float)


AMOUNTS = {"Ca": 20_000.0, "Fe": 50_000.0, "Co": 8_000.0, "Zn": 15_000.0}


# -- lines


@pytest.mark.parametrize(
    ("symbol", "line", "energy_eV"),
    [("Ca", "Ka1", 3692), ("Fe", "Ka1", 6405), ("Zn", "Ka1", 8637), ("Pb", "La1", 10_551)],
)
def test_the_strongest_line_is_that_of_the_deepest_shell_in_reach(symbol, line, energy_eV):
    strongest = element_lines(symbol, 14_000.0).strongest
    assert strongest.name == line
    assert strongest.energy_eV == pytest.approx(energy_eV, abs=3)


def test_a_shell_that_the_beam_does_not_reach_emits_nothing():
    assert {line.name[0] for line in element_lines("Zn", 9_600.0).lines} == {"L"}
    # Lead's L3 edge is at 13.035 keV, its L2 edge at 15.2 keV.
    assert not any(line.name == "Lb1" for line in element_lines("Pb", 13_500.0).lines)


def test_cross_sections_are_photoabsorption_times_yield():
    import xraydb

    edge = xraydb.xray_edge("Fe", "K")
    expected = xraydb.mu_elam("Fe", 12_000.0, kind="photo") * (1 - 1 / edge.jump_ratio)
    k_lines = [x for x in element_lines("Fe", 12_000.0).lines if x.name.startswith("K")]
    total = sum(line.cross_section_cm2_g for line in k_lines)
    assert total == pytest.approx(expected * edge.fyield, rel=0.01)


@pytest.mark.parametrize(("symbol", "energy"), [("Xx", 1e4), ("fe", 1e4), ("Fe", -1.0)])
def test_what_is_no_element_or_energy_is_refused(symbol, energy):
    with pytest.raises(InputError, match=r"Fe|energy|Xx"):
        element_lines(symbol, energy)


# -- response


def test_a_peak_has_one_count_its_energy_and_its_width():
    response = DetectorResponse(noise_eV=50.0)
    peak = response.peak(1700.0, BINS)
    axis = response.energies_eV(BINS)
    assert peak.sum() == pytest.approx(1.0, abs=1e-6)
    assert (peak * axis).sum() == pytest.approx(1700.0, abs=0.1)
    width = np.sqrt((peak * (axis - 1700.0) ** 2).sum())
    assert width == pytest.approx(np.hypot(response.sigma_eV(1700.0), 10 / np.sqrt(12)), rel=1e-3)


def test_the_tail_lies_below_the_peak_and_holds_its_part():
    response = DetectorResponse(tail_fraction=0.1, tail_eV=200.0)
    peak = response.peak(1700.0, BINS)
    axis = response.energies_eV(BINS)
    assert peak.sum() == pytest.approx(1.0, abs=1e-4)
    # An exponential of length 200 eV pulls the mean down by its part times that.
    assert (peak * axis).sum() == pytest.approx(1700.0 - 0.1 * 200.0, abs=0.3)


def test_the_escape_peak_is_as_reed_and_ware_measured_it():
    # About 1 % at the K lines of chlorine, and falling with the energy (their figure 1).
    assert escape_fraction(1800.0) == 0.0
    assert 0.008 < escape_fraction(2622.0) < 0.02
    assert escape_fraction(6400.0) < 0.006
    peak = DetectorResponse().peak(6400.0, BINS)
    near_escape = peak[445:487].sum()
    assert near_escape == pytest.approx(escape_fraction(6400.0), rel=0.02)


def test_the_window_stops_soft_and_the_detector_lets_hard_photons_through():
    response = DetectorResponse(beryllium_um=25.0, silicon_um=450.0)
    assert response.efficiency(1000.0) < 0.4
    assert response.efficiency(6000.0) > 0.97
    assert response.efficiency(30_000.0) < 0.35


# -- background


def test_snip_keeps_a_smooth_background_and_loses_the_peaks():
    axis = np.arange(BINS)
    background = 400 * np.exp(-axis / 800) + 20
    peaks = 5000 * np.exp(-0.5 * ((axis - 640) / 7) ** 2) + 800 * np.exp(
        -0.5 * ((axis - 900) / 7) ** 2
    )
    found = snip_background(background + peaks, 35)
    inside = slice(60, -60)
    assert np.abs(found[inside] / background[inside] - 1).max() < 0.08


# -- non-negative least squares


@pytest.mark.parametrize("seed", range(4))
def test_amounts_are_those_of_scipys_solver_for_each_spectrum(seed):
    rng = np.random.default_rng(seed)
    shapes = rng.random((60, 9)) + np.eye(60, 9)
    data = shapes @ np.maximum(rng.normal(size=(9, 200)), 0) + rng.normal(size=(60, 200))
    solved = non_negative_least_squares(shapes.T @ shapes, shapes.T @ data)
    expected = np.stack([nnls(shapes, column)[0] for column in data.T], axis=1)
    np.testing.assert_allclose(solved, expected, atol=1e-8)


# -- fit


@pytest.fixture(scope="module")
def calibrated() -> SpectrumModel:
    total = spectrum_of(AMOUNTS)
    model = model_of(*AMOUNTS)
    return model.with_response(calibrate(model, total).response)


def test_calibration_finds_gain_offset_and_noise(calibrated):
    found = calibrated.response
    assert found.gain_eV == pytest.approx(TRUE.gain_eV, rel=2e-4)
    assert found.offset_eV == pytest.approx(TRUE.offset_eV, abs=1.5)
    assert found.noise_eV == pytest.approx(TRUE.noise_eV, abs=2.0)


def test_the_elements_in_a_spectrum_are_found_and_no_others(calibrated):
    found = find_elements(calibrated, spectrum_of(AMOUNTS))
    assert {element.symbol for element in found} == set(AMOUNTS)
    assert all(abs(element.peak_eV - element.line_eV) < 5 for element in found)


def test_amounts_and_their_uncertainties_are_right(calibrated):
    spectra = np.stack([spectrum_of(AMOUNTS, seed) for seed in range(2, 62)])
    result = SpectrumFit(calibrated, spectra.sum(axis=0)).fit(spectra)
    assert result.reduced_chi2.mean() == pytest.approx(1.0, abs=0.05)
    for symbol, counts in AMOUNTS.items():
        found = result.of(symbol)
        assert found.mean() == pytest.approx(counts, rel=0.01)
        # The scatter of equal spectra is what their uncertainty says.
        assert found.std() == pytest.approx(result.sigma_of(symbol).mean(), rel=0.3)


def test_elements_that_overlap_are_told_apart(calibrated):
    # Iron's K beta lies below cobalt's K alpha.
    spectra = np.stack([spectrum_of({**AMOUNTS, "Co": c}) for c in (500.0, 4000.0)])
    cobalt = SpectrumFit(calibrated, spectra.sum(axis=0)).fit(spectra).of("Co")
    assert cobalt == pytest.approx([500, 4000], abs=450)


def test_nothing_is_negative_unless_that_is_wanted(calibrated):
    spectra = np.stack([spectrum_of({"Fe": 300.0}, seed) for seed in range(30)])
    total = spectra.sum(axis=0)
    held = SpectrumFit(calibrated, total).fit(spectra)
    free = SpectrumFit(calibrated, total, non_negative=False).fit(spectra)
    assert held.counts.min() == 0.0
    assert free.of("Ca").min() < 0
    assert abs(free.of("Ca").mean()) < 3 * free.sigma_of("Ca").mean() / np.sqrt(30)


def test_many_spectra_are_fitted_as_one_by_one(calibrated):
    spectra = np.stack([spectrum_of(AMOUNTS, seed) for seed in range(5)])
    fit = SpectrumFit(calibrated, spectra.sum(axis=0))
    together = fit.fit(np.tile(spectra, (300, 1)))
    alone = fit.fit(spectra)
    np.testing.assert_allclose(together.counts[-5:], alone.counts, rtol=1e-9)
    assert len(together.counts) == 1500


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: model_of("Pb"), "Pb has no line"),
        (lambda: Excitation(-1.0), "photon energy"),
        (lambda: DetectorResponse(gain_eV=0.0), "no detector"),
        (lambda: SpectrumFit(model_of("Fe"), np.zeros(BINS)), "0 counts"),
        (lambda: SpectrumFit(model_of("Fe"), np.ones(BINS)).fit(np.ones((2, 7))), r"\(2, 7\)"),
        (lambda: calibrate(model_of(), np.ones(BINS)), "no element"),
        (lambda: snip_background(np.ones(10), 20), "does not fit"),
        (lambda: dead_time_factor(10.0, 0.0, 1e-7), "exposure_s is 0.0"),
        (lambda: dead_time_factor(1e7, 1.0, 3e-7), "dead for 300 %"),
        (lambda: sum_channels(np.ones((3, 4)), 1.0, 0.0), r"\(3, 4\)"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, words):
    with pytest.raises(InputError, match=words):
        make()


# -- dead time


def test_the_correction_undoes_what_a_dead_detector_missed():
    arriving_s, width_s = np.array([1e4, 3e5, 8e5]), 3e-7
    recorded_s = arriving_s / (1 + arriving_s * width_s)
    factors = dead_time_factor(recorded_s * 0.02, 0.02, width_s)
    np.testing.assert_allclose(recorded_s * factors, arriving_s, rtol=1e-12)


def test_channels_are_summed_each_with_its_own_dead_time():
    rng = np.random.default_rng(2)
    spectra = rng.poisson(20.0, (3, 2, 50)).astype(np.uint32)
    widths = [0.0, 2e-6]
    total, variance = sum_channels(spectra, 0.01, widths)
    factor = dead_time_factor(spectra[:, 1].sum(axis=1), 0.01, 2e-6)[:, None]
    np.testing.assert_allclose(total, spectra[:, 0] + factor * spectra[:, 1])
    np.testing.assert_allclose(variance, spectra[:, 0] + factor**2 * spectra[:, 1])
