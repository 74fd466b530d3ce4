from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.simulation._fluorescence import (
    BINS,
    FluorescenceConditions,
    FluorescenceDetector,
)
from apsber_bluesky.simulation._fluorescence_phantom import FluorescencePhantom

DENSITIES = [30.0, 10.0, 5.0]


@pytest.fixture(scope="module")
def detector() -> FluorescenceDetector:
    return FluorescenceDetector(("Ca", "Fe", "Zn"))


def test_the_same_sample_has_the_same_elements_everywhere_and_another_one_others():
    x, y = np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 20))
    first, again = (FluorescencePhantom(4).densities(x, y) for _ in range(2))
    assert first.shape == (5, 20, 30)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, FluorescencePhantom(5).densities(x, y))
    # Each element has a picture of its own, with much and with next to nothing.
    assert abs(np.corrcoef(first.reshape(5, -1)) - np.eye(5)).max() < 0.9
    assert (first.max(axis=(1, 2)) > 3).all()
    assert (first.min(axis=(1, 2)) < 0.5).all()


def test_it_has_sharp_edges_and_soft_ones():
    x = np.linspace(-1, 1, 4001)
    maps = FluorescencePhantom(1).densities(*np.meshgrid(x, np.linspace(-1, 1, 9)))
    steepest = np.abs(np.gradient(maps, x, axis=2)).max(axis=(1, 2)) / maps.max(axis=(1, 2))
    assert steepest.max() > 10


def test_a_frame_depends_on_its_number_alone(detector):
    first, again, other = (detector.expose(DENSITIES, 0.02, n).spectra for n in (7, 7, 8))
    assert first.shape == (4, BINS)
    assert first.dtype == np.uint32
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_counts_are_those_of_the_rate_but_for_what_dead_time_takes(detector):
    frames = [detector.expose(DENSITIES, 0.05, number) for number in range(40)]
    rate = detector.rate(DENSITIES).sum()
    arrived = np.mean([frame.arrived.mean() for frame in frames]) / 0.05
    # Channels differ by up to a tenth.
    assert arrived == pytest.approx(rate, rel=0.1)
    width_s = detector.conditions.event_width_s
    for frame in frames[:3]:
        np.testing.assert_allclose(frame.dead_part, frame.events * width_s / 0.05)
    events = np.mean([frame.events for frame in frames], axis=0) / 0.05
    inputs = np.mean([frame.arrived for frame in frames], axis=0) / 0.05
    np.testing.assert_allclose(events, inputs / (1 + inputs * width_s), rtol=0.01)


def test_peaks_lie_at_the_lines_with_escape_and_scatter_peaks(detector):
    rate = detector.rate([0.0, 50.0, 0.0])

    def counts(energy_eV: float, half_eV: float = 40.0) -> float:
        around = slice(round((energy_eV - half_eV) / 10), round((energy_eV + half_eV) / 10) + 1)
        return float(rate[around].sum())

    assert counts(6400) > 20 * counts(5600)
    assert counts(7057) == pytest.approx(0.136 * counts(6400), rel=0.15)
    # Silicon's escape peak, and a valley beside it.
    assert counts(6400 - 1740) > 1.5 * counts(5100)
    elastic, compton = counts(12_000), counts(11_725)
    assert min(elastic, compton) > 10 * counts(10_500)


def test_without_light_hardly_anything_is_counted(detector):
    dark = detector.expose(DENSITIES, 0.1, 3, light=0.0)
    lit = detector.expose(DENSITIES, 0.1, 3)
    half = detector.expose(DENSITIES, 0.1, 3, light=0.5)
    assert dark.events.max() < 10
    assert half.events.sum() == pytest.approx(0.5 * lit.events.sum(), rel=0.05)


def test_calcium_is_not_excited_below_its_edge():
    low = FluorescenceDetector(("Ca",), FluorescenceConditions(energy_keV=4.0, scatter_ug_cm2=0.0))
    assert (
        low.rate([100.0])[350:400].sum()
        < 1e-3 * FluorescenceDetector(("Ca",)).rate([100.0])[350:400].sum()
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: FluorescenceConditions(num_channels=0),
        lambda: FluorescenceConditions(energy_keV=-1.0),
        lambda: FluorescencePhantom(elements={}),
        lambda: FluorescencePhantom(elements={"Fe": -1.0}),
    ],
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(InputError):
        make()
