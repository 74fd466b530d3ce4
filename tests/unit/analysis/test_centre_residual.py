from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.analysis import centre_residual
from apsber_bluesky.core import InputError, Verdict

SCANS = {
    "half turn": np.arange(180.0),
    "end included": np.arange(181.0),
    "coarse": np.arange(90) * 2.0,
    "backwards": -np.arange(180.0),
    "full turn": np.arange(180) * 2.0,
    "odd full turn": np.arange(181) * 360 / 181,
    "more than half": np.arange(200.0),
    "elsewhere": np.arange(180.0) + 301.7,
}


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("error", [0.0, 0.3, -2.0])
def test_it_is_the_distance_from_the_true_axis(scan, name, error):
    taken = scan(angles=SCANS[name])
    found = centre_residual(taken.sinograms, taken.angles_deg, taken.centre + error)
    assert found.value == pytest.approx(abs(error), abs=0.1)
    assert found.unit == "px"


@pytest.mark.parametrize("centre", [40.2, 63.5, 90.0])
def test_the_axis_may_lie_anywhere(scan, centre):
    taken = scan(centre=centre, radius=0.8 * min(centre, 127 - centre))
    assert centre_residual(taken.sinograms, taken.angles_deg, centre).value < 0.1


def test_the_verdict_worsens_with_the_error(scan):
    taken = scan()
    verdicts = [
        centre_residual(taken.sinograms, taken.angles_deg, taken.centre + error).verdict
        for error in (0.1, 0.75, 3.0)
    ]
    assert verdicts == [Verdict.PASS, Verdict.WARN, Verdict.FAIL]


def test_the_note_says_where_the_axis_is(scan):
    taken = scan()
    note = centre_residual(taken.sinograms, taken.angles_deg, 69.0).note
    assert note.startswith("axis seen at 66.")
    assert "used 69.00" in note


def test_order_of_the_projections_does_not_matter(scan):
    taken = scan()
    order = np.random.default_rng(0).permutation(180)
    straight = centre_residual(taken.sinograms, taken.angles_deg, 67.0)
    assert centre_residual(taken.sinograms[order], taken.angles_deg[order], 67.0) == straight


@pytest.mark.parametrize("angles", [np.arange(90.0), np.arange(3.0) * 90, np.zeros(9)])
def test_without_opposites_it_cannot_be_measured(scan, angles):
    taken = scan(angles=angles)
    found = centre_residual(taken.sinograms, angles, 64.0)
    assert np.isnan(found.value)
    assert found.verdict is Verdict.FAIL
    assert "opposite" in found.note


def test_empty_projections_fail_with_a_reason():
    found = centre_residual(np.zeros((180, 2, 64)), np.arange(180.0), 31.5)
    assert np.isnan(found.value)
    assert "empty" in found.note


@pytest.mark.parametrize(
    ("sinograms", "angles", "centre", "message"),
    [
        (np.zeros((4, 64)), np.arange(4.0), 31.5, "three dimensions"),
        (np.zeros((4, 1, 64)), np.arange(5.0), 31.5, "4 projections, but angles of shape"),
        (np.zeros((4, 1, 64)), np.full(4, np.nan), 31.5, "one finite angle"),
        (np.full((4, 1, 64), np.inf), np.arange(4.0), 31.5, "hold NaN or infinite"),
        (np.zeros((4, 1, 64)), np.arange(4.0), np.nan, "centre is nan"),
    ],
)
def test_input_that_does_not_fit_is_refused(sinograms, angles, centre, message):
    with pytest.raises(InputError, match=message):
        centre_residual(sinograms, angles, centre)
