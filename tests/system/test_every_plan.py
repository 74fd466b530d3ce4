"""Every public plan, once, from the RunEngine of a session that lacks a device."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

TABLE = Path(__file__).with_name("plan_arguments.py")
NAMES = runpy.run_path(str(TABLE))
ARGUMENTS = NAMES["ARGUMENTS"]

SCRIPT = """
import inspect, json, runpy, sys
from collections import Counter

from event_model import DocumentNames, schema_validators

from apsber_bluesky.session.startup import *

table = runpy.run_path(sys.argv[1])
home = [value for name, at in table["HOME"].items() for value in (oregistry[name], at)]
documents = []
RE.subscribe(lambda name, document: documents.append((name, document)))
result = {"public": plans.__all__, "missing": sorted(devices.missing), "plans": {}}
for name, arguments in table["ARGUMENTS"].items():
    plan = globals()[name]
    parameters = inspect.signature(plan).parameters.values()
    wanted = [p.name for p in parameters if p.default is p.empty]
    given = {word: oregistry[word] for word in wanted if word in oregistry}
    given |= {
        word: oregistry[value] if isinstance(value, table["Device"]) else value
        for word, value in arguments.items()
    }
    RE(bps.mv(*home))
    documents.clear()
    try:
        uids = RE(plan(**given))
    except Exception as error:
        result["plans"][name] = {"error": f"{type(error).__name__}: {error}"}
        continue
    for kind, document in documents:
        schema_validators[DocumentNames[kind]].validate(document)
    result["plans"][name] = {
        "uids": uids,
        "plan_names": [d["plan_name"] for kind, d in documents if kind == "start"],
        "exits": [d["exit_status"] for kind, d in documents if kind == "stop"],
        "shutter": shutter.read()["shutter_state"]["value"],
    }
for outcome in result["plans"].values():
    uids = outcome.get("uids", [])
    summaries = [session.wait(uid, 120) for uid in uids]
    outcome["states"] = [summary["state"] for summary in summaries]
    outcome["reasons"] = [summary["reason"] for summary in summaries]
    outcome["catalogued"] = [uid in cat for uid in uids]
result["names"] = [
    name
    for name in ("RE", "sd", "cat", "bec", "peaks", "oregistry", "bp", "bps", "camera", "session")
    if name in globals()
]
result["motors"] = [device.name for device in oregistry.findall("motors")]
result["nothing"] = oregistry.findall("no such label", allow_none=True)
print("RESULT", json.dumps(result))
"""


@pytest.fixture(scope="module")
def profile(repository, tmp_path_factory):
    """The simulated beamline, small, and with a device that nobody serves."""
    file = tmp_path_factory.mktemp("profile") / "small.yaml"
    settings = NAMES["write_profile"](repository, file)
    absent = {"name": "absent", "prefix": "no:such:shutter:"}
    settings["devices"]["apsber_bluesky.devices.FastShutter"].append(absent)
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def done(apsber, profile, tmp_path_factory):
    root = tmp_path_factory.mktemp("every")
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(TABLE)],
        env={**apsber.environment, "APSBER_PROFILE": str(profile), "APSBER_DATA_ROOT": str(root)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    output, _, result = finished.stdout.rpartition("RESULT ")
    return {**json.loads(result), "output": output, "root": str(root)}


def test_every_public_plan_is_in_the_table(done):
    assert sorted(ARGUMENTS) == sorted(done["public"])


@pytest.mark.parametrize("plan", ARGUMENTS)
def test_the_plan_runs_and_leaves_the_shutter_closed(plan, done):
    outcome = done["plans"][plan]
    assert "error" not in outcome, outcome["error"]
    assert outcome["exits"]
    assert set(outcome["exits"]) == {"success"}
    assert set(outcome["states"]) == {"complete"}, outcome["reasons"]
    assert all(outcome["catalogued"])
    assert outcome["shutter"] == "Closed"
    assert plan in outcome["plan_names"]


def test_a_missing_device_is_named_and_does_not_stop_the_session(done):
    assert done["missing"] == ["absent"]
    assert "missing" in done["output"]


def test_the_names_that_users_of_bits_expect_are_there(done):
    assert len(done["names"]) == 10
    assert {"rotation", "sample_x"} <= set(done["motors"])
    assert done["nothing"] == []


def test_the_banner_tells_where_data_go_and_where_the_catalogue_is(done):
    assert Path(done["root"]).name in done["output"].replace("\n", "")
    assert "http://127.0.0.1:" in done["output"]
    assert "last scan" in done["output"]
    assert "api_key" not in done["output"]
