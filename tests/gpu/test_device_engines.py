"""The engines that need a device, against the NumPy twin of their kernels."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from apsber_bluesky.processing.accelerators._cupy_engine import CupyEngine
from apsber_bluesky.processing.accelerators._cupy_twin import TwinBackend
from apsber_bluesky.processing.accelerators._engine import DeviceEngine
from apsber_bluesky.processing.accelerators._tomocupy_engine import TomocupyEngine
from apsber_bluesky.processing.accelerators._torch_backend import best_torch_device
from apsber_bluesky.processing.accelerators._torch_engine import TorchEngine

pytestmark = pytest.mark.gpu


def twin(rows, columns, angles):
    return DeviceEngine(rows, columns, angles, "ramp", name="twin", backend=TwinBackend)


@pytest.fixture(params=["cupy", "torch"])
def make(request):
    if request.param == "cupy":
        if not CupyEngine.usable():
            pytest.skip("no CuPy with a device")
        return functools.partial(CupyEngine, filter_name="ramp", threads=1)
    if not TorchEngine.usable() or best_torch_device() == "cpu":
        pytest.skip("no torch with a device")
    return functools.partial(TorchEngine, filter_name="ramp", threads=1)


@pytest.fixture(scope="module")
def scan():
    """Forty slices of discs, 130 projections of 200 columns."""
    random = np.random.default_rng(0)
    angles, centre = np.arange(130) * 180 / 130, 104.2
    theta = np.deg2rad(angles)[:, None, None]
    x, y = random.uniform(-30, 30, (2, 1, 40, 1))
    radius, mu = random.uniform(20, 50, (2, 1, 40, 1))
    middle = centre + x * np.cos(theta) + y * np.sin(theta)
    half = np.maximum(0, radius**2 - (np.arange(200) - middle) ** 2)
    return (2e-4 * mu * np.sqrt(half)).astype(np.float32), angles, centre


@pytest.mark.parametrize("held", [False, True])
def test_a_device_does_what_the_twin_does(make, scan, held):
    projections, angles, centre = scan
    engine, expected = make(40, 200, angles), twin(40, 200, angles)
    if held:
        engine.hold_centre(centre)
    for first in range(0, 130, 50):
        engine.accumulate(projections[first : first + 50], first)
    expected.accumulate(projections, 0)
    volume = expected.finish(slice(None), centre)
    np.testing.assert_allclose(engine.finish(slice(None), centre), volume, atol=1e-4 * volume.max())


def test_equal_chunks_give_equal_bits_on_cuda(scan):
    if not CupyEngine.usable():
        pytest.skip("no CuPy with a device")
    projections, angles, centre = scan
    volumes = []
    for _ in range(2):
        engine = CupyEngine(40, 200, angles, "ramp", 1)
        engine.accumulate(projections, 0)
        volumes.append(engine.finish(slice(None), centre))
    np.testing.assert_array_equal(*volumes)


def test_page_locked_memory_is_used_where_it_lies(scan):
    if not CupyEngine.usable():
        pytest.skip("no CuPy with a device")
    import cupyx

    projections, angles, centre = scan
    locked = cupyx.empty_pinned(projections.shape, np.float32)
    locked[:] = projections
    out = cupyx.empty_pinned((40, 200, 200), np.float32)
    engine, expected = (CupyEngine(40, 200, angles, "ramp", 1) for _ in range(2))
    engine.accumulate(locked, 0)
    locked[:] = np.nan
    expected.accumulate(projections, 0)
    np.testing.assert_array_equal(
        engine.finish(slice(None), centre, out=out), expected.finish(slice(None), centre)
    )


def test_memory_that_runs_out_is_met_with_smaller_parts(scan, caplog):
    if not CupyEngine.usable():
        pytest.skip("no CuPy with a device")
    import cupy

    projections, angles, centre = scan
    plenty, little = (CupyEngine(40, 200, angles, "ramp", 1) for _ in range(2))
    for engine in (plenty, little):
        engine.accumulate(projections, 0)
    expected = plenty.finish(slice(None), centre)
    little._blocks_at_once = lambda wanted: wanted
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    try:
        # Room for the work on one block of 16 slices, not on three.
        pool.set_limit(size=pool.used_bytes() + 5 * 8 * little._geometry.size**2 * 8)
        volume = little.finish(slice(None), centre)
    finally:
        pool.set_limit(size=0)
    np.testing.assert_allclose(volume, expected, atol=1e-6 * expected.max())
    assert "going on with half" in caplog.text


def test_tomocupy_agrees(scan):
    if not TomocupyEngine.usable():
        pytest.skip("no TomocuPy with a device")
    projections, angles, centre = scan
    engine, expected = TomocupyEngine(40, 200, angles, "ramp", 1), twin(40, 200, angles)
    for each in (engine, expected):
        each.accumulate(projections, 0)
    volumes = [each.finish(slice(None), centre) for each in (engine, expected)]
    assert np.sqrt(np.mean((volumes[0] - volumes[1]) ** 2)) < 0.01 * volumes[1].max()
