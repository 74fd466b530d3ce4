"""An instrument laid out as BITS does, with plans, devices and callbacks of this package."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

USE = """
import json
from demo_instrument.startup import *

camera, rotation, shutter, sample_x = (
    oregistry[name] for name in ("camera", "rotation", "shutter", "sample_x")
)
few = {"num_projections": 24, "exposure_s": 0.05, "num_darks": 2, "num_flats": 2}
(uid,) = RE(fly_tomography(camera, rotation, shutter, sample_x, **few))
summary = session.wait(uid, 60)
start = session.catalog[uid].metadata["start"]
print("RESULT", json.dumps({
    "state": summary["state"],
    "instrument": start["instrument_name"],
    "own_engine": RE is not session.RE,
    "own_devices": list(session.devices),
    "missing": devices.missing,
}))
session.close()
"""


@pytest.fixture
def instrument(repository, documented_code, tmp_path):
    """The folders of an instrument, its startup from the how-to page."""
    configs = tmp_path / "demo_instrument" / "configs"
    configs.mkdir(parents=True)
    (configs.parent / "__init__.py").touch()
    code = documented_code("docs/how-to/bits.md", "bits")
    (configs.parent / "startup.py").write_text(code, encoding="utf-8")
    text = (repository / "profiles" / "simulated.yaml").read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    wanted = ("camera", "rotation", "shutter", "sample_x")
    devices = {
        path: [entry for entry in entries if entry["name"] in wanted]
        for path, entries in settings.pop("devices").items()
    }
    settings["simulation"] |= {"rows": 32, "columns": 32}
    settings["session"].pop("suspenders", None)
    iconfig = {
        "APSBER": {"PROFILE": "tomography.yaml"},
        "RUN_ENGINE": {
            "DEFAULT_METADATA": {"instrument_name": "demo", "proposal_id": "commissioning"}
        },
    }
    for name, values in (
        ("tomography.yaml", settings),
        ("devices.yml", devices),
        ("iconfig.yml", iconfig),
    ):
        (configs / name).write_text(yaml.safe_dump(values), encoding="utf-8")
    return tmp_path


def test_a_bits_instrument_takes_plans_devices_and_callbacks(apsber, instrument):
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=instrument,
        env={**apsber.environment, "APSBER_DATA_ROOT": str(instrument / "data")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.rpartition("RESULT ")[2]) == {
        "state": "complete",
        "instrument": "demo",
        "own_engine": True,
        "own_devices": [],
        "missing": {},
    }
    assert apsber.left_running() == []
