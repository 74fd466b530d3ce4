"""Labels, uncertainty and probabilities are volumes, too, with what readers need to show them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image
from ome_zarr_models.v05.image_label_types import Label

from apsber_bluesky.core import InputError, array_checksum
from apsber_bluesky.storage import VolumeWriter, content_of, open_volume, read_volume_info

CLASSES = ("background", "pore", "root")
SHAPE = (9, 130, 133)


@pytest.fixture(scope="module")
def labels():
    values = np.random.default_rng(3).integers(0, 3, SHAPE).astype(np.uint8)
    values[2, 3, :9] = 255
    return values


def write(path, values, content, cuts=(0, 4, 5, 9)):
    shape = values.shape[-3:]
    with VolumeWriter(path, shape, voxel_size_um=2.0, content=content) as writer:
        for start, stop in itertools.pairwise(cuts):
            writer.write(start, values[..., start:stop, :, :])
    return writer


def group_of(path):
    return zarr.open_group(path, mode="r")


def test_labels_are_an_image_label_with_names_and_colours(tmp_path, labels):
    writer = write(tmp_path / "labels.zarr", labels, content_of("labels", classes=CLASSES))
    assert np.array_equal(open_volume(writer.path)[:], labels)
    info = read_volume_info(writer.path)
    assert (info.dtype, info.unit, info.classes) == ("|u1", "1", CLASSES)
    assert info.checksum == array_checksum(labels)
    ome = group_of(writer.path).attrs["ome"]
    Image.from_zarr(group_of(writer.path))
    label = Label.model_validate(ome["image-label"])
    assert [one.label_value for one in label.colors] == [0, 1, 2]
    assert label.colors[0].rgba[3] == 0  # the background is not drawn
    assert [p["class"] for p in ome["image-label"]["properties"]] == list(CLASSES)
    assert len({tuple(c["rgba"]) for c in ome["image-label"]["colors"]}) == 3


def test_coarser_labels_are_those_of_the_majority(tmp_path):
    values = np.zeros((2, 128, 128), np.uint8)
    values[:, :2, :2] = [[[1, 1], [2, 0]], [[1, 2], [2, 2]]]  # 3 of 1, 4 of 2, 1 of 0
    values[:, 2:4, :2] = 255
    values[0, 2, 0] = 1
    values[:, 4:6, :2] = 255
    values[:, 6:8, :2] = [[[2, 2], [2, 2]], [[1, 1], [1, 1]]]
    writer = write(tmp_path / "l.zarr", values, content_of("labels", classes=CLASSES), (0, 2))
    coarse = open_volume(writer.path, 1)[0, :4, 0]
    assert coarse.tolist() == [2, 1, 255, 1]


def test_probabilities_have_a_channel_for_each_class(tmp_path):
    random = np.random.default_rng(5)
    values = random.dirichlet([1, 1, 1], SHAPE).astype(np.float16)
    values = np.moveaxis(values, -1, 0)
    writer = write(tmp_path / "p.zarr", values, content_of("probabilities", classes=CLASSES))
    stored = open_volume(writer.path)
    assert stored.shape == (3, *SHAPE)
    assert np.array_equal(stored[:], values)
    assert writer.checksum == array_checksum(np.ascontiguousarray(np.moveaxis(values, 0, 1)))
    image = Image.from_zarr(group_of(writer.path))
    multiscale = image.ome_attributes.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["c", "z", "y", "x"]
    scale, translation = multiscale.datasets[1].coordinateTransformations
    assert scale.scale == [1.0, 4.0, 4.0, 4.0]
    assert translation.translation == [0.0, 1.0, 1.0, 1.0]
    coarse = open_volume(writer.path, 1)
    assert coarse.shape == (3, 5, 65, 67)
    assert coarse[1, 1, 2, 3] == pytest.approx(values[1, 2:4, 4:6, 6:8].mean(), abs=2e-3)


def test_an_image_has_the_unit_of_its_model(tmp_path):
    values = np.ones((4, 8, 8), np.float32)
    content = content_of("image", quantity="edges", unit="counts")
    writer = write(tmp_path / "e.zarr", values, content, (0, 4))
    info = read_volume_info(writer.path)
    assert (info.quantity, info.unit, info.voxel_size_um) == ("edges", "counts", 2.0)
    assert (open_volume(writer.path)[:] == 1).all()


def test_values_of_another_kind_are_refused(tmp_path, labels):
    with (
        pytest.raises(InputError, match=r"float32 .* does not fit a volume of uint8"),
        VolumeWriter(tmp_path / "l.zarr", SHAPE, content=content_of("labels", classes="ab")) as own,
    ):
        own.write(0, labels[:2].astype(np.float32))
    with pytest.raises(InputError, match="0 classes"):
        content_of("labels")
    assert not list(tmp_path.iterdir())
