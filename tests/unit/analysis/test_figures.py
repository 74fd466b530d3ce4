from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from apsber_bluesky.analysis import draw_ortho_slices
from apsber_bluesky.core import InputError, StorageError


def volume(rows: int, size_y: int = 64, size_x: int = 64) -> np.ndarray:
    return np.random.default_rng(0).random((rows, size_y, size_x))


def draw(path, values, **options):
    rows, size_y, size_x = values.shape
    views = (values[rows // 2], values[:, size_y // 2], values[:, :, size_x // 2])
    draw_ortho_slices(*views, path, **options)


def pixels(path) -> np.ndarray:
    from matplotlib.image import imread

    return imread(path)[..., :3]


@pytest.mark.parametrize("rows", [1, 2, 20, 64, 200])
@pytest.mark.parametrize("options", [{}, {"pixel_size_um": 5.0, "title": "a run", "unit": "1/m"}])
def test_volumes_of_any_height_are_drawn(tmp_path, rows, options):
    path = tmp_path / "figures" / "slices.png"
    draw(path, volume(rows), **options)
    image = pixels(path)
    assert image.shape[0] > 300
    assert image.shape[1] > 900
    assert list(path.parent.iterdir()) == [path]


def test_the_slices_are_in_the_picture(tmp_path):
    empty, full = volume(64) * 0, volume(64) * 0
    # Both reach from 0 to 1, so they share their grey scale.
    for values in (empty, full):
        values[:, :4, :] = values[:, :, :4] = 1
    full[20:44, 20:44, 20:44] = 1
    draw(tmp_path / "empty.png", empty)
    draw(tmp_path / "full.png", full)
    changed = (pixels(tmp_path / "empty.png") != pixels(tmp_path / "full.png")).any(axis=-1)
    assert 0.01 < changed.mean() < 0.3
    columns = changed.any(axis=0)
    panels = np.count_nonzero(np.diff(columns.astype(int)) == 1)
    assert panels >= 3


def test_equal_slices_give_equal_files(tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, volume(5), title="same")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_flat_values_and_infinite_ones_are_drawn(tmp_path):
    values = np.zeros((4, 16, 16))
    draw(tmp_path / "flat.png", values)
    values[0, 0, 0] = np.nan
    values[2, 8, 8] = np.inf
    draw(tmp_path / "wild.png", values)


@pytest.mark.parametrize(
    ("xy", "xz", "yz", "options", "message"),
    [
        (np.zeros((4, 4, 1)), np.zeros((2, 4)), np.zeros((2, 4)), {}, "the xy slice has shape"),
        (np.zeros((4, 5)), np.zeros((2, 4)), np.zeros((2, 4)), {}, "not of one volume"),
        (np.full((4, 4), np.nan), *[np.full((2, 4), np.nan)] * 2, {}, "no finite value"),
        (np.zeros((4, 4)), *[np.zeros((2, 4))] * 2, {"pixel_size_um": -1}, "pixel_size_um is -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_leaves_no_file(tmp_path, xy, xz, yz, options, message):
    with pytest.raises(InputError, match=message):
        draw_ortho_slices(xy, xz, yz, tmp_path / "x.png", **options)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_no_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot draw the slices at"):
        draw(tmp_path / "file" / "x.png", volume(2))


def test_importing_analysis_loads_no_drawing_library():
    code = "import sys, apsber_bluesky.analysis; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
