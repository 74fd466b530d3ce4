"""Live slices against the engine's volume and against direct sums of the same projections."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import (
    OrthoSlices,
    SlidingOrthoSlices,
    create_engine,
)

ROWS, COLUMNS = 70, 96
SCANS = {
    "half turn": np.arange(150) * 1.2,
    "backwards": -np.arange(150) * 1.2,
    "full turn": np.arange(300) * 1.2,
    "golden": np.arange(150) * 111.246,
    "end included": np.arange(151) * 1.2,
}


def stack_of(phantom_of, angles, centre, rows=ROWS, columns=COLUMNS):
    """Projections of an object that is another one in every slice."""
    sizes = columns * (0.25 + 0.2 * np.arange(rows) / rows)
    return np.stack([phantom_of(r).sinogram(angles, columns, centre) for r in sizes], axis=1)


def slices_of(volume, position):
    z, y, x = position
    return volume[z], volume[:, y], volume[:, :, x]


def engine_volume(projections, angles, centre):
    rows, columns = projections.shape[1:]
    engine = create_engine("finufft", rows=rows, columns=columns, angles_deg=angles)
    engine.accumulate(projections, 0)
    return engine.finish(slice(None), centre)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize(
    ("centre", "position"), [(47.5, None), (50.3, (66, 40, 60)), (44.9, (0, 61, 35))]
)
def test_after_the_scan_they_are_the_slices_of_the_volume(shepp_logan, name, centre, position):
    angles = SCANS[name]
    projections = stack_of(shepp_logan, angles, centre)
    volume = engine_volume(projections, angles, centre)
    live = OrthoSlices(ROWS, COLUMNS, angles, centre=centre, position=position)
    for first in range(0, len(angles), 32):
        live.add(projections[first : first + 32], first)
    shown = live.snapshot()
    assert shown.used == len(angles)
    assert shown.position == (position or (ROWS // 2, COLUMNS // 2, COLUMNS // 2))
    for own, expected in zip(
        (shown.xy, shown.xz, shown.yz), slices_of(volume, shown.position), strict=True
    ):
        error = np.abs(own - expected) / volume.max()
        assert np.sqrt(np.mean(error**2)) < 4e-3
        assert error.max() < 3e-2
        np.testing.assert_array_equal(own == 0, expected == 0)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("columns", [128, 201])
def test_a_uniform_disc_reads_its_attenuation(disc, name, columns):
    angles, mu, centre = SCANS[name], 0.013, (columns - 1) / 2 + 2.35
    radius = 0.3 * columns
    sinogram = disc(radius, mu).sinogram(angles, columns, centre)
    live = OrthoSlices(3, columns, angles, centre=centre)
    live.add(np.repeat(sinogram[:, None], 3, axis=1), 0)
    shown = live.snapshot()
    place = np.arange(columns) - columns // 2
    flat = np.hypot(place[:, None], place) < radius - 6
    assert shown.xy[flat].mean() == pytest.approx(mu, rel=1e-3)
    for upright in (shown.xz, shown.yz):
        assert upright[:, np.abs(place) < radius - 6].mean() == pytest.approx(mu, rel=1e-3)
        np.testing.assert_array_equal(upright[0], upright[2])


@pytest.mark.parametrize("name", ["half turn", "golden"])
@pytest.mark.parametrize("part", [0.25, 0.6])
def test_a_part_of_a_scan_has_the_right_scale_in_its_middle(disc, name, part):
    angles, columns, mu = SCANS[name], 128, 0.01
    sinogram = disc(40.0, mu).sinogram(angles, columns, 63.5)
    live = OrthoSlices(1, columns, angles, centre=63.5)
    count = round(part * len(angles))
    live.add(sinogram[:count, None], 0)
    assert live.snapshot().used == live.used == count
    middle = live.snapshot().xy[62:67, 62:67].mean()
    assert middle == pytest.approx(mu, rel=1e-2)


def test_bits_depend_on_neither_chunks_nor_threads(shepp_logan):
    angles = SCANS["golden"][:60]
    projections = stack_of(shepp_logan, angles, 49.0)

    def shown(threads, size):
        live = OrthoSlices(ROWS, COLUMNS, angles, centre=49.0, threads=threads)
        for first in range(0, len(angles), size):
            live.add(projections[first : first + size], first)
        return live.snapshot()

    expected = shown(1, 60)
    for threads, size in ((1, 1), (3, 7), (2, 60)):
        other = shown(threads, size)
        for plane in ("xy", "xz", "yz"):
            np.testing.assert_array_equal(getattr(other, plane), getattr(expected, plane))


def test_the_centre_can_be_changed_and_what_came_before_is_forgotten(shepp_logan):
    angles = SCANS["half turn"]
    projections = stack_of(shepp_logan, angles, 50.0)
    live = OrthoSlices(ROWS, COLUMNS, angles, centre=40.0)
    live.add(projections[:20], 0)
    live.restart(50.0)
    assert not live.snapshot().xy.any()
    live.add(projections, 0)
    other = OrthoSlices(ROWS, COLUMNS, angles, centre=50.0)
    other.add(projections, 0)
    np.testing.assert_array_equal(live.snapshot().yz, other.snapshot().yz)
    assert live.snapshot().centre == 50.0
    with pytest.raises(InputError, match=r"centre 96 lies outside the frame of 96"):
        live.restart(96)


def test_a_snapshot_can_be_taken_at_any_time(shepp_logan):
    angles = SCANS["half turn"]
    projections = stack_of(shepp_logan, angles, 48.0)
    live = OrthoSlices(ROWS, COLUMNS, angles, centre=48.0)
    done, seen = threading.Event(), []

    def look():
        while not done.is_set():
            seen.append(live.snapshot())

    thread = threading.Thread(target=look)
    thread.start()
    for first in range(0, len(angles), 10):
        live.add(projections[first : first + 10], first)
    done.set()
    thread.join()
    assert seen
    assert [s.used for s in seen] == sorted(s.used for s in seen)
    # Each shows the sum of exactly the projections that it counts.
    for shown in seen[:: max(1, len(seen) // 5)]:
        other = OrthoSlices(ROWS, COLUMNS, angles, centre=48.0)
        other.add(projections[: shown.used], 0)
        np.testing.assert_array_equal(shown.xz, other.snapshot().xz)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centre": -1.0}, "centre -1.0 lies outside the frame"),
        ({"position": (70, 0, 0)}, r"slice z = 70 lies outside the volume; give 0 to 69"),
        ({"position": (0, -1, 0)}, r"slice y = -1 lies outside"),
        ({"filter_name": "sinc"}, "unknown filter 'sinc'"),
        ({"threads": 0}, "threads is 0"),
        ({"rows": 0}, "0 rows x 96 columns cannot be reconstructed"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    settings = {"rows": ROWS, "columns": COLUMNS, "centre": 48.0, **change}
    with pytest.raises(InputError, match=message):
        OrthoSlices(angles_deg=[0.0, 90.0], **settings)
    with pytest.raises(InputError, match=message):
        SlidingOrthoSlices(**settings)


def test_wrong_projections_are_refused_and_nothing_of_them_is_taken():
    live = OrthoSlices(3, 8, np.arange(10) * 18.0, centre=3.5)
    good = np.ones((4, 3, 8), np.float32)
    live.add(good, 2)
    before = live.snapshot()
    bad = good.copy()
    bad[2, 1, 5] = np.nan
    for projections, first, message in (
        (good, 4, "projection 4 was added before"),
        (good, 7, r"projections 7 to 10 do not fit a scan of 10 \(0 to 9\)"),
        (good, -1, "do not fit"),
        (good[:, :2], 6, "have shape"),
        (bad, 6, "projection 2 of the chunk holds NaN"),
    ):
        with pytest.raises(InputError, match=message):
            live.add(projections, first)
    np.testing.assert_array_equal(live.snapshot().xy, before.xy)
    assert live.used == 4


# --- the sliding window -------------------------------------------------------------------------


def direct(projections, angles, counts, centre, columns=COLUMNS):
    """Slices of projections that count for so much each, summed in one go in double precision."""
    from apsber_bluesky.processing.ortho._planes import PlaneProjector

    projector = PlaneProjector(projections.shape[1], columns, centre, None, "ramp", 1)
    total = [np.zeros(plane.shape) for plane in projector.empty()]
    for projection, angle, count in zip(projections, angles, counts, strict=True):
        planes = projector.empty()
        projector.add(planes, projection[None], np.array([angle]), np.ones(1))
        for target, plane in zip(total, planes, strict=True):
            target += count * plane
    return [plane * np.pi / np.sum(counts) for plane in total]


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("last", [72, 143, 250, 431, 432, 432 + 7])
def test_the_window_is_the_last_half_turn(direction, last):
    rng, step = np.random.default_rng(1), 1.25
    count = 144  # of a window; 4 of each of the 36 sectors
    projections = rng.standard_normal((last, 5, COLUMNS)).astype(np.float32)
    angles = direction * np.arange(last) * step + 33.0
    live = SlidingOrthoSlices(5, COLUMNS, centre=47.0)
    for first in range(0, last, 11):
        live.add(projections[first : first + 11], angles[first : first + 11])
    counts = np.zeros(last)
    counts[-count:] = 1
    # The sector that is being filled replaces the oldest one bit by bit.
    newest = last % 4 or 4
    if last > count:
        oldest = last - newest - count
        counts[oldest : oldest + 4] = 1 - newest / 4
        counts[oldest + 4 :] = 1
    expected = direct(projections, angles, counts, 47.0)
    shown = live.snapshot()
    assert shown.used == min(last, count)
    for own, plane in zip((shown.xy, shown.xz, shown.yz), expected, strict=True):
        np.testing.assert_allclose(own, plane, atol=2e-6 * np.abs(plane).max())


def test_a_full_window_of_a_still_object_is_its_slices(shepp_logan):
    angles = 57 + np.arange(700) * 1.25
    projections = stack_of(shepp_logan, angles, 49.0, rows=6)
    live = SlidingOrthoSlices(6, COLUMNS, centre=49.0, threads=2)
    for first in range(0, len(angles), 30):
        live.add(projections[first : first + 30], angles[first : first + 30])
    volume = engine_volume(projections[:144], angles[:144], 49.0)
    shown = live.snapshot()
    for own, expected in zip(
        (shown.xy, shown.xz, shown.yz), slices_of(volume, shown.position), strict=True
    ):
        assert np.sqrt(np.mean((own - expected) ** 2)) < 4e-3 * volume.max()


def test_rounding_does_not_build_up_in_a_long_scan():
    rng, window = np.random.default_rng(2), 72
    live = SlidingOrthoSlices(2, 16, centre=7.5)
    large = 1e4 * rng.standard_normal((window, 2, 16)).astype(np.float32)
    small = rng.standard_normal((window, 2, 16)).astype(np.float32)
    angles = np.arange(window) * 2.5
    for turn in range(40):
        live.add(large, angles + 180 * turn)
    live.add(small, angles + 180 * 40)
    fresh = SlidingOrthoSlices(2, 16, centre=7.5)
    fresh.add(small, angles + 180 * 40)
    # Nothing is left of what was ten thousand times larger.
    expected = fresh.snapshot().xy
    np.testing.assert_allclose(live.snapshot().xy, expected, atol=2e-6 * np.abs(expected).max())


def test_chunks_that_were_left_out_change_the_scale_of_nothing(disc):
    angles, mu = np.arange(0, 540, 0.625), 0.01
    sinogram = disc(25.0, mu).sinogram(angles, COLUMNS, 47.5)
    live = SlidingOrthoSlices(1, COLUMNS, centre=47.5)
    for number, first in enumerate(range(0, len(angles), 16)):
        if number % 7 != 3:
            live.add(sinogram[first : first + 16, None], angles[first : first + 16])
        if first > 100:
            assert live.snapshot().xy[46:51, 46:51].mean() == pytest.approx(mu, rel=1e-2)


def test_a_pause_of_more_than_a_window_empties_it():
    ones = np.ones((1, 2, 16), np.float32)
    live = SlidingOrthoSlices(2, 16, centre=7.5)
    live.add(5 * ones, [0.0])
    live.add(ones, [100000.0])
    fresh = SlidingOrthoSlices(2, 16, centre=7.5)
    fresh.add(ones, [100000.0])
    assert live.snapshot().used == 1
    np.testing.assert_array_equal(live.snapshot().xy, fresh.snapshot().xy)


def test_the_bits_of_a_window_depend_on_neither_chunks_nor_threads():
    rng = np.random.default_rng(3)
    projections = rng.standard_normal((200, 3, 24)).astype(np.float32)
    angles = np.arange(200) * 2.1

    def shown(threads, size):
        live = SlidingOrthoSlices(3, 24, centre=11.2, threads=threads)
        for first in range(0, 200, size):
            live.add(projections[first : first + size], angles[first : first + size])
            if threads == 2:
                live.snapshot()
        return live.snapshot().yz

    expected = shown(1, 200)
    for threads, size in ((1, 1), (2, 13), (3, 50)):
        np.testing.assert_array_equal(shown(threads, size), expected)


def test_a_window_wants_a_rotation_that_goes_on():
    live = SlidingOrthoSlices(1, 8, centre=3.5)
    ones = np.ones((2, 1, 8), np.float32)
    live.add(ones, [0.0, 0.0])
    live.add(ones, [-1.0, -2.0])
    with pytest.raises(InputError, match=r"the rotation turned back by 0\.5 deg"):
        live.add(ones, [-1.5, -3.0])
    with pytest.raises(InputError, match=r"2 projections, but 1 angles"):
        live.add(ones, [-3.0])
    assert live.snapshot().used == 4
    live.add(ones[:0], [])
    live.restart(4.0)
    assert (live.snapshot().used, live.snapshot().centre) == (0, 4.0)
    live.add(ones, [-1.5, 3.0])


@pytest.mark.parametrize("window", [0, -180, 90, 200, np.nan])
def test_a_window_is_of_whole_half_turns(window):
    with pytest.raises(InputError, match="is no multiple of 180 deg"):
        SlidingOrthoSlices(1, 8, centre=3.5, window_deg=window)


def test_memory_of_a_window_does_not_grow_with_its_projections():
    needed = SlidingOrthoSlices.required_bytes(512, 512)
    assert needed < 200e6
    assert needed > 36 * 3 * 512 * 512 * 4
    assert OrthoSlices.required_bytes(512, 512) < 20e6
