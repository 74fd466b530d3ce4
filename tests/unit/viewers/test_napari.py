"""The plugin in a napari of its own process: what its reader gives, and what its widgets do."""

from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.storage import open_labels, write_drawn_labels
from apsber_bluesky.viewers._napari_labels import save_labels_for_training
from apsber_bluesky.viewers._napari_reader import get_reader

# napari opens no window here: its canvas needs OpenGL, its model of a viewer does not. Its imports
# warn of their own affairs, which are errors in this process.
NAPARI = """
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import npe2

manager = npe2.PluginManager.instance()
manifest = npe2.PluginManifest.from_file(files("apsber_bluesky.viewers") / "napari.yaml")
manifest.validate_imports()
if manifest.name not in manager:
    manager.register(manifest)

from napari.components import ViewerModel

viewer = ViewerModel()
"""


@pytest.fixture
def in_napari(run_python, tmp_path, monkeypatch):
    """Run code with a viewer and the plugin; gives what it printed as JSON."""
    for name, value in {
        "QT_QPA_PLATFORM": "offscreen",
        "NAPARI_CONFIG": str(tmp_path / "napari.yaml"),
        "XDG_CONFIG_HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONWARNINGS": "ignore",
    }.items():
        monkeypatch.setenv(name, value)

    def run(code: str) -> dict:
        done = run_python(NAPARI + textwrap.dedent(code))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_run_becomes_layers_that_are_read_where_they_are_looked_at(in_napari, make_run, tmp_path):
    folder = make_run(images=("volume", "denoised", "labels"))
    told = in_napari(f"""
        import zarr
        asked = []
        read = zarr.Array.__getitem__
        def watched(array, place):
            found = read(array, place)
            asked.append(int(np.size(found)))
            return found
        zarr.Array.__getitem__ = watched

        viewer.open({str(folder.path)!r}, plugin="apsber_bluesky")
        layers = {{layer.name: layer for layer in viewer.layers}}
        volume, labels = layers["root 7 volume"], layers["root 7 labels"]
        viewer.dims.set_point(0, 12.0)
        at = int(viewer.dims.current_step[0])
        asked.clear()
        shown = np.asarray(volume.data[0][6])
        print(json.dumps({{
            "names": list(layers),
            "kinds": [type(layer).__name__ for layer in viewer.layers],
            "visible": [layer.visible for layer in viewer.layers],
            "scale": volume.scale.tolist(),
            "units": [str(unit) for unit in volume.units],
            "axes": list(volume.axis_labels),
            "limits": [float(v) for v in volume.contrast_limits],
            "levels": [list(level.shape) for level in volume.data],
            "step": at,
            "asked": asked,
            "slice": [float(shown.max()), float(shown.mean())],
            "uid": volume.metadata["run_uid"],
            "classes": labels.metadata["classes"],
            "label": int(labels.get_value((20.0, 60.0, 160.0), world=True)[1]),
            "colours": [labels.get_color(n).tolist() for n in (1, 2)],
            "named": labels.features["class"].tolist(),
        }}))
    """)
    assert told["names"] == ["root 7 volume", "root 7 denoised", "root 7 labels"]
    assert told["kinds"] == ["Image", "Image", "Labels"]
    assert told["visible"] == [False, True, True]
    assert told["scale"] == [2.0, 2.0, 2.0]
    assert told["units"] == ["micrometer"] * 3
    assert told["axes"] == ["z", "y", "x"]
    assert told["levels"] == [[20, 136, 136], [10, 68, 68]]
    assert told["step"] == 6
    # One slice was asked for, not a chunk of 16, and not the volume.
    assert sum(told["asked"]) == 136 * 136
    assert told["slice"][0] > 4e5
    assert -1e5 < told["limits"][0] < told["limits"][1] < 6e5
    assert told["uid"] == "aaaa-1"
    assert told["classes"] == {"0": "background", "1": "pore", "2": "root"}
    assert told["label"] == 2
    assert told["colours"][0] != told["colours"][1]
    assert told["named"] == ["background", "pore", "root"]


def test_labels_that_are_drawn_are_saved_for_training(in_napari, make_run, tmp_path):
    folder, file = make_run(), tmp_path / "drawn.h5"
    told = in_napari(f"""
        from qtpy.QtWidgets import QApplication
        application = QApplication([])
        viewer.open({str(folder.volume)!r}, plugin="apsber_bluesky")
        (volume,) = viewer.layers
        make = npe2.PluginManager.instance().commands.execute("apsber_bluesky.new_labels")
        labels = make(volume=volume)
        labels.data[3, 10:20, 30:40] = 1
        labels.data[3, 50:60, 70:75] = 2
        save = npe2.PluginManager.instance().commands.execute("apsber_bluesky.save_labels")
        save(volume=volume, labels=labels, classes="soil, root", path=Path({str(file)!r}))
        print(json.dumps({{"scale": labels.scale.tolist(), "shape": labels.data.shape}}))
    """)
    assert told == {"scale": [2.0, 2.0, 2.0], "shape": [20, 136, 136]}
    drawn = open_labels(file)
    assert drawn.names == {0: "soil", 1: "root"}
    expected = np.full((136, 136), 255)
    expected[10:20, 30:40], expected[50:60, 70:75] = 0, 1
    np.testing.assert_array_equal(drawn.slice(3), expected)
    assert (drawn.slice(4) == 255).all()


def test_only_runs_are_taken_from_other_readers(make_run, tmp_path):
    folder = make_run()
    for taken in (folder.path, folder.volume, folder.ledger, "tiled://host/raw/x"):
        assert get_reader(str(taken)) is not None
    (tmp_path / "photo.png").touch()
    for left in (tmp_path, tmp_path / "photo.png", [str(folder.path)]):
        assert get_reader(left if isinstance(left, list) else str(left)) is None


def test_a_run_without_a_volume_says_so_in_napari(make_run):
    reader = get_reader(str(make_run(images=()).path))
    with pytest.raises(InputError, match="no volume that can be shown yet"):
        reader(str(make_run(images=()).path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.zeros((2, 3, 5), int)}, "have shape"),
        ({"labels": np.zeros((2, 3, 4), int)}, "nothing is labelled yet"),
        ({"labels": np.full((2, 3, 4), 3)}, "slice 0 has label 3, but 2 classes"),
        ({"labels": np.full((2, 3, 4), -1)}, "slice 0 has label -1"),
        ({"classes": "root, root"}, "names that differ"),
        ({"classes": "root,,soil"}, "names that differ"),
        ({"path": "labels.png"}, "end the name 'labels.png' in .h5"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(tmp_path, change, words):
    given = {"labels": np.ones((2, 3, 4), int), "classes": "soil, root", "path": "a.h5", **change}
    path = tmp_path / given["path"]
    with pytest.raises(InputError, match=words):
        save_labels_for_training(np.zeros((2, 3, 4)), given["labels"], given["classes"], path)
    assert not path.exists()


def test_the_count_of_labelled_voxels_is_told_and_empty_slices_take_no_room(tmp_path):
    labels = np.zeros((200, 64, 64), np.uint8)
    labels[100, :8, :8] = 1
    assert write_drawn_labels(tmp_path / "a.h5", labels, ["root"]) == 64
    assert (tmp_path / "a.h5").stat().st_size < 20_000
