"""What a series takes, and what not."""

import pytest

from apsber_bluesky.core import FrameError, SeriesRequest
from apsber_bluesky.streaming._assembler import Series
from apsber_bluesky.streaming._series_messages import Frame, SeriesStart

REQUEST = SeriesRequest("run-1", "primary", 3, 2, 2, "<u2")


def frame(number, series=7):
    return Frame(series, number, 0.0, 0.0, 0, memoryview(bytes(8)))


def test_a_stale_announcement_does_not_take_the_place_of_the_right_one():
    series = Series(1, REQUEST, 0)
    with pytest.raises(FrameError, match="the plan asked for"):
        series.take(SeriesStart(6, 3, 4, 4, "<u2"))
    series.take(SeriesStart(7, 3, 2, 2, "<u2"))
    for number in range(3):
        assert series.take(frame(number)) is not None
        series.stored(number, 0)
    assert series.complete
    assert series.refused == 0


def test_the_counts_of_a_series_are_those_of_its_books():
    series = Series(1, REQUEST, 0, source=7, started=True)
    for number in (2, 0, 0):
        if series.take(frame(number)) is not None:
            series.stored(number, 0)
            series.put_in_ring(number)
    assert series.counts() == {
        "expected": 3,
        "received": 3,
        "written": 2,
        "missing": 1,
        "duplicated": 1,
        "refused": 0,
        "decoded": 2,
    }
    assert (series.contiguous, series.newest_seen, series.newest_decoded) == (1, 2, 2)
