"""``apsber check``: what a plan will take, without anything moving or being left running."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def answer(apsber, tmp_path_factory):
    root = tmp_path_factory.mktemp("check")
    done = apsber(
        "check", "fly_tomography", "num_projections=400", "exposure_s=0.05", "--data-root", root,
        "--json",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    return done.json, root


def test_time_frames_disk_and_memory_are_predicted(answer):
    found, _ = answer
    assert found["frames"] == 420
    # 400 periods of 52 ms, and what is around them.
    assert 20.8 < found["beam_time_s"] < found["duration_s"] < 35
    assert 0 < found["first_slice_s"] < found["duration_s"]
    # 256 x 256 pixels: frames of 2 bytes, and the volume of 4.
    assert 420 * 256**2 * 2 + 256**3 * 4 < found["disk_bytes"] < 2e8
    assert 0 < found["memory_bytes"] < found["free_memory_bytes"]
    assert found["problems"] == []


def test_nothing_is_taken(answer):
    _, root = answer
    assert [path.name for path in root.iterdir()] == [".apsber"]


def test_what_cannot_fit_is_refused_with_what_to_change(apsber, tmp_path):
    done = apsber(
        "check", "step_tomography", "num_projections=50000000", "--data-root", tmp_path, "--json"
    )
    assert done.status == 1
    assert any("take fewer frames" in problem for problem in done.json["problems"])
    assert "of disk" in done.stderr


TABLE = Path(__file__).with_name("plan_arguments.py")
NAMES = runpy.run_path(str(TABLE))
#: Frames of the plans whose number follows from their arguments.
FRAMES = {
    "collect_darks": 3,
    "collect_flats": 3 + 2,
    "energy_series": 2 + 2 * (1 + 2),
    "fly_tomography": 24 + 4,
    "jungfrau_pedestal": 3 * 4,
    "jungfrau_series": 6,
    "mosaic_tomography": 2 * (12 + 4),
    "scattering_series": 2 * 3 + 2,
    "step_tomography": 18 + 4,
    "xrf_map": 4 * 3,
}

ALL_PLANS = """
import json, runpy, sys
from types import SimpleNamespace

from apsber_bluesky.core import InputError, load_profile
from apsber_bluesky.session import devices_alone, prepare_epics

profile = load_profile(sys.argv[2])
prepare_epics(profile)

from apsber_bluesky.cli._command_check import predict
from apsber_bluesky.cli._plan_arguments import bind, find_plan, parse_arguments

table = runpy.run_path(sys.argv[1])
found = {"public": __import__("apsber_bluesky.plans", fromlist=["*"]).__all__, "plans": {}}


class Full:
    # A disk on which hardly anything is free; all else is as it was.
    free_disk_bytes = 100

    def __init__(self, resources):
        self._resources = resources

    def __getattr__(self, name):
        return getattr(self._resources, name)


with devices_alone(profile) as devices:
    found["missing"] = sorted(devices.missing)
    detectors = [device for device in devices.values() if hasattr(device, "receiver")]
    usual = {device: device.resources for device in detectors}
    for name, arguments in table["ARGUMENTS"].items():
        # Nobody has measured pedestals here.
        given = {**arguments, **({"pedestal": "none"} if name == "jungfrau_series" else {})}
        words = [
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in given.items()
        ]
        plan = find_plan(name)
        values = parse_arguments(plan, words, list(devices))
        prediction = predict(plan, devices, values)
        for device in detectors:
            device.resources = Full(usual[device])
        try:
            first = str(next(bind(plan, devices, values)))
        except InputError as error:
            first = str(error)
        for device in detectors:
            device.resources = usual[device]
        found["plans"][name] = {**prediction.to_dict(), "full": first}
print("RESULT", json.dumps(found))
"""


@pytest.fixture(scope="module")
def predicted(apsber, repository, tmp_path_factory):
    root = tmp_path_factory.mktemp("predicted")
    profile = root / "small.yaml"
    NAMES["write_profile"](repository, profile)
    done = subprocess.run(
        [sys.executable, "-c", ALL_PLANS, str(TABLE), str(profile)],
        env={**apsber.environment, "APSBER_DATA_ROOT": str(root / "data")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.rpartition("RESULT ")[2])


def test_every_public_plan_can_be_predicted(predicted):
    assert predicted["missing"] == []
    assert sorted(predicted["plans"]) == sorted(predicted["public"])


@pytest.mark.parametrize("plan", NAMES["ARGUMENTS"])
def test_a_plan_predicts_time_frames_disk_and_beam(predicted, plan):
    found = predicted["plans"][plan]
    assert found["plan_name"] == plan
    assert found["frames"] == FRAMES.get(plan, found["frames"]) > 0
    # The smallest detector has 64 x 64 pixels of 2 bytes.
    assert found["disk_bytes"] >= found["frames"] * 64**2 * 2
    assert 0 <= found["beam_time_s"] < found["duration_s"] < 60
    in_the_dark = {"collect_darks", "collect_flats", "jungfrau_pedestal"}
    assert (found["beam_time_s"] > 0) == (plan not in in_the_dark)
    assert found["free_disk_bytes"] > found["disk_bytes"]
    assert found["problems"] == []


@pytest.mark.parametrize("plan", NAMES["ARGUMENTS"])
def test_a_plan_refuses_what_the_disk_cannot_hold_before_its_first_message(predicted, plan):
    told = predicted["plans"][plan]["full"]
    assert told.startswith(f"{plan} cannot fit: ")
    assert "of disk" in told
