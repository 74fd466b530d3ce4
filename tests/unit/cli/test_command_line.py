"""The command line without a session: help, refusals, and looking at runs."""

from __future__ import annotations

import inspect
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from apsber_bluesky import __version__
from apsber_bluesky.cli import main
from apsber_bluesky.cli._output import Output
from apsber_bluesky.cli._plan_arguments import bind, find_plan, parse_arguments
from apsber_bluesky.core import (
    InputError,
    RunFolder,
    RunLedger,
    RunState,
    SeriesBooks,
    load_profile,
    write_json,
)
from apsber_bluesky.session import make_devices

REAL_BEAMLINE = """
name: 2bm
session: {beamline_id: 2-BM, instrument_name: tomography}
streaming: {frame_address: "tcp://detector:5555"}
"""


@pytest.fixture
def apsber(monkeypatch, capsys, tmp_path):
    """Run a command as the ``apsber`` script does; gives status, standard output and error."""
    monkeypatch.setenv("APSBER_DATA_ROOT", str(tmp_path / "data"))
    # Other tests of this process may have imported ophyd; nothing here talks to EPICS.
    monkeypatch.setattr("apsber_bluesky.session._epics._ports", {"ca_port": 1, "repeater_port": 2})
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["apsber", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def refused(outcome, *words):
    """One line on standard error that holds the words, and status 1."""
    status, out, err = outcome
    assert status == 1
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


COMMANDS = ["demo", "simulate", "keys", "run", "relay", "gateway", "status", "frames", "show"]


@pytest.mark.parametrize("words", [[], *[[command] for command in COMMANDS]])
def test_help_is_everywhere(apsber, words):
    status, out, _ = apsber(*words, "--help")
    assert status == 0
    assert "Usage: " in out
    for word in words or COMMANDS:
        assert word in out


def test_the_version_is_that_of_the_package(apsber):
    assert apsber("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("words", [["teleport"], ["status", "--colour", "red"], ["run"]])
def test_a_command_line_that_makes_no_sense_is_refused(apsber, words):
    status, out, err = apsber(*words)
    assert status == 2
    assert out == ""
    assert "Usage: " in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "fly_me"], ["no plan 'fly_me'", "fly_tomography", "step_tomography"]),
        (["run", "tomography_run"], ["no plan 'tomography_run'"]),
        (["run", "fly_tomography", "colour=red"], ["no argument 'colour'", "exposure_s"]),
        (["run", "fly_tomography", "camera=x"], ["camera='x' is no device", "rotation"]),
        (["check", "xrf_map", "slow_axis=a.y"], ["slow_axis='a.y' is no device", "fly_x"]),
        (["run", "fly_tomography", "exposure_s"], ["'exposure_s' is not of the form name=value"]),
        (["run", "fly_tomography", "exposure_s=long"], ["exposure_s='long'", "number"]),
        (["run", "fly_tomography", "num_flats=2.5"], ["num_flats='2.5'"]),
        (["run", "fly_tomography", "flat_mode=later"], ["flat_mode='later'", "'both'"]),
        (["run", "fly_tomography", "md=[1"], ["md='[1' is not a value"]),
        (["run", "fly_tomography", "--profile", "nowhere"], ["no profile 'nowhere'", "simulated"]),
        (["status", "--profile", "nowhere.yaml"], ["no profile 'nowhere.yaml'"]),
        (["show", "abc"], ["no run 'abc'"]),
        (["status", "latest"], ["no run 'latest'"]),
        (["demo", "--size", "-5"], ["'simulation.rows' is -5"]),
    ],
)
def test_what_is_wrong_is_told_on_one_line(apsber, words, told):
    refused(apsber(*words), *told)


def test_a_wrong_key_of_a_profile_is_told_on_one_line(apsber, tmp_path):
    path = tmp_path / "bench.yaml"
    path.write_text(REAL_BEAMLINE + "colour: red\n")
    refused(apsber("status", "--profile", path), "unknown key 'colour'", "bench.yaml")


@pytest.mark.parametrize("command", ["demo", "simulate"])
@pytest.mark.parametrize("options", [[], ["--data", "scan.h5"]])
def test_commands_of_the_simulated_beamline_leave_a_real_one_alone(
    apsber, tmp_path, command, options
):
    path = tmp_path / "2bm.yaml"
    path.write_text(REAL_BEAMLINE)
    refused(apsber(command, "--profile", path, *options), "has no simulated beamline", "2bm.yaml")


@pytest.mark.parametrize("words", [["run", "fly_me"], ["show", "abc"], ["status", "abc"]])
def test_an_error_is_one_json_object_for_a_script(apsber, words):
    status, out, err = apsber(*words, "--json")
    assert status == 1
    assert out.count("\n") == 1
    assert list(json.loads(out)) == ["error"]
    assert json.loads(out)["error"] in err.replace("error: ", "", 1)


def test_an_empty_data_root_has_no_runs(apsber, tmp_path):
    status, out, err = apsber("status")
    assert (status, err) == (0, "")
    assert f"no runs below {tmp_path / 'data'}" in out
    _, out, err = apsber("status", "--json")
    assert json.loads(out) == {
        "data_root": str(tmp_path / "data"),
        "session": None,
        "runs": [],
    }


@pytest.fixture
def make_run(tmp_path):
    def make(uid: str, start_time_s: float, sample: str = "root", reason: str = "") -> RunFolder:
        folder = RunFolder.of(tmp_path / "data", "p", uid).create()
        with RunLedger(folder.ledger, create=True) as ledger:
            ledger.describe(
                {
                    "scan_id": 7,
                    "sample": sample,
                    "plan_name": "fly_tomography",
                    "start_time_s": start_time_s,
                }
            )
            ledger.set_books("flats", SeriesBooks(expected=4, received=4, written=4, used=4))
            ledger.set_books("primary", SeriesBooks(expected=9, received=8, written=8, missing=[3]))
            ledger.start_stage("centre")
            ledger.finish_stage("centre")
            ledger.start_stage("publish")
            ledger.set_state(RunState.INCOMPLETE, reason)
        metric = {"name": "resolution", "value": 3.25, "unit": "px", "verdict": "warn"}
        unmeasured = {"name": "signal_to_noise", "value": None, "unit": "1", "verdict": "fail"}
        write_json(folder.quality, {"verdict": "fail", "metrics": [metric, unmeasured]})
        folder.figures.mkdir()
        (folder.figures / "ortho_slices.png").write_bytes(b"\x89PNG picture")
        return folder

    return make


def test_runs_are_listed_in_the_order_in_which_they_began(apsber, make_run):
    make_run("bbbb-2", 2e9)
    make_run("aaaa-1", 1e9, sample="tooth")
    status, out, _ = apsber("status")
    assert status == 0
    lines = out.splitlines()
    assert lines[1].split()[:6] == ["aaaa-1", "7", "tooth", "fly_tomography", "incomplete", "12/13"]
    assert lines[2].split()[0] == "bbbb-2"
    _, out, _ = apsber("status", "--json")
    assert [run["uid"] for run in json.loads(out)["runs"]] == ["aaaa-1", "bbbb-2"]


def test_a_run_that_cannot_be_read_does_not_hide_the_others(apsber, make_run):
    make_run("aaaa-1", 1e9)
    make_run("bbbb-2", 2e9).ledger.write_bytes(b"this was a ledger once, " * 100)
    status, out, _ = apsber("status", "--json")
    assert status == 0
    states = {run["uid"]: run["state"] for run in json.loads(out)["runs"]}
    assert states == {"aaaa-1": "incomplete", "bbbb-2": "unreadable"}


def test_one_run_is_told_with_its_frames_stages_and_products(apsber, make_run):
    folder = make_run("aaaa-1", 1e9, reason="1 of 13 frames are missing")
    status, out, _ = apsber("status", "aaaa")
    assert status == 0
    for words in ("incomplete 1 of 13 frames are missing", "primary", "publish", "running"):
        assert words in out
    assert str(folder.figures / "ortho_slices.png") in out
    status, out, err = apsber("status", "latest", "--json")
    value = json.loads(out)
    assert out.count("\n") == 1
    assert "primary" in err
    assert value["state"] == "incomplete"
    assert value["frames"]["streams"]["primary"]["missing"] == "3"
    assert [(stage["name"], stage["state"]) for stage in value["stages"]] == [
        ("centre", "done"),
        ("publish", "running"),
    ]


def test_the_report_of_a_run_is_drawn_into_its_folder_or_elsewhere(apsber, make_run, tmp_path):
    folder = make_run("aaaa-1", 1e9)
    status, out, _ = apsber("show")
    assert status == 0
    report = folder.figures / "report.png"
    assert str(report) in out
    assert "3.25" in out
    assert "1 of 13 frames are missing" in out
    status, out, _ = apsber("show", "aaaa-1", "-o", tmp_path / "copy.png", "--json")
    assert status == 0
    assert out.count("\n") == 1
    assert json.loads(out)["figure"] == str(tmp_path / "copy.png")
    assert (tmp_path / "copy.png").read_bytes() == report.read_bytes()
    assert report.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_slices_says_in_what_state_it_is(apsber, make_run):
    make_run("aaaa-1", 1e9, reason="no flats")
    status, out, _ = apsber("show")
    assert status == 0
    assert "incomplete: no flats" in out


def test_a_picture_is_drawn_in_a_terminal_that_can_and_in_no_other():
    can = {"force_terminal": True, "color_system": "truecolor"}
    for options, expected in (
        (can, True),
        ({**can, "color_system": None}, False),
        ({"force_terminal": False}, False),
    ):
        output = Output(as_json=False)
        file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        output.console = Console(file=file, **options)
        assert output.draws_pictures is expected
    assert not Output(as_json=True).draws_pictures


def test_square_brackets_are_only_that(apsber, make_run):
    odd = "[/] [bold] [/entry/data] [red]"
    make_run("aaaa-1", 1e9, sample=odd, reason=odd)
    for words in (["status"], ["status", "latest"], ["show"]):
        status, _, err = apsber(*words)
        assert status == 0, err
    assert odd in apsber("status")[1]
    assert odd in apsber("status", "latest")[1]


def test_damaged_quality_numbers_are_named(apsber, make_run):
    folder = make_run("aaaa-1", 1e9)
    folder.quality.write_text("{")
    refused(apsber("status", "latest"), "cannot read", "quality.json")


def test_the_data_root_can_be_given(apsber, make_run, tmp_path):
    make_run("aaaa-1", 1e9)
    _, out, _ = apsber("status", "--data-root", tmp_path / "other", "--json")
    assert json.loads(out) == {
        "data_root": str(tmp_path / "other"),
        "session": None,
        "runs": [],
    }


def test_the_module_is_the_command_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['apsber', '--version']\n"
        "from apsber_bluesky.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'tiled', 'ophyd', 'epics', 'caproto', 'matplotlib', 'zarr', 'bluesky'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [__version__, "[]"]
    done = subprocess.run(
        [sys.executable, "-m", "apsber_bluesky.cli", "run", "fly_me"],
        capture_output=True,
        text=True,
        check=False,
    )
    refused((done.returncode, done.stdout, done.stderr), "no plan 'fly_me'")


PLAN = find_plan("fly_tomography")


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("exposure_s=0.05", "exposure_s", 0.05),
        ("exposure_s=5e-3", "exposure_s", 0.005),
        ("exposure_s=1", "exposure_s", 1.0),
        ("num_flats=3", "num_flats", 3),
        ("frame_period_s=null", "frame_period_s", None),
        ("return_rotation=no", "return_rotation", False),
        ("flat_mode=both", "flat_mode", "both"),
        ("sample=root", "sample", "root"),
        ("sample=123", "sample", "123"),
        ("sample=2026-01-02", "sample", "2026-01-02"),
        ("sample=a=b", "sample", "a=b"),
        ("md={proposal_id: GUP-1}", "md", {"proposal_id": "GUP-1"}),
    ],
)
def test_arguments_are_read_as_the_plan_annotates_them(word, name, value):
    arguments = parse_arguments(PLAN, [word], [])
    assert arguments == {name: value}
    assert type(arguments[name]) is type(value)


def test_a_plan_whose_devices_are_missing_names_them():
    words = r"devices rotation \(none fits\), sample_x .* has camera, shutter"
    with pytest.raises(InputError, match=words):
        bind(PLAN, {"camera": 1, "shutter": 2}, {})


def test_the_only_device_that_a_plan_can_use_need_not_be_given():
    devices = make_devices(load_profile("simulated").devices, {"P": "nowhere:"})
    plan = bind(find_plan("scattering_series"), devices, {"axis": "sample_stage.y"})
    given = inspect.getgeneratorlocals(plan)
    assert given["detector"] is devices.eiger
    assert given["axis"] is devices.sample_stage.y
    assert given["rotation"] is None
    with pytest.raises(InputError, match=r"needs devices fast_axis \(.*fly_x.*\), slow_axis"):
        bind(find_plan("xrf_map"), devices, {})
    with pytest.raises(InputError, match="axis='shutter' is no device that plan scattering"):
        bind(find_plan("scattering_series"), devices, {"axis": "shutter"})
    devices.disconnect()
