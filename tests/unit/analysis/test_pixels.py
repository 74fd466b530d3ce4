from __future__ import annotations

import numpy as np
import pytest

from apsber_bluesky.analysis import NotApplicable, PixelSums, dead_pixels, flat_stability
from apsber_bluesky.core import InputError, Verdict


def counts(frames: int = 8, mean: float = 50.0) -> np.ndarray:
    return np.random.default_rng(0).poisson(mean, (frames, 24, 32)).astype(np.uint16)


def test_saturated_pixels_are_counted_in_all_frames():
    frames = counts(10)
    frames[3, 0, :5] = 65535
    sums = PixelSums(65535)
    sums.take(frames[:6])
    sums.take(frames[6:])
    found = sums.saturation()
    assert found.value == pytest.approx(5 / frames.size)
    assert found.verdict is Verdict.WARN
    assert "5 pixels in the worst of 10 frames" in found.note


def test_masked_pixels_are_dead_and_not_saturated():
    frames = counts()
    frames[:, 4, 4] = 65535
    frames[2, 9, 9] = 65535
    sums = PixelSums(65535)
    sums.take(frames, single=True)
    assert sums.saturated_part == pytest.approx(1 / frames.size)
    assert np.argwhere(sums.stuck).tolist() == [[4, 4]]


def test_a_pixel_that_counts_nothing_beside_others_that_do_is_dead():
    frames = counts()
    frames[:, 7, 3] = 0
    frames[:, 12:, :] = 0  # no light falls there
    sums = PixelSums(None)
    sums.take(frames, single=True)
    assert np.argwhere(sums.stuck).tolist() == [[7, 3]]
    found = dead_pixels(sums.stuck, from_flats=False)
    assert found.value == pytest.approx(1 / (24 * 32))


def test_what_cannot_be_told_says_why():
    with pytest.raises(NotApplicable, match="no full scale"):
        PixelSums(None).saturation()
    with pytest.raises(NotApplicable, match="no frame was looked at"):
        PixelSums(1.0).saturation()
    sums = PixelSums(None)
    sums.take(counts(2), single=True)
    with pytest.raises(NotApplicable, match="2 frames are too few"):
        _ = sums.stuck


def test_a_steady_beam_is_stable_whatever_its_noise():
    found = flat_stability([counts(10, 4000), counts(10, 4000)])
    assert found.value < 0.03


@pytest.mark.parametrize(("change", "verdict"), [(1.05, Verdict.WARN), (1.3, Verdict.FAIL)])
def test_a_beam_that_changed_between_two_series_is_seen(change, verdict):
    before = counts(10, 4000)
    found = flat_stability([before, before * change])
    assert found.value == pytest.approx(change - 1, rel=0.2)
    assert found.verdict is verdict


def test_a_beam_that_moved_is_seen_though_it_is_as_bright():
    profile = 4000 * np.exp(-(((np.arange(32) - 16) / 9.0) ** 2))
    still = np.tile(profile, (4, 24, 1))
    assert flat_stability([still, np.roll(still, 3, axis=2)]).value > 0.1
    assert flat_stability([still, still]).value == pytest.approx(0)


def test_a_change_within_one_series_is_seen_and_the_dark_does_not_hide_it():
    light = counts(6, 4000) * np.linspace(0.9, 1.1, 6)[:, None, None]
    plain = flat_stability([light])
    offset = flat_stability([light + 4000], np.full((24, 32), 4000.0))
    assert plain.value == pytest.approx(np.std(np.linspace(0.9, 1.1, 6)), rel=0.1)
    assert offset.value == pytest.approx(plain.value)
    assert "taken once" in plain.note


def test_flats_that_say_nothing_are_left_out():
    with pytest.raises(NotApplicable, match="fewer than two"):
        flat_stability([counts(1)])
    with pytest.raises(NotApplicable, match="no light"):
        flat_stability([0 * counts(4)])
    with pytest.raises(InputError, match="stacks of frames"):
        flat_stability([counts(4)[0]])
