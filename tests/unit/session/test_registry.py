"""Devices by name, label and dotted name, with the words of BITS."""

from __future__ import annotations

import pytest

from apsber_bluesky.session import DeviceNotFoundError, DeviceRegistry


class Thing:
    """A device with labels and parts."""

    def __init__(self, name, labels=(), **parts):
        self.name = name
        self._ophyd_labels_ = set(labels)
        self.component_names = tuple(parts)
        vars(self).update(parts)


SPEED = Thing("rotation_speed")
ROTATION = Thing("rotation", ["motors"], speed=SPEED)
SAMPLE = Thing("sample_x", ["motors", "baseline"])
SHUTTER = Thing("shutter", ["shutters"])


@pytest.fixture
def registry():
    return DeviceRegistry({d.name: d for d in (ROTATION, SAMPLE, SHUTTER)})


@pytest.mark.parametrize(
    ("name", "device"),
    [("rotation", ROTATION), ("rotation.speed", SPEED), ("shutters", SHUTTER)],
)
def test_one_device_is_found_by_name_dotted_name_or_label(name, device, registry):
    assert registry[name] is device
    assert registry.find(name) is device


def test_all_devices_of_a_label_come_in_order(registry):
    assert registry.findall("motors") == [ROTATION, SAMPLE]
    assert registry.findall(label="motors", name="shutter") == [SHUTTER, ROTATION, SAMPLE]
    assert registry.labels == ["baseline", "motors", "shutters"]
    assert registry.device_names == ["rotation", "sample_x", "shutter"]
    assert registry.root_devices == [ROTATION, SAMPLE, SHUTTER]


def test_a_name_is_no_label_and_a_label_no_name(registry):
    assert registry.findall(name="motors", allow_none=True) == []
    assert registry.findall(label="shutter", allow_none=True) == []


def test_nothing_found_names_what_there_is(registry):
    with pytest.raises(DeviceNotFoundError, match=r"'filters'; devices: rotation.*labels: base"):
        registry["filters"]
    with pytest.raises(LookupError):
        registry["rotation.angle"]
    assert registry.findall("filters", allow_none=True) == []
    assert registry.find("filters", allow_none=True) is None


def test_several_devices_where_one_is_wanted_are_named(registry):
    with pytest.raises(DeviceNotFoundError, match="fits 2 devices: rotation, sample_x"):
        registry["motors"]


def test_membership_length_and_iteration(registry):
    assert "rotation" in registry
    assert "rotation.speed" in registry
    assert "filters" not in registry
    assert len(registry) == 3
    assert list(registry) == ["rotation", "sample_x", "shutter"]
