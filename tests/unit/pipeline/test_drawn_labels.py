"""Drawn labels are held against their volume, and become examples of what was labelled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apsber_bluesky.core import InputError
from apsber_bluesky.pipeline import make_labelled_examples, read_drawn_labels

SHAPE = (8, 64, 48)


@dataclass
class InMemory:
    """Labels as a file would have them."""

    values: np.ndarray
    path: Path = Path("labels.tif")
    names: dict[int, str] = field(default_factory=dict)

    @property
    def shape(self) -> Any:
        return self.values.shape

    def slice(self, number: int) -> np.ndarray:
        return self.values[number]


def drawn(slices: tuple[int, ...] = (1, 3, 4, 6), *, nothing: int = 0) -> np.ndarray:
    """Two strokes, 1 and 2, on some slices."""
    labels = np.full(SHAPE, nothing, np.int32)
    for z in slices:
        labels[z, 10:14, 8:30] = 1
        labels[z, 30:36, 12:20] = 2
    return labels


def volume(**changes: Any) -> np.ndarray:
    values = np.full(SHAPE, 0.0, np.float32)
    values[:, 8:56, 4:44] = 2.0
    values[:, 28:40, 10:24] = 3.0
    values += np.arange(SHAPE[0], dtype=np.float32)[:, None, None] / 100
    for z, value in changes.items():
        values[int(z[1:]), 5, 5] = value
    return values


def test_numbers_become_classes_and_the_rest_is_unknown() -> None:
    names = {0: "nothing", 1: "soil", 2: "root"}
    for source, how in (
        (InMemory(drawn()), {"classes": ["soil", "root"], "unlabelled": 0}),
        (InMemory(drawn(), names=names), {"unlabelled": 0}),
    ):
        labels, survey = read_drawn_labels([source], SHAPE, **how)
        assert labels.classes == ["soil", "root"]
        found = labels.slice(3)
        assert set(np.unique(found)) == {0, 1, 255}
        np.testing.assert_array_equal(found == 1, drawn()[3] == 2)
        assert survey.labelled.tolist() == [1, 3, 4, 6]
        assert survey.counts.sum(axis=0).tolist() == [4 * 88, 4 * 48]
    labels, _ = read_drawn_labels([InMemory(drawn() - 1 & 255)], SHAPE, classes=["a", "b"])
    np.testing.assert_array_equal(labels.slice(3), found)


def test_a_file_for_each_class_is_the_same() -> None:
    files = [
        InMemory((drawn() == number) * 7, Path(name))
        for number, name in ((1, "soil.tif"), (2, "root.tif"))
    ]
    labels, _ = read_drawn_labels(files, SHAPE)
    assert labels.classes == ["soil", "root"]
    one, _ = read_drawn_labels([InMemory(drawn())], SHAPE, classes=["a", "b"], unlabelled=0)
    np.testing.assert_array_equal(labels.slice(4), one.slice(4))


def overlapping() -> list[InMemory]:
    one, other = drawn() == 1, drawn() == 2
    other[3, 10:12, 8:11] = True
    other[6, 13, 8] = True
    return [InMemory(one, Path("a/soil.tif")), InMemory(other, Path("b/root.tif"))]


@pytest.mark.parametrize(
    ("sources", "how", "message"),
    [
        (overlapping(), {}, r"^7 voxels are labelled both in a/soil\.tif and in b/root\.tif"),
        ([InMemory(drawn()[:4])], {"classes": ["a", "b"]}, r"shape \(4, 64, 48\), the volume has"),
        (
            [InMemory(drawn() + 3)],
            {"classes": ["a", "b"]},
            "3072 voxels of slice 0 .* --unlabelled 3",
        ),
        (
            [InMemory(drawn())],
            {"classes": ["a", "b", "c"], "unlabelled": 0},
            "class c has no voxel in the labels",
        ),
        (
            [InMemory(drawn() * 2)],
            {"classes": ["a", "b"], "unlabelled": 0},
            "48 voxels of slice 1 of labels.tif have no class .1 a, 2 b., the first has 4",
        ),
        ([InMemory(drawn())], {"unlabelled": 0}, "have 0 named classes; name 2 or more"),
        ([InMemory(drawn())], {"classes": ["a", "a"]}, "names of their own"),
        (overlapping(), {"classes": ["a", "b", "c"]}, "2 files of labels and 3 classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(sources, how, message) -> None:
    with pytest.raises(InputError, match=message):
        read_drawn_labels(sources, SHAPE, **how)


def examples_of(folder: Path, labels: np.ndarray, values: np.ndarray, **options: Any) -> Any:
    read = read_drawn_labels([InMemory(labels)], SHAPE, classes=["soil", "root"], unlabelled=0)
    other = {"denoised.zarr": values * 2}
    how = {"slices": 5, "patch": 32, "origin": "test", "made_with": {}, **options}
    return make_labelled_examples({"volume.zarr": values, **other}, *read, folder, **how)


def test_examples_are_what_is_labelled_with_true_neighbours(tmp_path: Path) -> None:
    values = volume()
    examples = examples_of(tmp_path, drawn((0, 3, 4, 6, 7)), values)
    assert (examples.training_slices, examples.held_out_slices) == ([0, 3, 4, 6], [7])
    level = 2.04
    first = examples.training.inputs(0)
    assert first.shape == (2, 5, 52, 46)  # the strokes, and half a patch around them
    # Beyond the end of the volume slices are mirrored.
    np.testing.assert_allclose(first[0, :, 20, 20] * level, 2 + np.array([2, 1, 0, 1, 2]) / 100,
                               rtol=2e-3)  # fmt: skip
    np.testing.assert_allclose(first[1], 2 * first[0], rtol=2e-3)
    np.testing.assert_array_equal(examples.training.labels(1)[2] == 1, drawn()[3, :52, :46] == 2)
    # One slice is left to measure on: its voxels are told apart, and each is in one half.
    held = examples.held_out
    halves = [held.labels(number)[2] != 255 for number in range(held.description.volumes)]
    assert len(halves) == 2
    assert not (halves[0] & halves[1]).any()
    assert (halves[0] | halves[1]).sum() == 88 + 48


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        (drawn((2,)), volume(), "labels are on 1 slice; draw on 2 or more"),
        (drawn((2, 5)) - 2 * (drawn((5,)) == 2), volume(), "class root is drawn on 1 slice alone"),
        (drawn(), volume(z0=np.nan), "volume volume.zarr.* 1 NaN or infinite"),
        (drawn(), np.ones(SHAPE, np.float32), "volume volume.zarr: .*no object stands out"),
    ],
)
def test_what_nothing_could_be_learned_from_is_refused(tmp_path, labels, values, message) -> None:
    with pytest.raises(InputError, match=message):
        examples_of(tmp_path, labels, values)


def test_examples_of_other_labels_are_not_mixed(tmp_path: Path) -> None:
    examples_of(tmp_path, drawn(), volume(), made_with={"labels": 1})
    with pytest.raises(InputError, match="holds other examples: their made_with"):
        examples_of(tmp_path, drawn(), volume(), made_with={"labels": 2})
