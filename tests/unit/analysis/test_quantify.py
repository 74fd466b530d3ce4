"""Labels are measured, held against bodies whose volume, surface and thickness are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from apsber_bluesky.analysis import _quantify, quantify_labels
from apsber_bluesky.core import InputError

CLASSES = ("background", "pore", "solid")


def ball(shape, centre, radius):
    grid = np.ogrid[tuple(slice(size) for size in shape)]
    return sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True)) <= radius**2


@pytest.fixture(scope="module")
def two_pores():
    """A solid block in air, with a pore of radius 14.3 and one of radius 6.2 voxels."""
    labels = np.zeros((64, 66, 72), np.uint8)
    labels[6:58, 6:60, 6:66] = 2
    labels[ball(labels.shape, (30, 28, 26), 14.3)] = 1
    labels[ball(labels.shape, (40, 44, 52), 6.2)] = 1
    return labels


def test_fractions_surface_and_thickness_are_those_of_the_bodies(two_pores):
    found = quantify_labels(two_pores, CLASSES, 2.0)
    pore, solid = found.classes["pore"], found.classes["solid"]
    block = 52 * 54 * 60
    volumes = [4 / 3 * math.pi * r**3 for r in (14.3, 6.2)]
    areas = [4 * math.pi * r**2 for r in (14.3, 6.2)]
    assert found.unit == "um"
    assert found.porosity == pytest.approx(sum(volumes) / block, rel=0.01)
    assert pore.volume == pytest.approx(8 * sum(volumes), rel=0.01)
    assert pore.surface == pytest.approx(4 * sum(areas), rel=0.02)
    assert pore.specific_surface == pytest.approx(sum(areas) / sum(volumes) / 2, rel=0.03)
    weighted = sum(2 * r * v for r, v in zip((14.3, 6.2), volumes, strict=True)) / sum(volumes)
    assert pore.mean_thickness == pytest.approx(2 * weighted, rel=0.06)
    outside = 2 * (52 * 54 + 52 * 60 + 54 * 60)
    # Flat faces along the voxels are where 13 directions are worst.
    assert solid.surface == pytest.approx(4 * (sum(areas) + outside), rel=0.08)
    assert sum(c.fraction for c in found.classes.values()) == pytest.approx(1)
    assert json.loads(json.dumps(found.to_dict()))["classes"]["pore"]["parts"] == 2


def test_a_plate_is_as_thick_as_it_is():
    labels = np.zeros((40, 48, 48), np.uint8)
    labels[10:19] = 2
    solid = quantify_labels(labels, CLASSES).classes["solid"]
    assert solid.mean_thickness == pytest.approx(9, abs=0.6)
    # Its rim at the border of the volume is no surface.
    assert solid.surface == pytest.approx(2 * 48 * 48, rel=0.12)


def test_parts_are_those_of_the_whole_however_it_is_cut(two_pores, monkeypatch):
    whole = quantify_labels(two_pores, CLASSES).to_dict()
    assert whole["classes"]["pore"]["parts"] == 2
    assert whole["classes"]["solid"]["largest_part"] == 1
    volumes = [14.3**3, 6.2**3]
    assert whole["classes"]["pore"]["largest_part"] == pytest.approx(
        volumes[0] / sum(volumes), rel=0.02
    )
    assert whole["classes"]["pore"]["part_diameters"]["d50"] == pytest.approx(28.6, rel=0.01)
    for slices in (1, 7):
        monkeypatch.setattr(_quantify, "_SLAB_VOXELS", slices * 66 * 72)
        assert quantify_labels(two_pores, CLASSES).to_dict() == whole


def test_a_part_that_joins_only_in_a_later_slab_is_one(monkeypatch):
    labels = np.zeros((12, 9, 9), np.uint8)
    labels[:, 1, 1] = labels[:, 7, 7] = labels[11, 1, 1:8] = labels[11, 1:8, 7] = 1
    labels[5, 4, 4] = 1
    monkeypatch.setattr(_quantify, "_SLAB_VOXELS", 81)
    assert quantify_labels(labels, CLASSES).classes["pore"].parts == 2


def test_unknown_voxels_are_in_no_class_and_no_surface():
    labels = np.full((8, 8, 8), 2, np.uint8)
    labels[:, :, 4:] = 255
    found = quantify_labels(labels, CLASSES)
    assert (found.unknown_voxels, found.classes["solid"].fraction) == (256, 1.0)
    assert found.classes["solid"].surface == 0


def test_a_class_without_voxels_is_reported_as_empty():
    found = quantify_labels(np.zeros((4, 5, 6), np.uint8), CLASSES)
    assert found.porosity is None
    pore = found.classes["pore"]
    assert (pore.voxels, pore.parts, pore.surface, pore.mean_thickness) == (0, 0, 0, None)
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "size", "why"),
    [
        (np.zeros((4, 4), np.uint8), 1.0, "shape"),
        (np.zeros((2, 4, 4), np.int64), 1.0, "uint8"),
        (np.full((2, 4, 4), 3, np.uint8), 1.0, r"labels hold \[3\].*background, pore, solid"),
        (np.zeros((2, 4, 4), np.uint8), 0.0, "voxel_size_um is 0.0"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, size, why):
    with pytest.raises(InputError, match=why):
        quantify_labels(labels, CLASSES, size)
