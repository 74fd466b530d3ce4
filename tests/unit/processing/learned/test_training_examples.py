"""Folders of examples: what they take, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apsber_bluesky.core import InputError, StorageError
from apsber_bluesky.processing.learned import ExampleFolder, check_examples

CLASSES = ["background", "root", "mineral"]
SHAPE = (5, 32, 32)


def labels_of(*kinds: float, dtype: Any = np.uint8) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype)
    labels[0, 0, : len(kinds)] = kinds
    return labels


@pytest.fixture
def folder(tmp_path: Path) -> ExampleFolder:
    return ExampleFolder.create(tmp_path / "examples", "drawn", CLASSES, {"seed": 4})


def test_a_volume_that_is_written_halfway_does_not_count(folder: ExampleFolder) -> None:
    folder.add(np.ones((2, *SHAPE)), labels=labels_of(1, 2, 255))
    with pytest.raises(InputError):
        folder.add(np.ones((2, *SHAPE)), labels=labels_of(7))
    again = ExampleFolder(folder.path)
    assert again.description.volumes == 1
    again.add(np.zeros((2, *SHAPE)), labels=labels_of(2))
    assert ExampleFolder(folder.path).description.volumes == 2
    assert again.labels(1)[0, 0, 0] == 2
    assert not again.inputs(1).any()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (labels_of(np.nan, dtype=float), "1 are neither 0 to 2 .*first is nan"),
        (labels_of(1.5, 0.5, dtype=float), "2 are neither 0 to 2"),
        (labels_of(3), r"0 to 2 \(background, root, mineral\) nor 255 .*first is 3"),
        (labels_of(-1, dtype=np.int16), "first is -1"),
        (labels_of(1)[:, :16], r"labels of volume 0 have shape \(5, 16, 32\)"),
    ],
)
def test_labels_that_mean_nothing_are_refused(
    labels: np.ndarray, message: str, folder: ExampleFolder
) -> None:
    with pytest.raises(InputError, match=message):
        folder.add(np.ones((1, *SHAPE)), labels=labels)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
@pytest.mark.parametrize("which", ["inputs", "targets"])
def test_values_that_cannot_be_kept_are_refused(
    which: str, value: float, folder: ExampleFolder
) -> None:
    images = {"inputs": np.ones((1, *SHAPE)), "targets": np.ones((1, *SHAPE))}
    images[which][0, 1, 2, 3] = value
    with pytest.raises(InputError, match=f"{which} of volume 0: 1 values are NaN, infinite or"):
        folder.add(images["inputs"], targets=images["targets"])


def test_a_folder_is_continued_with_its_own_kind_only(folder: ExampleFolder) -> None:
    folder.add(np.ones((1, *SHAPE)))
    again = ExampleFolder.open_or_create(folder.path, "drawn", CLASSES, {"seed": 4})
    assert again.description.volumes == 1
    for other in (("found", CLASSES, {"seed": 4}), ("drawn", CLASSES, {"seed": 5})):
        with pytest.raises(InputError, match=r"holds other examples.*another folder"):
            ExampleFolder.open_or_create(folder.path, *other)


def test_what_is_no_folder_of_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no examples: there is no examples.json"):
        ExampleFolder(tmp_path)
    (tmp_path / "examples.json").write_text('{"volumes": 3}')
    with pytest.raises(InputError, match="describes no examples"):
        ExampleFolder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"a part of the path is a file|already"):
        ExampleFolder.create(tmp_path / "file", "nothing", [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slices": 7}, r"volume 0 .* has \(5, 32, 32\) voxels; 7 slices"),
        ({"patch": 64}, "64 x 64 pixels are the least"),
        ({}, "class root has no voxel in the labels"),
    ],
)
def test_a_training_that_cannot_go_well_is_not_begun(
    changes: dict[str, int], message: str, folder: ExampleFolder
) -> None:
    wanted = {"slices": 5, "patch": 32, **changes}
    with pytest.raises(InputError, match="holds no examples; add volumes"):
        check_examples(folder, **wanted, labels=True)
    folder.add(np.ones((1, *SHAPE)), targets=np.ones((1, *SHAPE)), labels=labels_of(2, 255))
    with pytest.raises(InputError, match=message):
        check_examples(folder, **wanted, labels=True)
    if not changes:
        check_examples(folder, **wanted, labels=False)
        folder.add(np.ones((1, *SHAPE)), labels=labels_of(1))
        check_examples(folder, **wanted, labels=True)
