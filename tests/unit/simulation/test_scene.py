from __future__ import annotations

import math

import numpy as np
import pytest

from apsber_bluesky.core import ConfigurationError, ImageKey, SimulationSettings
from apsber_bluesky.simulation._beamline import PhantomSource
from apsber_bluesky.simulation._filters import FOILS, Foil, transmission_of
from apsber_bluesky.simulation._materials import RelativeAttenuation, attenuation_per_um
from apsber_bluesky.simulation._pulse_output_aerotech import AerotechController
from apsber_bluesky.simulation._scene import STILL, Scene, roll_image

SETTINGS = SimulationSettings(rows=32, columns=48, dead_pixel_fraction=0.0)


def image(scene, settings=SETTINGS, kind=ImageKey.PROJECTION):
    source = PhantomSource(settings)
    return source.image(kind, number=0, unique_id=1, angle_deg=30.0, scene=scene).astype(float)


def test_a_still_scene_at_the_energy_of_reference_changes_no_bit():
    plain = image(STILL)
    assert np.array_equal(plain, image(Scene(energy_keV=SETTINGS.energy_keV)))


def test_attenuation_coefficients_are_those_of_the_tables():
    # Hubbell and Seltzer, NIST: 3.44 cm^2/g for aluminium at 20 keV.
    assert attenuation_per_um("Al", 20.0) * 1e4 / 2.699 == pytest.approx(3.44, rel=0.02)


def test_light_that_filters_let_through_multiplies():
    one, two = transmission_of((FOILS[0],), 20.0), transmission_of((FOILS[2],), 20.0)
    assert transmission_of((FOILS[0], FOILS[2]), 20.0) == pytest.approx(one * two)
    assert transmission_of((), 20.0) == 1.0
    expected = math.exp(-attenuation_per_um("Cu", 30.0) * 20.0)
    assert transmission_of((Foil("Cu", 20.0),), 30.0) == pytest.approx(expected)


def test_an_edge_shows_in_the_sample():
    ratio = RelativeAttenuation("Fe", 7.0)
    assert ratio.at(7.0) == 1.0
    assert ratio.at(7.2) / ratio.at(7.1) > 6


@pytest.mark.parametrize("material", ["", "Xx", "no formula!"])
def test_a_material_that_is_none_is_named_at_the_start(material):
    with pytest.raises(ConfigurationError, match="is no chemical formula"):
        PhantomSource(SimulationSettings(rows=8, columns=8, material=material))


def test_without_beam_only_the_dark_level_is_left():
    dark = image(Scene(has_beam=False)).mean()
    assert dark == pytest.approx(SETTINGS.dark_counts, rel=0.1)
    assert image(Scene(has_beam=False), kind=ImageKey.FLAT).mean() == pytest.approx(dark, rel=0.1)


def test_a_leaning_picture_keeps_its_axis_in_the_middle_row():
    upright = np.zeros((41, 61), np.float32)
    upright[:, 30] = 1.0
    leaning = roll_image(upright, 30.0, 5.0)
    columns = leaning.argmax(axis=1)
    assert columns[20] == 30
    assert columns[35] - columns[5] == pytest.approx(30 * math.tan(math.radians(5.0)), abs=1)


class Still:
    """An axis that stands at 10 degrees."""

    def __init__(self):
        self.listeners = []

    def advance(self):
        return 0.0

    def position(self, at_s):
        return 10.0


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("PSOCONTROL X RESET", "%"),
        ("PSODISTANCE X FIXED 100", "%"),
        ("PSODISTANCE X FIXED 0", "#"),
        ("PSOWINDOW X 1 RANGE -5,5", "%"),
        ("PSOWINDOW X 1 RANGE 5,-5", "#"),
        ("PSOWINDOW @0 1 OFF", "%"),
        ("PSOCONTROL X ARM", "#"),
        ("PSOCONTROL X FIRE", "!"),
        ("", "!"),
        ("PSODISTANCE X FIXED 99999999999999999999", "!"),
    ],
)
def test_the_controller_answers_what_it_did(words, answer):
    controller = AerotechController("P:", Still(), lambda pulses: None)
    assert controller.obey(words) == answer
