"""Devices from a profile: import paths, macros, names and labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import ConfigurationError, load_profile
from apsber_bluesky.session._devices import Devices, expand_macros, make_devices

CAMERA = "apsber_bluesky.devices.Camera"
SHUTTER = "apsber_bluesky.devices.FastShutter"


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(P)cam:", "2bm:cam:"),
        ("$(P)$(R)", "2bm:m1"),
        ("no macro", "no macro"),
        ("$P $(", "$P $("),
        ("", ""),
    ],
)
def test_macros_are_replaced(text, expanded):
    assert expand_macros(text, {"P": "2bm:", "R": "m1"}) == expanded


def test_a_macro_that_is_not_set_is_named_beside_those_that_are():
    with pytest.raises(ConfigurationError, match=r"macro \$\(Q\) in '\$\(Q\)cam:'.*set are: P, R"):
        expand_macros("$(Q)cam:", {"R": "", "P": ""})
    with pytest.raises(ConfigurationError, match=r"set are: none"):
        expand_macros("$(Q)", {})


@given(st.text(), st.dictionaries(st.text(max_size=3), st.text(max_size=3)))
def test_any_text_is_expanded_or_refused(text, macros):
    try:
        assert isinstance(expand_macros(text, macros), str)
    except ConfigurationError:
        assert "$(" in text


def test_devices_are_made_without_connecting_and_found_by_name_and_label():
    entries = {
        CAMERA: [{"name": "camera", "prefix": "$(P)cam:"}],
        "apsber_bluesky.devices.RotationStage": [
            {"name": "rotation", "prefix": "$(P)rot:", "labels": ["motors"]}
        ],
        "apsber_bluesky.devices.SampleAxis": [
            {"name": "sample_x", "prefix": "$(P)m2", "labels": ["motors", "baseline"]}
        ],
    }
    devices = make_devices(entries, {"P": "nowhere:"})
    assert list(devices) == ["camera", "rotation", "sample_x"]
    assert devices.camera.prefix == "nowhere:cam:"
    assert devices["rotation"] is devices.rotation
    assert devices.labelled("motors") == [devices.rotation, devices.sample_x]
    assert devices.labelled("nothing") == []
    assert len(devices) == 3
    assert "sample_x" in dir(devices)
    devices.disconnect()


def test_devices_labelled_baseline_are_read_for_every_run_if_they_are_there(caplog):
    entries = {
        CAMERA: [{"name": "camera", "prefix": "cam:", "labels": ["detectors", "baseline"]}],
        "apsber_bluesky.devices.VortexMca": [
            {"name": "mca", "prefix": "mca:", "labels": ["baseline"]}
        ],
        SHUTTER: [
            {"name": "shutter", "prefix": "a:", "labels": ["shutters", "baseline"]},
            {"name": "absent", "prefix": "b:", "labels": ["baseline"]},
            {"name": "other", "prefix": "c:", "labels": ["shutters"]},
        ],
    }
    devices = make_devices(entries, {})
    devices.missing["absent"] = "it did not connect"
    assert devices.baseline() == [devices.shutter]
    told = [record.getMessage() for record in caplog.records]
    assert [text.split()[1] for text in told] == ["camera", "mca"]
    devices.disconnect()


def test_the_simulated_beamline_has_all_that_moves_in_its_baseline():
    devices = make_devices(load_profile("simulated").devices, {"P": "nowhere:"})
    read = devices.baseline()
    assert {devices.rotation, devices.sample_x, devices.shutter, devices.storage_ring} <= set(read)
    assert not set(devices.labelled("detectors")) & set(read)
    devices.disconnect()


def test_a_device_that_is_not_there_is_named_beside_those_that_are():
    devices = Devices({"camera": object()})
    with pytest.raises(AttributeError, match="no device 'shutter'; there are camera"):
        _ = devices.shutter
    with pytest.raises(KeyError):
        devices["shutter"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            {"apsber_bluesky.devices.Telescope": [{"name": "a"}]},
            "cannot import 'apsber_bluesky.dev",
        ),
        ({"no.such.module.Class": [{"name": "a"}]}, r"cannot import 'no\.such\.module\.Class'"),
        ({"Camera": [{"name": "a"}]}, "cannot import 'Camera'"),
        ({"..Camera": [{"name": "a"}]}, "cannot import"),
        (
            {SHUTTER: [{"name": "a", "prefix": "x"}, {"name": "a", "prefix": "y"}]},
            "two devices 'a'",
        ),
        ({SHUTTER: [{"prefix": "x"}]}, "name None is not a Python name"),
        ({SHUTTER: [{"name": "fast shutter", "prefix": "x"}]}, "'fast shutter' is not a Python"),
        ({SHUTTER: [{"name": 5, "prefix": "x"}]}, "name 5 is not a Python name"),
        ({SHUTTER: [{"name": "a", "prefix": "x", "colour": 1}]}, "'a': .*colour"),
        ({CAMERA: [{"name": "a"}]}, "'a': .*prefix"),
        ({SHUTTER: [{"name": "a", "prefix": "x", "labels": "motors"}]}, "labels is 'motors'"),
        ({SHUTTER: [{"name": "a", "prefix": "$(Q)"}]}, r"macro \$\(Q\)"),
    ],
)
def test_a_wrong_entry_is_named(entries, words):
    with pytest.raises(ConfigurationError, match=words):
        make_devices(entries, {"P": "p:"})


class Connecting:
    """A device that connects, or does not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def wait_for_connection(self, timeout: float) -> None:
        if self.error is not None:
            raise self.error


def test_a_device_that_does_not_connect_is_missing_until_it_does():
    late = Connecting(TimeoutError("late: 3 PVs did not connect"))
    devices = Devices({"good": Connecting(), "late": late})
    devices.connect(0.1)
    assert devices.missing == {"late": "late: 3 PVs did not connect"}
    late.error = None
    devices.connect(0.1)
    assert devices.missing == {}
