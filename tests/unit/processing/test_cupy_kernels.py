from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from apsber_bluesky.processing.accelerators import _cupy_twin as twin
from apsber_bluesky.processing.accelerators._cupy_kernels import NAMES, SOURCE, THREADS, TILE
from apsber_bluesky.processing.accelerators._geometry import DeviceGeometry

# What a C++ compiler needs to call the kernels: plain C functions of pointers and lengths.
LAUNCHERS = r"""
#define RUN(items, call) launch(int(((items) + THREADS - 1) / THREADS), 1, THREADS, [=] { call; })
extern "C" {
void run_pack(const float* a, float2* b, int* wrong, int pairs, int n, int slices,
              int columns, int padded) {
    RUN((int64)pairs * n * padded, pack(a, b, wrong, pairs, n, slices, columns, padded));
}
void run_scale(float2* a, const float* b, int64 count, int padded) {
    RUN(count, scale(a, b, count, padded));
}
void run_cut(const float2* a, float2* b, int64 count, int columns, int padded, int period) {
    RUN(count, cut(a, b, count, columns, padded, period));
}
void run_spread(const float2* spectra, const double* steps, const float* weights,
                const float2* turn, const int* tiles, int count, float2* grid, int pairs,
                int angles, int period, int size, float beta) {
    launch(count, pairs / PAIRS, THREADS, [=] {
        spread(spectra, steps, weights, turn, tiles, grid, pairs, angles,
               (int64)angles * period, period, size, beta);
    });
}
void run_crop(const float2* a, const float* b, float* c, int pairs, int columns, int size,
              float radius_squared, float factor) {
    RUN((int64)pairs * columns * columns,
        crop(a, b, c, pairs, columns, size, radius_squared, factor));
}
}
"""


def nvrtc_library() -> ctypes.CDLL | None:
    """NVRTC of the wheel nvidia-cuda-nvrtc, or of the system."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    found = [file for folder in folders for file in sorted(folder.rglob("libnvrtc.so.*"))]
    for name in [*map(str, found), "libnvrtc.so.13", "libnvrtc.so.12"]:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


@pytest.mark.parametrize("architecture", ["compute_80", "compute_90"])
def test_the_kernels_compile_for_ampere_and_hopper(architecture):
    library = nvrtc_library()
    if library is None:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc-cu12)")
    program = ctypes.c_void_p()
    source = SOURCE.encode()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"k.cu", 0, None, None) == 0
    options = [b"--std=c++17", b"--gpu-architecture=" + architecture.encode()]
    given = (ctypes.c_char_p * len(options))(*options)
    outcome = library.nvrtcCompileProgram(program, len(options), given)
    log = text_of(library, program, "ProgramLog")
    assert outcome == 0, log
    assert "warning" not in log
    ptx = text_of(library, program, "PTX")
    assert re.findall(r"\.visible \.entry (\w+)\(", ptx) == list(NAMES)
    assert ".target sm_" + architecture.removeprefix("compute_") in ptx
    assert ".local" not in ptx, "the sums of a thread have left its registers"
    assert not re.search(r"\b(atom|red)\.", ptx), "atomics add in any order"


def text_of(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> str:
    size = ctypes.c_size_t()
    assert library[f"nvrtcGet{what}Size"](program, ctypes.byref(size)) == 0
    text = ctypes.create_string_buffer(size.value)
    assert library[f"nvrtcGet{what}"](program, text) == 0
    return text.value.decode()


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The kernels, compiled for the processor and run thread by thread."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the kernels for the processor")
    folder = tmp_path_factory.mktemp("kernels")
    shim = Path(__file__).with_name("cuda_on_host.hpp").read_text(encoding="utf-8")
    (folder / "kernels.cpp").write_text(shim + SOURCE + LAUNCHERS, encoding="utf-8")
    command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "kernels.cpp"]
    subprocess.run([*command, "-o", "kernels.so"], cwd=folder, check=True, timeout=100)
    return ctypes.CDLL(str(folder / "kernels.so"))


def call(function, *arguments):
    kinds = {int: ctypes.c_int, float: ctypes.c_float}
    given = [
        a.ctypes.data_as(ctypes.c_void_p)
        if isinstance(a, np.ndarray)
        else kinds[type(a)](a)
        if not isinstance(a, np.int64)
        else ctypes.c_longlong(int(a))
        for a in arguments
    ]
    function(*given)


def noise(*shape):
    values = np.random.default_rng(len(shape)).standard_normal((*shape, 2)).astype(np.float32)
    return values.view(np.complex64)[..., 0]


@pytest.mark.parametrize("slices", [1, 4, 7])
def test_pack_does_what_its_twin_does(kernels, slices):
    projections = np.random.default_rng(0).random((3, slices, 21), dtype=np.float32)
    rows = np.full((8, 3, 48), np.nan, dtype=np.complex64)
    wrong = np.zeros(1, dtype=np.int32)
    call(kernels.run_pack, projections, rows, wrong, 8, 3, slices, 21, 48)
    np.testing.assert_array_equal(rows, twin.pack(projections, 8, 48))
    assert not wrong[0]
    projections[2, slices - 1, 20] = np.inf
    call(kernels.run_pack, projections, rows, wrong, 8, 3, slices, 21, 48)
    assert wrong[0]


def test_scale_multiplies_each_row(kernels):
    rows, response = noise(5, 48), np.arange(48, dtype=np.float32)
    expected = rows * response
    call(kernels.run_scale, rows, response, np.int64(rows.size), 48)
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


@pytest.mark.parametrize(("columns", "period"), [(21, 25), (24, 27), (40, 45)])
def test_cut_does_what_its_twin_does(kernels, columns, period):
    rows = noise(5, 96)
    shorter = np.empty((5, period), dtype=np.complex64)
    call(kernels.run_cut, rows, shorter, np.int64(shorter.size), columns, 96, period)
    np.testing.assert_array_equal(shorter, twin.cut(rows, columns, period))


@pytest.mark.parametrize(("columns", "angles"), [(24, 21), (41, 300)])
def test_spread_does_what_its_twin_does(kernels, columns, angles):
    geometry = DeviceGeometry(columns, "ramp")
    steps = geometry.steps(np.random.default_rng(0).permutation(angles) * 360 / angles)
    weights = np.random.default_rng(1).random(angles, dtype=np.float32)
    turn, spectra = geometry.phase(columns / 3), noise(16, angles, geometry.period)
    grid = noise(16, geometry.size, geometry.size)
    expected = grid.copy()
    for block in (slice(0, 8), slice(8, 16)):
        twin.spread(expected[block], spectra[block], steps, weights, turn, geometry.beta)
    tiles = geometry.tiles(TILE)
    lengths = (16, angles, geometry.period, geometry.size, geometry.beta)
    call(kernels.run_spread, spectra, steps, weights, turn, tiles, len(tiles), grid, *lengths)
    np.testing.assert_allclose(grid, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("columns", [24, 41])
def test_crop_does_what_its_twin_does(kernels, columns):
    geometry = DeviceGeometry(columns, "ramp")
    grid = noise(8, geometry.size, geometry.size)
    images = np.full((16, columns, columns), np.nan, dtype=np.float32)
    radius = columns / 2.3
    lengths = (8, columns, geometry.size, radius**2, 1.5)
    call(kernels.run_crop, grid, geometry.correction, images, *lengths)
    expected = twin.crop(grid, geometry.correction, radius, 1.5)
    np.testing.assert_allclose(images, expected, rtol=1e-5)
    assert not images[:, 0, 0].any()


def test_a_block_is_whole_warps_and_a_tile_has_a_cell_for_each_thread():
    assert THREADS % 32 == 0
    assert TILE * TILE == THREADS
