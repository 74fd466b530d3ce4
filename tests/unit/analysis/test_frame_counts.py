from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.analysis import missing_frames
from apsber_bluesky.core import FrameBooks, SeriesBooks, Verdict


def books(missing: list[int], expected: int = 1000) -> FrameBooks:
    have = expected - len(missing)
    own = SeriesBooks(expected=expected, received=have, written=have, missing=missing)
    return FrameBooks({"darks": SeriesBooks(expected=10, received=10, written=10), "primary": own})


@pytest.mark.parametrize(
    ("missing", "verdict"),
    [([], Verdict.PASS), ([17], Verdict.WARN), (list(range(50)), Verdict.FAIL)],
)
def test_every_missing_frame_counts(missing, verdict):
    found = missing_frames(books(missing))
    assert found.value == pytest.approx(len(missing) / 1010)
    assert found.verdict is verdict


def test_missing_frames_are_named():
    assert missing_frames(books([3, 9])).note == "2 of 1000 primary (3, 9)"
    assert missing_frames(books(list(range(7)))).note == "7 of 1000 primary (0-6)"
    odd = missing_frames(books(list(range(1, 15, 2))))
    assert odd.note == "7 of 1000 primary (1, 3, 5, 7, 9, and 2 more)"


def test_incomplete_frames_count_like_missing_ones_and_are_named():
    own = SeriesBooks(expected=10, received=9, written=9, missing=[1], incomplete=[4, 5])
    found = missing_frames(FrameBooks({"primary": own}))
    assert found.value == pytest.approx(0.3)
    assert found.note == "1 of 10 primary (1), 2 incomplete primary (4-5)"


def test_frames_that_were_never_written_count_without_a_name():
    own = SeriesBooks(expected=10, received=10, written=8)
    found = missing_frames(FrameBooks({"flats": own}))
    assert found.value == pytest.approx(0.2)
    assert found.note == "2 of 10 flats"


def test_a_run_that_expected_nothing_fails():
    found = missing_frames(FrameBooks())
    assert np.isnan(found.value)
    assert found.verdict is Verdict.FAIL
