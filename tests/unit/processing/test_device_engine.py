from __future__ import annotations

import functools
import importlib.util
import itertools
import logging

import numpy as np
import pytest

from apsber_bluesky.core import InputError, ReconstructionEngine
from apsber_bluesky.processing import create_engine, engine_names
from apsber_bluesky.processing.accelerators._cupy_backend import cupy_usable
from apsber_bluesky.processing.accelerators._cupy_twin import TwinBackend
from apsber_bluesky.processing.accelerators._engine import DeviceEngine
from apsber_bluesky.processing.accelerators._geometry import DeviceGeometry
from apsber_bluesky.processing.accelerators._tomocupy_engine import TomocupyEngine
from apsber_bluesky.processing.accelerators._torch_backend import torch_accelerator
from apsber_bluesky.processing.gridding._engine import GriddingEngine

TORCH = importlib.util.find_spec("torch") is not None
NEEDS_TORCH = pytest.mark.skipif(not TORCH, reason="torch is not installed")


def twin(rows, columns, angles, **options):
    backend = functools.partial(TwinBackend, **options)
    return DeviceEngine(rows, columns, angles, "ramp", name="twin", backend=backend)


def torch_on_cpu(rows, columns, angles):
    from apsber_bluesky.processing.accelerators._torch_engine import TorchEngine

    return TorchEngine(rows, columns, angles, "ramp", 1, device="cpu")


@pytest.fixture(autouse=True)
def one_torch_thread():
    """Threads of torch that wait for one another slow a busy machine down."""
    if not TORCH:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["twin", pytest.param("torch", marks=NEEDS_TORCH)])
def make(request):
    return {"twin": twin, "torch": torch_on_cpu}[request.param]


@pytest.fixture(scope="module")
def stack():
    """Twenty different slices of 40 columns and 90 projections: two blocks of 16."""
    random = np.random.default_rng(0)
    columns, centre, angles = 40, 21.3, np.arange(90) * 2.0
    theta = np.deg2rad(angles)[:, None, None]
    x, y = random.uniform(-6, 6, (2, 1, 20, 1))
    radius, mu = random.uniform(4, 9, (2, 1, 20, 1))
    middle = centre + x * np.cos(theta) + y * np.sin(theta)
    half = np.maximum(0, radius**2 - (np.arange(columns) - middle) ** 2)
    return (2 * mu * np.sqrt(half)).astype(np.float32), angles, centre


@pytest.mark.parametrize("rows", [1, 2, 20])
@pytest.mark.parametrize("offset", [0.0, -5.3])
def test_it_agrees_with_finufft(make, shepp_logan, rows, offset):
    angles, centre = np.arange(120) * 1.5, 39.5 + offset
    slices = [shepp_logan(25 - k, 0.02).sinogram(angles, 80, centre) for k in range(rows)]
    projections = np.stack(slices, axis=1)
    engine = make(rows, 80, angles)
    engine.accumulate(projections, 0)
    check = create_engine("finufft", rows=rows, columns=80, angles_deg=angles)
    check.accumulate(projections, 0)
    expected = check.finish(slice(None), centre)
    volume = engine.finish(slice(None), centre)
    assert volume.shape == (rows, 80, 80)
    assert np.abs(volume - expected).max() < 1e-3 * expected.max()
    assert np.sqrt(np.mean((volume - expected) ** 2)) < 1e-4 * expected.max()


@pytest.mark.parametrize("angles", [np.arange(180.0), np.arange(360.0), np.arange(200) * 111.246])
def test_a_uniform_disc_reads_its_attenuation(make, disc, angles):
    engine = make(1, 96, angles)
    engine.accumulate(disc(28.0, 0.013).sinogram(angles, 96, 45.1)[:, None], 0)
    image = engine.finish(slice(None), 45.1)[0]
    y, x = np.mgrid[:96, :96] - 48
    assert image[np.hypot(x, y) < 22].mean() == pytest.approx(0.013, rel=1e-3)
    assert not image[np.hypot(x, y) > 45.7].any()


@NEEDS_TORCH
def test_torch_does_what_the_twin_of_the_kernels_does(stack):
    projections, angles, centre = stack
    volumes = []
    for engine in (twin(20, 40, angles), torch_on_cpu(20, 40, angles)):
        engine.accumulate(projections, 0)
        volumes.append(engine.finish(slice(None), centre))
    np.testing.assert_allclose(*volumes, atol=1e-5 * volumes[0].max())


@pytest.mark.parametrize("held", [False, True])
def test_bits_do_not_depend_on_chunks_or_order(make, stack, held):
    projections, angles, centre = stack
    volumes = []
    for cuts, order in (([], 1), ([1, 17, 64, 80], 1), ([30, 65], -1), ([5, 70], -1)):
        engine = make(20, 40, angles)
        if held:
            engine.hold_centre(centre)
        for start, stop in list(itertools.pairwise([0, *cuts, 90]))[::order]:
            engine.accumulate(projections[start:stop], start)
        volumes.append(engine.finish(slice(None), centre))
        parts = [engine.finish(slice(z, z + 7), centre) for z in (0, 7, 14)]
        np.testing.assert_array_equal(np.concatenate(parts), volumes[-1])
        picked = engine.finish(slice(18, 1, -5), centre)
        np.testing.assert_array_equal(picked, volumes[-1][18:1:-5])
    for volume in volumes[1:]:
        np.testing.assert_array_equal(volume, volumes[0])


def test_a_held_centre_gives_the_volume_of_kept_spectra(make, stack):
    projections, angles, centre = stack
    kept, held = make(20, 40, angles), make(20, 40, angles)
    held.hold_centre(centre)
    for engine in (kept, held):
        engine.accumulate(projections[:70], 0)
    before = [engine.finish(slice(None), centre) for engine in (kept, held)]
    np.testing.assert_allclose(*before, atol=1e-5 * before[0].max())
    for engine in (kept, held):
        engine.accumulate(projections[70:], 70)
    after = [engine.finish(slice(None), centre) for engine in (kept, held)]
    np.testing.assert_allclose(*after, atol=1e-5 * after[0].max())
    with pytest.raises(InputError, match=r"not the one that is held, 21\.3"):
        held.finish(slice(None), centre + 1)
    with pytest.raises(InputError, match="before the first projection"):
        kept.hold_centre(centre)


@pytest.mark.parametrize("held", [False, True])
def test_lost_projections_are_given_up_without_losing_attenuation(make, disc, held):
    angles = np.arange(180.0)
    sinogram = disc(20.0, 0.03).sinogram(angles, 64, 31.5)[:, None]
    engine, lost = make(1, 64, angles), [0, 17, 18, 19, 90, 179]
    if held:
        engine.hold_centre(31.5)
    for before, after in itertools.pairwise([-1, *lost, 180]):
        if after - before > 1:
            engine.accumulate(sinogram[before + 1 : after], before + 1)
    assert engine.missing == lost
    middle = (slice(None), slice(28, 36), slice(28, 36))
    before = engine.finish(slice(None), 31.5)[middle].mean()
    assert engine.give_up_missing() == lost
    assert before == pytest.approx(0.03 * 174 / 180, rel=2e-3)
    after = engine.finish(slice(None), 31.5)[middle].mean()
    assert after == pytest.approx(0.03, rel=2e-3)


def test_a_held_grid_goes_on_when_a_projection_is_late(caplog, disc):
    angles = np.arange(900) * 0.2
    sinogram = disc(9.0, 0.03).sinogram(angles, 32, 15.5)[:, None]
    late, prompt = twin(1, 32, angles), twin(1, 32, angles)
    for engine in (late, prompt):
        engine.hold_centre(15.5)
    prompt.accumulate(sinogram, 0)
    late.accumulate(sinogram[:5], 0)
    with caplog.at_level(logging.WARNING):
        late.accumulate(sinogram[6:], 6)
    assert "late" in caplog.text
    late.accumulate(sinogram[5:6], 5)
    volumes = [engine.finish(slice(None), 15.5) for engine in (late, prompt)]
    np.testing.assert_allclose(*volumes, atol=1e-6)


def test_a_device_that_is_too_small_is_used_in_halves(caplog, stack):
    projections, angles, centre = stack
    geometry = DeviceGeometry(40, "ramp")
    # One block of 16 slices fits, two do not; nor do 64 projections at once.
    limit = 8 * geometry.size**2 * 8
    assert 16 * 64 * geometry.padded * 8 > limit
    plenty, little = twin(20, 40, angles), twin(20, 40, angles, limit_bytes=limit)
    little._blocks_at_once = lambda wanted: wanted
    with caplog.at_level(logging.WARNING):
        for engine in (plenty, little):
            engine.accumulate(projections, 0)
        volumes = [engine.finish(slice(None), centre) for engine in (plenty, little)]
    np.testing.assert_array_equal(*volumes)
    assert "out of memory with 64 projections at once; going on with half" in caplog.text
    assert "out of memory with 2 blocks of 16 slices at once" in caplog.text


def test_a_device_that_is_far_too_small_is_refused(stack):
    projections, angles, _ = stack
    engine = twin(20, 40, angles, limit_bytes=1000)
    with pytest.raises(InputError, match="not memory enough for the smallest part"):
        engine.accumulate(projections, 0)
    assert engine.accumulated == 0


def test_a_grid_that_memory_ran_out_for_is_not_used_again(monkeypatch, stack):
    projections, angles, centre = stack
    engine = twin(20, 40, angles)
    engine.hold_centre(centre)
    engine.accumulate(projections[:70], 0)

    def full(*_: object, **__: object) -> None:
        raise MemoryError("full")

    monkeypatch.setattr(TwinBackend, "spread", full)
    with pytest.raises(InputError, match="not memory enough: full"):
        engine.accumulate(projections[70:], 70)
    monkeypatch.undo()
    for work in (lambda: engine.accumulate(projections[70:], 70), engine.give_up_missing):
        with pytest.raises(InputError, match="make a new engine"):
            work()
    with pytest.raises(InputError, match="make a new engine"):
        engine.finish(slice(None), centre)


def test_spectra_that_do_not_fit_the_device_are_kept_by_the_host(monkeypatch, caplog, stack):
    projections, angles, centre = stack
    monkeypatch.setattr(TwinBackend, "free_bytes", lambda _: 1000)
    engine = twin(20, 40, angles)
    with caplog.at_level(logging.WARNING):
        engine.hold_centre(centre)
        engine.accumulate(projections, 0)
    assert "a resident grid of" in caplog.text
    assert "kept in host memory" in caplog.text
    assert engine.finish(slice(None), centre + 1).shape == (20, 40, 40)


@pytest.mark.parametrize(
    ("projections", "first", "message"),
    [
        (np.zeros((2, 20, 41), np.float32), 0, r"shape \(2, 20, 41\)"),
        (np.zeros((2, 20, 40), np.float32), 89, "projections 89 to 90 do not fit a scan of 90"),
        (np.zeros((3, 20, 40), np.float32), 3, "projection 5 was accumulated before"),
        (np.full((1, 20, 40), np.nan, np.float32), 9, "projection 9 holds NaN"),
    ],
)
def test_a_refused_chunk_changes_nothing(make, stack, projections, first, message):
    engine = make(20, 40, stack[1])
    engine.accumulate(stack[0][5:8], 5)
    before = engine.finish(slice(None), 20.0)
    with pytest.raises(InputError, match=message):
        engine.accumulate(projections, first)
    assert engine.accumulated == 3
    np.testing.assert_array_equal(engine.finish(slice(None), 20.0), before)


@pytest.mark.parametrize("held", [False, True])
def test_nothing_is_taken_of_a_long_chunk_with_a_nan_near_its_end(make, stack, held):
    projections, angles, centre = stack
    engines = [make(20, 40, angles) for _ in range(2)]
    for engine in engines:
        if held:
            engine.hold_centre(centre)
        engine.accumulate(projections[:3], 0)
    wrong = projections[3:].copy()
    wrong[85, 19, 39] = np.nan
    with pytest.raises(InputError, match="projection 88 holds NaN"):
        engines[0].accumulate(wrong, 3)
    assert engines[0].accumulated == 3
    np.testing.assert_array_equal(*(engine.finish(slice(None), centre) for engine in engines))
    for engine in engines:
        engine.accumulate(projections[3:], 3)
    np.testing.assert_array_equal(*(engine.finish(slice(None), centre) for engine in engines))


def test_it_fulfils_the_protocol(make):
    engine = make(3, 16, [0.0, 90.0])
    assert isinstance(engine, ReconstructionEngine)
    assert engine.shape == (3, 16, 16)
    assert not engine.finish(slice(None), 7.0).any()
    for centre in (-0.1, 15.1, np.nan):
        with pytest.raises(InputError, match="outside the frame of 16 columns"):
            engine.finish(slice(None), centre)
        with pytest.raises(InputError, match="outside the frame of 16 columns"):
            engine.hold_centre(centre)
    with pytest.raises(InputError, match="no slices"):
        engine.finish(slice(3, 5), 7.0)


def test_a_volume_can_be_written_where_the_caller_wants(stack):
    projections, angles, centre = stack
    engine = twin(20, 40, angles)
    engine.accumulate(projections, 0)
    out = np.full((20, 40, 40), np.nan, dtype=np.float32)
    assert engine.finish(slice(None), centre, out=out) is out
    np.testing.assert_array_equal(out, engine.finish(slice(None), centre))
    with pytest.raises(InputError, match=r"give \(20, 40, 40\)"):
        engine.finish(slice(0, 3), centre, out=out)


MEASURE_MEMORY = """
import re
from pathlib import Path
import numpy as np
import torch
from apsber_bluesky.processing.accelerators._torch_engine import TorchEngine

def peak():
    # Not ru_maxrss, which begins with what the process that started this one had.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024

def work(rows, columns, count):
    engine = TorchEngine(rows, columns, np.arange(count) * 180 / count, "ramp", 1, device="cpu")
    projections = np.zeros((64, rows, columns), np.float32)
    for first in range(0, count, 64):
        engine.accumulate(projections[: min(64, count - first)], first)
    return projections.nbytes + engine.finish(slice(None), columns / 2).nbytes

torch.set_num_threads(1)
work(17, 96, 70)  # loads what is loaded once
before = peak()
data = work(48, 512, 360)
needed = TorchEngine.required_bytes(48, 512, 360, 1)
print((peak() - before - data) / needed)
"""


@NEEDS_TORCH
def test_torch_stays_within_its_memory_estimate(run_python):
    outcome = run_python(MEASURE_MEMORY)
    assert outcome.returncode == 0, outcome.stderr
    assert 0.6 < float(outcome.stdout) < 1.2, outcome.stdout


@pytest.mark.parametrize("columns", [80, 129])
def test_it_agrees_with_the_gridding_engine(make, shepp_logan, columns):
    angles, centre = np.arange(120) * 1.5, columns / 2 + 1.3
    projections = shepp_logan(0.4 * columns).sinogram(angles, columns, centre)[:, None]
    engines = make(1, columns, angles), GriddingEngine(1, columns, angles, "ramp", 1, taps=6)
    for engine in engines:
        engine.accumulate(projections, 0)
    volumes = [engine.finish(slice(None), centre) for engine in engines]
    assert np.abs(volumes[0] - volumes[1]).max() < 1e-4 * volumes[1].max()


@NEEDS_TORCH
def test_torch_is_taken_by_its_name():
    assert create_engine("torch", rows=1, columns=16, angles_deg=[0.0, 90.0]).name == "torch"


def test_a_device_that_is_not_there_is_neither_chosen_nor_offered():
    for name, usable in (("cupy", cupy_usable()), ("tomocupy", TomocupyEngine.usable())):
        if usable:
            continue
        assert name not in engine_names()
        with pytest.raises(InputError, match=f"no reconstruction engine '{name}' here"):
            create_engine(name, rows=1, columns=16, angles_deg=[0.0, 90.0])
    if torch_accelerator() is None:
        assert engine_names()[0] != "torch"


def test_to_look_for_devices_imports_no_cupy(run_python):
    outcome = run_python(
        "import sys\n"
        "from apsber_bluesky.processing import engine_names\n"
        "engine_names()\n"
        "print(*sorted({'cupy', 'tomocupy'} & set(sys.modules)))"
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.split() == []
