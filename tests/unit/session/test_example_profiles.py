"""The example profiles load, and make their devices without a beamline."""

from __future__ import annotations

import json
import re

import pytest

from apsber_bluesky.core import load_profile, profile_names

EXAMPLES = ["crystallography", "microprobe", "tomography"]

MAKE = """
import json, sys
from apsber_bluesky.core import load_profile
from apsber_bluesky.session._devices import make_devices

def describe(profile):
    devices = make_devices(profile.devices, profile.session.macros)
    pvs = {}
    for name, device in devices.items():
        signals = [walk.item for walk in device.walk_signals(include_lazy=False)]
        pvs[name] = sorted(s.pvname for s in signals if hasattr(s, "pvname"))
    flying = [name for name, device in devices.items() if hasattr(device, "kickoff")]
    detectors = [device.name for device in devices.labelled("detectors")]
    classes = {name: type(device).__name__ for name, device in devices.items()}
    devices.disconnect()
    return {"classes": classes, "detectors": detectors, "flying": flying, "pvs": pvs}
"""


@pytest.fixture(scope="module")
def made(run_python):
    """In a process of its own: ophyd wants its environment before it is imported."""
    show = f"print(json.dumps({{name: describe(load_profile(name)) for name in {EXAMPLES}}}))"
    done = run_python(f"{MAKE}\n{show}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_these_are_the_profiles_that_come_with_the_package():
    assert profile_names() == sorted([*EXAMPLES, "simulated"])


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("tomography", {"Camera", "AerotechRotation", "SampleAxis", "FastShutter"}),
        ("microprobe", {"VortexDetector", "FlyAxis", "SampleAxis"}),
        ("crystallography", {"EigerDetector", "JungfrauDetector", "FastShutter"}),
    ],
)
def test_devices_are_made_without_connecting(made, name, classes):
    assert classes <= set(made[name]["classes"].values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_detectors_and_what_moves_them_can_fly(made, name):
    assert set(made[name]["detectors"]) <= set(made[name]["flying"])
    assert len(made[name]["flying"]) > len(made[name]["detectors"]) >= 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_receiver_is_that_of_a_detector_of_the_profile(made, name):
    profile = load_profile(name)
    assert set(profile.streaming.detectors) <= set(made[name]["detectors"])
    assert profile.simulation is None
    addresses = [profile.streaming, *profile.streaming.detectors.values()]
    assert all(a.frame_address != "auto" or a.pva for a in addresses)


def test_macros_are_in_all_names_of_pvs(made):
    camera = made["tomography"]["pvs"]["camera"]
    assert "2bmSP1:Pva1:PluginType_RBV" in camera
    assert "2bmb:PSOFly1:PSOCommand.BOUT" in made["tomography"]["pvs"]["rotation"]
    assert "2bmb:rot:m1.RBV" in made["tomography"]["pvs"]["rotation"]
    assert "2idd:m14.VAL" in made["microprobe"]["pvs"]["sample_fast"]
    every = [pv for found in made.values() for pvs in found["pvs"].values() for pv in pvs]
    assert len(every) > 50
    assert [pv for pv in every if "$" in pv] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_to_change_is_marked(repository, name):
    text = (repository / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    for key in ("beamline_id", "data_root", "proposal", "archive_root"):
        assert re.search(rf"^ +{key}: .*# CHANGE", text, re.MULTILINE), key
