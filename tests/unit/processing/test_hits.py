"""Bragg peaks are found in simulated frames whose truth is known, and little else is."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import DataFileError, HitSettings, InputError
from apsber_bluesky.processing.hits import HitFinder, read_mask
from apsber_bluesky.simulation.training import FrameConditions, simulate_bragg_frame

SHAPE = (256, 256)
GAP = np.iinfo(np.uint32).max
HELD_OUT = 500_000


def frame_of(seed, spot_photons, background_photons, **more):
    conditions = FrameConditions(spot_photons, background_photons, **more)
    return simulate_bragg_frame(HELD_OUT + seed, SHAPE, conditions)


def blank(level, seed=0):
    return np.random.default_rng(seed).poisson(level, SHAPE).astype(np.uint32)


def with_spots(frame, places, photons):
    """Add spots of a known number of photons, the same in each of 3 x 3 pixels but the corners."""
    shape = np.array([[0, 1, 0], [1, 2, 1], [0, 1, 0]]) / 6
    for row, column in places:
        frame[row - 1 : row + 2, column - 1 : column + 2] += np.rint(photons * shape).astype(
            frame.dtype
        )
    return frame


@pytest.mark.parametrize("background", [0.2, 3.0, 30.0])
def test_most_spots_that_can_be_seen_are_found_where_they_are(background):
    shape = (512, 512)
    frame = simulate_bragg_frame(HELD_OUT, shape, FrameConditions(500, background))
    bright = frame.seen_spots
    found = HitFinder(shape)(frame.counts)
    assert found.is_hit
    places = np.stack([found.rows, found.columns], axis=1)
    nearest = np.linalg.norm(bright[:, None] - places[None], axis=2).min(axis=0)
    # What is found is a spot: the rest are weaker ones than count as seen, or two in one.
    assert np.mean(nearest < 1.0) > 0.85
    assert len(found) > 0.5 * len(bright)


@pytest.mark.parametrize(
    "more", [{}, {"hot_pixels": 60}, {"ice_photons": 30.0, "ice_grains": 20.0}]
)
@pytest.mark.parametrize("background", [0.05, 1.0, 30.0])
def test_frames_without_a_crystal_are_blanks(background, more):
    finder = HitFinder(SHAPE)
    found = [finder(frame_of(seed, 0.0, background, **more).counts) for seed in range(4)]
    assert not any(peaks.is_hit for peaks in found)


def test_photons_and_place_of_a_spot_are_its_own():
    frame = with_spots(blank(10.0), [(60, 200), (180, 40)], 600)
    found = HitFinder(SHAPE)(frame)
    assert sorted(found.rows.round().tolist()) == [60, 180]
    assert sorted(found.columns.round().tolist()) == [40, 200]
    assert found.photons == pytest.approx([600, 600], rel=0.15)
    assert (found.snr > 20).all()


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<u4", "<i4", "<f4", "<f8"])
def test_pixels_of_any_kind_give_the_same_peaks(dtype):
    frame = with_spots(blank(4.0), [(60, 200), (180, 40), (99, 30)], 300)
    expected = HitFinder(SHAPE)(frame)
    found = HitFinder(SHAPE)(frame.astype(dtype))
    assert len(found) == 3
    np.testing.assert_array_equal(found.photons, expected.photons)


def test_energies_are_counted_in_photons_and_missing_modules_left_out():
    frame = with_spots(blank(2.0), [(60, 200), (180, 40)], 300)
    energy = (12.4 * frame).astype(np.float32)
    energy += np.random.default_rng(1).normal(0, 0.5, SHAPE).astype(np.float32)
    energy[:40] = np.nan
    found = HitFinder(SHAPE, photon=12.4)(energy)
    assert len(found) == 2
    assert found.photons == pytest.approx([300, 300], rel=0.15)


def test_marked_and_masked_pixels_are_no_peaks():
    frame = with_spots(blank(2.0), [(60, 200)], 300)
    frame[100:104], frame[:, 128:130] = GAP, GAP - 1
    bad = np.zeros(SHAPE, np.bool_)
    bad[30:34, 30:34] = True
    frame[bad] = 5000
    assert len(HitFinder(SHAPE)(frame)) == 2
    assert len(HitFinder(SHAPE, mask=bad)(frame)) == 1


def test_one_hot_pixel_is_no_peak_unless_one_pixel_may_be():
    frame = blank(2.0)
    frame[50, 50] = 900
    assert len(HitFinder(SHAPE)(frame)) == 0
    assert len(HitFinder(SHAPE, HitSettings(least_pixels=1))(frame)) == 1


def test_only_the_given_radii_are_looked_at():
    frame = with_spots(blank(2.0), [(128, 140), (128, 200), (128, 250)], 400)
    settings = HitSettings(smallest_radius_px=30, largest_radius_px=100)
    assert HitFinder(SHAPE, settings)(frame).columns.round().tolist() == [200]


def test_more_peaks_than_are_kept_are_a_hit_and_the_next_frame_is_found_as_ever():
    places = [(row, column) for row in range(20, 240, 20) for column in range(20, 240, 20)]
    finder = HitFinder(SHAPE, HitSettings(most_peaks=30))
    many = finder(with_spots(blank(2.0), places, 400))
    assert (len(many), many.is_hit) == (30, True)
    for _ in range(2):
        assert len(finder(with_spots(blank(2.0, 3), places[:4], 400))) == 4


@pytest.mark.parametrize("frame", [np.zeros(SHAPE, "<u2"), np.full(SHAPE, 65535, "<u2"),
                                   np.full(SHAPE, np.nan, "<f4")])  # fmt: skip
def test_frames_without_anything_have_no_peaks(frame):
    assert len(HitFinder(SHAPE)(frame)) == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"mask": np.zeros((3, 4), np.bool_)}, r"mask has shape \(3, 4\)"),
        ({"mask": np.ones(SHAPE, np.bool_)}, "no pixel is left"),
        ({"settings": HitSettings(smallest_radius_px=5000)}, "smallest_radius_px 5000"),
        ({"photon": 0.0}, "one photon gives 0.0"),
    ],
)
def test_what_leaves_nothing_to_find_is_refused(arguments, why):
    with pytest.raises(InputError, match=why):
        HitFinder(SHAPE, **arguments)


def test_a_frame_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"shape \(4, 4\), not \(256, 256\)"):
        HitFinder(SHAPE)(np.zeros((4, 4), "<u2"))


def test_masks_are_read_and_what_is_none_is_refused(tmp_path):
    path = tmp_path / "mask.h5"
    with h5py.File(path, "w") as file:
        file["mask"] = np.eye(3, dtype=np.uint32)
    assert read_mask(path).tolist() == np.eye(3, dtype=bool).tolist()
    with h5py.File(path, "w") as file:
        file["other"] = 1
    for wrong in (path, tmp_path / "none.h5"):
        with pytest.raises(DataFileError, match="needs a dataset 'mask'"):
            read_mask(wrong)


@pytest.mark.parametrize("wrong", [{"least_peaks": 2000}, {"least_pixels": 70}])
def test_settings_that_leave_no_hit_are_refused(wrong):
    with pytest.raises(ValueError, match="is above most_"):
        HitSettings(**wrong)
