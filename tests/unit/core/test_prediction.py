from __future__ import annotations

import pytest

from apsber_bluesky.core import (
    InputError,
    ScanPrediction,
    asking_for_predictions,
    submit_prediction,
)

GB = 1_000_000_000


def prediction(**changes):
    values = {
        "plan_name": "fly_tomography",
        "duration_s": 10.0,
        "frames": 100,
        "disk_bytes": 2 * GB,
        "beam_time_s": 5.0,
        "memory_bytes": 3 * GB,
        "free_disk_bytes": 10 * GB,
        "free_memory_bytes": 4 * GB,
    }
    return ScanPrediction(**{**values, **changes})


def test_what_fits_is_not_refused():
    submit_prediction(prediction())
    assert prediction().problems == []


def test_what_nobody_knows_is_not_refused():
    submit_prediction(prediction(free_disk_bytes=None, free_memory_bytes=None))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"free_disk_bytes": 1 * GB}, r"2 GB of disk, 1 GB are free: take fewer frames"),
        ({"free_disk_bytes": 2 * GB}, "of disk"),
        ({"free_memory_bytes": 2 * GB}, r"3 GB of memory, 2 GB are free"),
    ],
)
def test_what_cannot_fit_is_refused_with_what_to_change(changes, words):
    with pytest.raises(InputError, match=f"fly_tomography cannot fit: .*{words}"):
        submit_prediction(prediction(**changes))


def test_whoever_asks_gets_the_prediction_in_place_of_the_refusal():
    too_large = prediction(free_disk_bytes=0, free_memory_bytes=0)
    with asking_for_predictions() as found:
        submit_prediction(too_large)
    assert found == [too_large]
    assert len(found[0].to_dict()["problems"]) == 2
    with pytest.raises(InputError):
        submit_prediction(too_large)
