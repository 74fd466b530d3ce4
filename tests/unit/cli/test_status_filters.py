"""``apsber status`` lists the runs that are asked for."""

from __future__ import annotations

import datetime
import json

import pytest

from apsber_bluesky.core import RunDescription, RunFolder, RunLedger, RunState

DAY = datetime.datetime(2031, 5, 17, 12, 0)


@pytest.fixture
def data_root(tmp_path):
    """Three runs: two of a proposal, one that was never judged, and one that cannot be read."""
    root = tmp_path / "data"
    for n, (sample, technique, detectors, verdict) in enumerate(
        [
            ("bone", "detector", ("camera",), "pass"),
            ("leaf", "fluorescence", ("vortex", "camera"), "fail"),
            ("leaf", "scattering", ("eiger",), None),
        ]
    ):
        proposal = "GUP-1" if n < 2 else "GUP-2"
        run = RunDescription(
            uid=f"run-{n}",
            scan_id=n + 1,
            plan_name=("count", "xrf_map", "scattering_series")[n],
            sample=sample,
            proposal=proposal,
            technique=technique,
            detectors=detectors,
            start_time_s=(DAY + datetime.timedelta(days=n)).timestamp(),
        )
        folder = RunFolder.of(root, proposal, run.uid).create()
        with RunLedger(folder.ledger, create=True) as ledger:
            ledger.describe(run.model_dump(mode="json"))
            ledger.set_state(RunState.COMPLETE)
        if verdict:
            drift = {"name": "drift", "value": n / 2 if n else None, "verdict": verdict}
            quality = {"verdict": verdict, "metrics": [drift]}
            folder.quality.write_text(json.dumps(quality), encoding="utf-8")
    broken = RunFolder.of(root, "GUP-3", "run-broken").create()
    broken.ledger.write_bytes(b"no ledger" * 1000)
    return root


@pytest.fixture
def listed(apsber_command, data_root):
    """Runs that the command lists."""

    def status(*options):
        code, out, err = apsber_command("status", "--data-root", data_root, "--json", *options)
        assert code == 0, err
        return {run["uid"] for run in json.loads(out)["runs"]}

    return status


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], {"run-0", "run-1", "run-2", "run-broken"}),
        (["--sample", "leaf"], {"run-1", "run-2"}),
        (["--sample", "leaf", "--proposal", "GUP-1"], {"run-1"}),
        (["--proposal", "GUP-3"], {"run-broken"}),
        (["--plan", "xrf_map"], {"run-1"}),
        (["--scan", "3"], {"run-2"}),
        (["--detector", "camera"], {"run-0", "run-1"}),
        (["--technique", "scattering"], {"run-2"}),
        (["--verdict", "fail"], {"run-1"}),
        (["--verdict", "warn"], set()),
        (["--where", "drift>0.3"], {"run-1"}),
        (["--where", "drift<9"], {"run-1"}),
        (["--where", "drift=pass"], {"run-0"}),
        (["--where", "drift>0.3", "--where", "drift=pass"], set()),
        (["--where", "ring_score<1"], set()),
        (["--since", "2031-05-18"], {"run-1", "run-2"}),
        (["--since", "2031-05-18", "--until", "2031-05-18 12:00:01"], {"run-1"}),
        (["--until", "2031-05"], set()),
    ],
)
def test_only_runs_that_match_are_listed(listed, options, found):
    assert listed(*options) == found


def test_a_list_without_a_match_says_so(apsber_command, data_root):
    code, out, _ = apsber_command("status", "--data-root", data_root, "--sample", "wood")
    assert code == 0
    assert "none of the 4 runs" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "yesterday"], "--since is 'yesterday'; give a date such as"),
        (["--verdict", "good"], "--verdict is 'good'; give one of pass, warn, fail"),
        (["run-0", "--sample", "leaf"], "give either the run 'run-0' or what runs to list"),
    ],
)
def test_what_cannot_be_asked_for_is_named(apsber_command, data_root, options, message):
    code, out, err = apsber_command("status", "--data-root", data_root, *options)
    assert (code, out) == (1, "")
    assert message in err
