"""Moments are read as people write them."""

from __future__ import annotations

import datetime
import time

import numpy as np
import pytest

from apsber_bluesky.core import InputError, unix_time


@pytest.fixture
def _far_east(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_east")
@pytest.mark.parametrize(
    ("moment", "utc"),
    [
        ("2026", (2025, 12, 31, 15)),
        ("2026-11", (2026, 10, 31, 15)),
        ("2026-11-22", (2026, 11, 21, 15)),
        (" 2026-11-22 14:30 ", (2026, 11, 22, 5, 30)),
        ("2026-11-22T14:30:15+00:00", (2026, 11, 22, 14, 30, 15)),
        ("2026-11-22T14:30Z", (2026, 11, 22, 14, 30)),
        (datetime.datetime(2026, 11, 22, 9), (2026, 11, 22, 0)),
    ],
)
def test_dates_are_local_unless_they_say_otherwise(moment, utc):
    expected = datetime.datetime(*utc, tzinfo=datetime.UTC).timestamp()
    assert unix_time("since", moment) == expected


@pytest.mark.parametrize("moment", [0, 1.5, np.float32(2.5), np.int64(7)])
def test_numbers_are_unix_time(moment):
    assert unix_time("since", moment) == float(moment)


@pytest.mark.parametrize(
    "moment", ["", "soon", "2026-13", "20261", "9999999", float("inf"), None, True, [], b"2026"]
)
def test_anything_else_is_refused_with_its_name(moment):
    with pytest.raises(InputError, match=r"until is .*; give a date"):
        unix_time("until", moment)
