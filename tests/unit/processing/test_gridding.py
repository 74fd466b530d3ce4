from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import scipy.fft

from apsber_bluesky.core import InputError
from apsber_bluesky.processing import create_engine, reconstruct, required_bytes
from apsber_bluesky.processing._lengths import cut_length, padded_length, smooth_length
from apsber_bluesky.processing.gridding._engine import GriddingEngine
from apsber_bluesky.processing.gridding._fourier import FourierPlan, transform
from apsber_bluesky.processing.gridding._geometry import GriddingGeometry
from apsber_bluesky.processing.gridding._rows import gather_rows, scatter_rows

GOLDEN_DEG = 180 * (5**0.5 - 1) / 2


@pytest.fixture
def scan(shepp_logan):
    """Twenty different slices of 45 columns and 150 projections about an axis off the middle."""
    angles = np.arange(150) * 1.2
    stack = [shepp_logan(18 + k / 4, 0.01 * (k + 1)).sinogram(angles, 45, 23.7) for k in range(20)]
    return np.stack(stack, axis=1), angles, 23.7


def gridding(scan, **options):
    given = {"filter_name": "ramp", "threads": 1, **options}
    rows, columns = scan[0].shape[1:]
    return GriddingEngine(rows, columns, scan[1], **given)


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("length", [1, 2, 8, 16, 45, 48, 63, 343, 512, 1215, 1280, 2048, 2400])
@pytest.mark.parametrize("inverse", [False, True])
def test_rows_are_transformed_as_numpy_does(length, inverse):
    random = np.random.default_rng(length)
    values = random.standard_normal((length, 8)) + 1j * random.standard_normal((length, 8))
    rows = np.concatenate([values.real, values.imag], axis=1).astype(np.float32).ravel()
    spare = np.empty_like(rows)
    plan = FourierPlan.of(length)
    moved = transform(rows, spare, length, plan.factors, plan.roots, inverse)
    result = (spare if moved else rows).reshape(length, 16)
    whole = np.fft.ifft(values, axis=0) * length if inverse else np.fft.fft(values, axis=0)
    assert relative(result[:, :8] + 1j * result[:, 8:], whole) < 5e-7


def test_a_length_with_a_large_prime_factor_is_refused():
    with pytest.raises(ValueError, match="11 is left"):
        FourierPlan.of(55)


@pytest.mark.parametrize("columns", [2, 7, 45, 512, 1000, 1024, 2048, 2560])
def test_lengths_have_small_factors_and_the_cut_one_is_odd(columns):
    cut, padded = cut_length(columns), padded_length(columns)
    assert cut % 2 == 1
    assert cut >= 1.125 * columns
    assert padded % 2 == 0
    assert padded >= 2 * columns
    assert smooth_length(cut) == cut
    assert cut < 1.35 * columns + 3


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (16, 37), (5, 37), (1, 3)])
def test_images_turn_into_rows_of_slices_and_back(rows, columns):
    image = np.random.default_rng(0).random((rows, columns), np.float32)
    slices = np.full(16 * columns, np.nan, np.float32)
    gather_rows(image.ravel(), 0, rows, columns, slices)
    expected = np.zeros((columns, 16), np.float32)
    expected[:, :rows] = image.T
    np.testing.assert_array_equal(slices.reshape(columns, 16), expected)
    for together, spacing in ((0, 2 * columns), (2 * columns, 2 * columns)):
        if together and rows < 16:
            continue
        out = np.zeros((16, 2 * columns), np.float32)
        targets = np.where(np.arange(16) < rows, np.arange(16) * spacing, -1)
        scatter_rows(slices, 0, columns, out.ravel(), targets, 3, together)
        np.testing.assert_array_equal(out[:rows, 3 : 3 + columns], image)
        assert not out[rows:].any()


def test_every_sample_lies_once_in_the_sorted_points():
    geometry = GriddingGeometry(45, "ramp", 5)
    angles = np.array([0.0, 17.0, 90.0, 133.3])
    points = geometry.points(angles)
    pairs = set(zip(points.projection.tolist(), points.frequency.tolist(), strict=True))
    assert len(pairs) == len(points.cell) == 4 * geometry.period
    frequency = np.rint(scipy.fft.fftfreq(geometry.period) * geometry.period)
    cells = frequency[points.frequency] * geometry.size / geometry.period
    for value, cell, wave in (
        (points.x, points.cell % geometry.stride, np.cos),
        (points.y, points.cell // geometry.stride, np.sin),
    ):
        place = cells * wave(np.deg2rad(angles[points.projection]))
        found = cell - value / 65536 + 2.5
        off = (found - place + geometry.size / 2) % geometry.size - geometry.size / 2
        assert np.abs(off).max() < 2 / 65536
    tile = points.cell // geometry.stride // 16 * 100 + points.cell % geometry.stride // 16
    assert (np.diff(tile) >= 0).all()


@pytest.mark.parametrize(
    ("columns", "rows", "centre"), [(128, 3, 60.25), (201, 16, 100.0), (45, 17, 20.0), (2, 1, 0.5)]
)
@pytest.mark.parametrize("turn", [180, 360])
def test_it_agrees_with_finufft(shepp_logan, columns, rows, centre, turn):
    angles = np.arange(240) * turn / 240
    stack = [
        shepp_logan(0.4 * columns - k / 2).sinogram(angles, columns, centre) for k in range(rows)
    ]
    projections = np.stack(stack, axis=1)
    volumes = [
        reconstruct(projections, angles, centre, engine=name) for name in ("gridding", "finufft")
    ]
    difference = volumes[0] - volumes[1]
    assert np.abs(difference).max() < 1e-3 * volumes[1].max()
    assert np.sqrt(np.mean(difference**2)) < 1e-4 * volumes[1].max()


@pytest.mark.parametrize("order", ["golden", "interlaced", "random", "repeated"])
def test_any_list_of_angles_agrees_with_finufft(shepp_logan, order):
    angles = {
        "golden": np.arange(233) * GOLDEN_DEG,
        "interlaced": np.concatenate([np.arange(s, 180, 4.0) for s in (0, 2, 1, 3)]),
        "random": np.random.default_rng(1).uniform(-200, 400, 250),
        "repeated": np.repeat(np.arange(0, 180, 1.5), 2),
    }[order]
    sinogram = shepp_logan(40).sinogram(angles, 96, 47.0)[:, None]
    volumes = [reconstruct(sinogram, angles, 47.0, engine=name) for name in ("gridding", "finufft")]
    assert relative(*volumes) < 1e-3


@pytest.mark.parametrize(("taps", "bound"), [(4, 4e-3), (5, 1e-3), (6, 3e-4)])
def test_a_wider_kernel_is_more_exact(scan, taps, bound):
    projections, angles, centre = scan
    exact = reconstruct(projections, angles, centre, engine="finufft")
    engine = gridding(scan, taps=taps)
    engine.accumulate(projections, 0)
    assert relative(engine.finish(slice(None), centre), exact) < bound


def backprojection(sinogram, angles_deg, centre):
    """Filtered back-projection as the textbook has it, with linear interpolation."""
    columns = sinogram.shape[1]
    length = 4 * columns
    kernel = np.zeros(length)
    kernel[0] = 0.25
    odd = np.arange(1, length // 2, 2)
    kernel[odd] = kernel[-odd] = -1 / (np.pi * odd) ** 2
    spectrum = np.fft.fft(sinogram, length, axis=1) * np.fft.fft(kernel).real
    # Samples between by zeros in the spectrum, so many that the linear steps do no harm.
    half, more = length // 2, 16
    fine = np.zeros((len(sinogram), more * length), complex)
    fine[:, :half], fine[:, -half:] = spectrum[:, :half], spectrum[:, half:]
    filtered = np.fft.ifft(fine, axis=1).real * more
    axis = np.arange(columns) - columns // 2
    image = np.zeros((columns, columns))
    for line, angle in zip(filtered, np.deg2rad(angles_deg), strict=True):
        place = centre + axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
        within = line[: more * columns]
        image += np.interp(more * place, np.arange(len(within)), within)
    return image * np.pi / len(sinogram)


@pytest.mark.parametrize(("columns", "projections"), [(128, 200), (161, 260)])
def test_it_is_as_good_as_exact_backprojection(shepp_logan, columns, projections):
    angles, centre = np.arange(projections) * 180 / projections, (columns - 1) / 2
    phantom = shepp_logan(0.45 * columns)
    sinogram = phantom.sinogram(angles, columns, centre)
    truth = phantom.image(columns, 6)
    distance = np.hypot(*(np.mgrid[:columns, :columns] - columns // 2))
    field = distance < 0.475 * columns

    def psnr(image):
        return -10 * np.log10(np.mean((image - truth)[field] ** 2) / truth.max() ** 2)

    own = reconstruct(sinogram[:, None], angles, centre, engine="gridding")[0]
    assert psnr(own) == pytest.approx(psnr(backprojection(sinogram, angles, centre)), abs=0.1)


@pytest.mark.parametrize("filter_name", ["ramp", "hann"])
def test_a_held_centre_gives_the_same_volume(scan, filter_name):
    projections, _, centre = scan
    kept, held = gridding(scan, filter_name=filter_name), gridding(scan, filter_name=filter_name)
    held.hold_centre(centre)
    for engine in (kept, held):
        engine.accumulate(projections, 0)
    volumes = [engine.finish(slice(None), centre) for engine in (held, kept)]
    assert relative(*volumes) < 1e-5


def test_bits_of_a_held_centre_do_not_depend_on_threads_chunks_or_order(scan):
    projections, _, centre = scan
    expected = None
    for threads, cuts in ((1, []), (2, [5, 64, 90]), (3, [1, 149]), (5, [40, 80, 120])):
        engine = gridding(scan, threads=threads)
        engine.hold_centre(centre)
        chunks = list(itertools.pairwise([0, *cuts, 150]))
        for start, stop in reversed(chunks):
            engine.accumulate(projections[start:stop], start)
            # Looking must not leave a trace.
            engine.finish(slice(0, 1), centre)
        volume = engine.finish(slice(None), centre)
        expected = volume if expected is None else expected
        np.testing.assert_array_equal(volume, expected)
        parts = [engine.finish(slice(z, z + 7), centre) for z in (0, 7, 14)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_a_preview_of_a_held_centre_shows_all_projections_so_far(scan):
    projections, _, centre = scan
    kept, held = gridding(scan), gridding(scan)
    held.hold_centre(centre)
    for start in (0, 30, 60, 90):
        for engine in (kept, held):
            engine.accumulate(projections[start : start + 30], start)
        previews = [engine.finish(slice(3, 5), centre) for engine in (held, kept)]
        assert relative(*previews) < 1e-5


@pytest.mark.parametrize("lost", [[70], [63, 64], [0, 149], [10, 20, 130]])
@pytest.mark.parametrize("backwards", [False, True])
def test_lost_projections_cost_a_held_centre_nothing(shepp_logan, lost, backwards):
    angles = np.arange(700) * 180 / 700
    sinogram = shepp_logan(20).sinogram(angles, 48, 23.0)[:, None]
    volumes = []
    for hold in (True, False):
        engine = GriddingEngine(1, 48, angles, "ramp", 1)
        if hold:
            engine.hold_centre(23.0)
        numbers = [n for n in range(700) if n not in lost]
        for number in reversed(numbers) if backwards else numbers:
            engine.accumulate(sinogram[number : number + 1], number)
        assert engine.give_up_missing() == lost
        volumes.append(engine.finish(slice(None), 23.0))
    assert relative(*volumes) < 1e-5


def test_projections_lost_from_a_golden_scan_keep_the_attenuation(disc):
    angles = np.arange(700) * GOLDEN_DEG
    sinogram = disc(15.0, 0.03).sinogram(angles, 48, 23.0)[:, None]
    engine = GriddingEngine(1, 48, angles, "ramp", 1)
    engine.hold_centre(23.0)
    for number in set(range(700)) - set(range(200, 220)):
        engine.accumulate(sinogram[number : number + 1], number)
    engine.give_up_missing()
    middle = engine.finish(slice(None), 23.0)[0, 18:30, 18:30]
    assert middle.mean() == pytest.approx(0.03, rel=1e-3)


def test_a_projection_that_comes_very_late_is_still_used(shepp_logan):
    angles = np.arange(700) * 180 / 700
    sinogram = shepp_logan(20).sinogram(angles, 48, 23.0)[:, None]
    engine = GriddingEngine(1, 48, angles, "ramp", 1)
    engine.hold_centre(23.0)
    engine.accumulate(sinogram[:10], 0)
    engine.accumulate(sinogram[11:], 11)
    engine.accumulate(sinogram[10:11], 10)
    expected = reconstruct(sinogram, angles, 23.0, engine="gridding")
    assert relative(engine.finish(slice(None), 23.0), expected) < 1e-5


def test_the_spectra_of_a_held_scan_are_dropped(scan):
    angles = np.arange(1000) * 0.18
    engine = GriddingEngine(1, 45, angles, "ramp", 1)
    engine.hold_centre(22.0)
    most = 0
    for start in range(0, 1000, 20):
        engine.accumulate(np.ones((20, 1, 45), np.float32), start)
        most = max(most, len(engine._store._staged))
    assert most <= 4


def test_a_held_centre_cannot_be_changed(scan):
    projections, _, centre = scan
    engine = gridding(scan)
    engine.hold_centre(centre)
    engine.accumulate(projections, 0)
    with pytest.raises(InputError, match=r"holds centre 23\.7, so it cannot reconstruct about 24"):
        engine.finish(slice(None), 24.0)
    with pytest.raises(InputError, match="hold the centre before the first"):
        engine.hold_centre(24.0)


def test_a_centre_outside_the_frame_cannot_be_held(scan):
    with pytest.raises(InputError, match="lies outside the frame of 45 columns"):
        gridding(scan).hold_centre(45.0)


def test_a_kernel_that_is_not_there_is_refused(scan):
    with pytest.raises(InputError, match="7 taps"):
        gridding(scan, taps=7)


def test_read_only_strided_and_wide_projections_are_taken(scan):
    projections, angles, centre = scan
    expected = reconstruct(projections, angles, centre, engine="gridding")
    locked = projections.copy()
    locked.flags.writeable = False
    strided = np.repeat(projections, 2, axis=2)[:, :, ::2]
    for given in (locked, strided, projections.astype(np.float64)):
        engine = gridding(scan)
        engine.accumulate(given, 0)
        np.testing.assert_array_equal(engine.finish(slice(None), centre), expected)


MEMORY = """
import sys
import numpy as np
from apsber_bluesky.processing import create_engine, required_bytes

def peak():
    with open("/proc/self/status") as status:
        return next(int(s.split()[1]) << 10 for s in status if s.startswith("VmHWM"))

held, rows, columns, number = sys.argv[1] == "held", 48, 400, 600
angles = np.arange(number) * 180 / number
engine = create_engine("gridding", rows=rows, columns=columns, angles_deg=angles, threads=2)
chunk = np.ones((50, rows, columns), np.float32)
before = peak()
if held:
    engine.hold_centre(200.0)
for start in range(0, number, 50):
    engine.accumulate(chunk, start)
volume = engine.finish(slice(None), 200.0)
needed = required_bytes(rows, columns, number, name="gridding", threads=2, held=held)
print((peak() - before - volume.nbytes) / needed)
"""


@pytest.mark.parametrize("mode", ["kept", "held"])
def test_the_memory_estimate_is_honest(mode):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, mode], capture_output=True, text=True, check=True
    )
    assert 0.8 < float(done.stdout) < 1.2


def test_the_estimate_of_held_grids_does_not_grow_with_the_scan():
    few = required_bytes(64, 512, 1000, name="gridding", threads=1, held=True)
    assert required_bytes(64, 512, 9000, name="gridding", threads=1, held=True) == few
    assert create_engine("gridding", rows=1, columns=8, angles_deg=[0.0]).name == "gridding"
