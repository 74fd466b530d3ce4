"""A scattering series ends as soon as processing has found enough hits."""

from __future__ import annotations

import pytest

from apsber_bluesky.core import HITS, InputError, LiveMetric
from apsber_bluesky.plans import scattering_series
from apsber_bluesky.plans._detector_run import DetectorRun
from apsber_bluesky.plans._hit_feedback import enough_hits


class Feedback:
    """Finds a hit in every second frame."""

    def __init__(self, camera):
        self.camera = camera
        self.asked = []

    def latest(self, run_uid, name):
        self.asked.append(name)
        done = len(self.camera._taken.get("primary", ()))
        return LiveMetric(name, done // 2, done)


def prepared(beamline):
    return [value for who, what, value in beamline.calls if (who, what) == ("camera", "prepare")]


@pytest.fixture
def take(engine, beamline):
    """Take four frames at each of five positions, as `scattering_series` does."""
    camera = beamline.camera
    camera.photon_energy_keV, camera.beam_centre_px = 12.4, None
    camera.driver = type("Driver", (), {"counts_drops": False})()
    camera.check = lambda series: None
    beamline.sample_x.limits = (0.0, 0.0)

    def run(wanted, **more):
        places = [0.0, 0.0, 0.1, 0.2, 0.3]
        return engine(
            scattering_series(
                camera, beamline.shutter, axis=beamline.sample_x, positions_mm=places,
                num_frames=4, exposure_s=0.01, frame_period_s=0.02, stop_after_hits=wanted, **more,
            )
        )  # fmt: skip

    return run


@pytest.mark.parametrize(("wanted", "positions"), [(None, 5), (1, 1), (3, 2), (4, 2), (100, 5)])
def test_the_run_ends_behind_the_position_with_enough_hits(take, beamline, wanted, positions):
    beamline.camera.feedback = Feedback(beamline.camera)
    take(wanted)
    assert [series.num_frames for series in prepared(beamline)] == [4] * positions
    assert set(beamline.camera.feedback.asked) == (set() if wanted is None else {HITS})


def test_without_feedback_all_positions_are_taken_and_it_is_said(take, beamline, caplog):
    take(1)
    assert len(prepared(beamline)) == 5
    assert "no feedback from processing" in caplog.text


def test_what_was_not_looked_at_yet_does_not_end_the_run(beamline):
    silent = type("Silent", (), {"latest": lambda self, run_uid, name: None})()
    beamline.camera.feedback = silent
    run = DetectorRun(beamline.camera, beamline.shutter, None, "uid")
    assert not enough_hits(beamline.camera, run.uid, 1)


@pytest.mark.parametrize(
    ("wanted", "places", "why"),
    [(0, [0.0, 0.1], "stop_after_hits is 0"), (3, [0.0], "two or more positions_mm")],
)
def test_what_cannot_be_counted_is_refused(beamline, wanted, places, why):
    beamline.sample_x.limits = (0.0, 0.0)
    with pytest.raises(InputError, match=why):
        list(
            scattering_series(
                beamline.camera, beamline.shutter, axis=beamline.sample_x, positions_mm=places,
                stop_after_hits=wanted,
            )
        )  # fmt: skip
