"""Angles of interlaced scans: spread almost evenly after any turn, told by two numbers."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from apsber_bluesky.core import RunDescription, TomographyScan

SIZE = {"rows": 2, "columns": 3, "dtype": "<u2", "exposure_s": 0.1}


def interlaced(turns, per_turn=12, **changes):
    return TomographyScan(
        num_projections=turns * per_turn, interlaced_turns=turns, **{**SIZE, **changes}
    )


def test_each_turn_is_the_first_one_shifted_by_the_golden_section():
    scan = interlaced(5, rotation_start_deg=-20.0, rotation_stop_deg=160.0)
    turns = scan.angles_deg.reshape(5, 12)
    np.testing.assert_allclose(turns[0], -20 + 15.0 * np.arange(12))
    golden = 0.6180339887498949
    for number, turn in enumerate(turns):
        np.testing.assert_allclose(turn - turns[0], 15.0 * (number * golden % 1), atol=1e-9)
    assert (scan.projections_per_turn, scan.step_deg) == (12, 15.0)


@pytest.mark.parametrize("turns", range(2, 35))
def test_after_any_turn_the_gaps_have_at_most_three_lengths_that_differ_little(turns):
    angles = np.sort(interlaced(turns).angles_deg)
    gaps = np.diff(angles, append=angles[0] + 180)
    lengths = np.unique(np.round(gaps, 6))
    assert len(lengths) <= 3
    # Three gap theorem for the golden section: the largest is at most 1 + golden ratio smallest.
    assert gaps.max() / gaps.min() < 2.62
    assert gaps.min() > 0


def test_more_turns_leave_the_angles_of_those_before_as_they_are():
    few, many = interlaced(3), interlaced(16)
    np.testing.assert_array_equal(many.angles_deg[:36], few.angles_deg)
    np.testing.assert_array_equal(many.first_angles_deg(20), many.angles_deg[:20])


def test_a_plain_scan_has_the_angles_it_always_had_and_goes_on_behind_its_last():
    scan = TomographyScan(num_projections=7, rotation_stop_deg=180.0, **SIZE)
    np.testing.assert_array_equal(scan.angles_deg, 180 / 7 * np.arange(7))
    np.testing.assert_array_equal(scan.first_angles_deg(9), 180 / 7 * np.arange(9))


def test_projections_that_cannot_be_divided_among_the_turns_are_refused():
    with pytest.raises(ValidationError, match="multiple of interlaced_turns"):
        TomographyScan(num_projections=10, interlaced_turns=3, **SIZE)


def test_a_start_document_with_ten_thousand_projections_stays_small():
    scan = interlaced(100, 100)
    start = {"uid": "u", "tomography": scan.model_dump()}
    assert len(str(start)) < 500
    assert RunDescription.from_start(start).scan.angles_deg.shape == (10_000,)
