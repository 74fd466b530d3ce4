"""A fly scan ends before its first projection when its flats are saturated."""

from __future__ import annotations

import pytest

from apsber_bluesky.core import SATURATED_PIXELS, InputError, LiveMetric, PlanError
from apsber_bluesky.plans import fly_tomography

SMALL = {"num_projections": 4, "num_darks": 1, "num_flats": 2, "exposure_s": 0.01}


class Feedback:
    def __init__(self, value):
        self.value, self.asked = value, []

    def latest(self, run_uid, name):
        self.asked.append(name)
        return LiveMetric(name, self.value, 0)


def test_saturated_flats_end_the_run_before_the_sample_is_exposed(engine, documents, beamline):
    beamline.camera.feedback = Feedback(0.2)
    with pytest.raises(PlanError, match=r"20\.00% of the pixels of the flats are saturated"):
        engine(fly_tomography(*beamline.devices, **SMALL, most_saturated=0.01))
    (stop,) = documents["stop"]
    assert stop["exit_status"] == "fail"
    assert stop["num_events"].get("primary", 0) == 0
    assert beamline.camera.feedback.asked == [SATURATED_PIXELS]


@pytest.mark.parametrize(("most", "asked"), [(0.01, [SATURATED_PIXELS]), (None, [])])
def test_good_flats_or_no_limit_let_the_scan_go_on(engine, documents, beamline, most, asked):
    beamline.camera.feedback = Feedback(0.005 if asked else 0.9)
    engine(fly_tomography(*beamline.devices, **SMALL, most_saturated=most))
    (stop,) = documents["stop"]
    assert stop["exit_status"] == "success"
    assert stop["num_events"]["primary"] == 4
    assert beamline.camera.feedback.asked == asked


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"most_saturated": 2}, "most_saturated is 2; give 0 to 1 of the pixels"),
        ({"most_saturated": 0.1, "flat_mode": "end"}, "most_saturated needs flats at the start"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(engine, beamline, wrong, message):
    with pytest.raises(InputError, match=message):
        engine(fly_tomography(*beamline.devices, **{**SMALL, **wrong}))
