"""Ctrl-C: nothing half-done, nothing left running, and the run says that it was aborted."""

from __future__ import annotations

import os
import signal

import h5py
import pytest

from apsber_bluesky.core import PARTIAL_SUFFIX, ApsberError, RunLedger, RunState, iter_runs

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]


def run_of(data_root):
    """The only run, once its ledger can be read."""
    return next(iter(iter_runs(data_root)), None)


def ledger_says(data_root, condition):
    folder = run_of(data_root)
    if folder is None:
        return None
    try:
        with RunLedger(folder.ledger) as ledger:
            return folder if condition(ledger) else None
    except ApsberError:
        return None


def flats_are_taken(ledger):
    return "flats" in ledger.books.streams


def reconstruction_runs(ledger):
    return any(stage.name == "reconstruct" for stage in ledger.stages)


@pytest.mark.parametrize(
    ("condition", "stop", "options"),
    [
        pytest.param(flats_are_taken, signal.SIGINT, [], id="ctrl-c while scanning"),
        pytest.param(flats_are_taken, signal.SIGTERM, [], id="terminated while scanning"),
        pytest.param(
            reconstruction_runs, signal.SIGINT, ["--size", 384], id="ctrl-c while reconstructing"
        ),
    ],
)
def test_an_interrupted_run_is_aborted_and_whole(
    apsber, tmp_path, condition, stop, options, wait_until
):
    process = apsber.start("demo", "--data-root", tmp_path, "--json", *options)
    folder = wait_until(lambda: ledger_says(tmp_path, condition))
    os.killpg(process.pid, stop)
    outcome = apsber.finish(process)
    assert outcome.status == 130, outcome.stderr
    assert list(outcome.json) == ["error"]
    assert "Traceback" not in outcome.stderr
    with RunLedger(folder.ledger) as ledger:
        assert ledger.state is RunState.ABORTED
        assert ledger.reason
    assert not folder.volume.exists()
    assert not folder.nexus.exists()
    assert list(folder.path.rglob(f"*{PARTIAL_SUFFIX}*")) == []
    with h5py.File(folder.raw) as raw:
        assert raw["entry/darks/data"].shape[0] == 10
    assert apsber.left_running() == []
    described = apsber("status", folder.uid, "--data-root", tmp_path, "--json").json
    assert described["state"] == "aborted"


def test_ctrl_c_while_starting_leaves_nothing(apsber, tmp_path, wait_until):
    process = apsber.start("demo", "--data-root", tmp_path, "--json")
    wait_until(lambda: len(apsber.left_running()) > 2)
    os.killpg(process.pid, signal.SIGINT)
    outcome = apsber.finish(process)
    assert outcome.status == 130, outcome.stderr
    assert list(outcome.json) == ["error"]
    assert apsber.left_running() == []
    assert run_of(tmp_path) is None


def test_killed_session_takes_its_processes_along(apsber, tmp_path, wait_until):
    process = apsber.start("demo", "--data-root", tmp_path)
    wait_until(lambda: ledger_says(tmp_path, flats_are_taken))
    process.kill()
    apsber.finish(process)
    wait_until(lambda: apsber.left_running() == [])
