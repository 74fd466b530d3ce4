"""Bad input: one clear line that names the value, exit status 1, nothing left running."""

from __future__ import annotations

import socket

import h5py
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]


def lines_of(outcome):
    return [line for line in outcome.stderr.splitlines() if line.strip()]


def check(outcome, *words):
    assert outcome.status == 1, outcome.stderr
    assert "Traceback" not in outcome.stderr
    error = lines_of(outcome)[-1]
    assert error.startswith("error: ")
    for word in words:
        assert str(word) in error


def truncated(tooth, path):
    path.write_bytes(tooth.read_bytes()[:20000])


def without_flats(tooth, path):
    with h5py.File(tooth) as source, h5py.File(path, "w") as target:
        for name in ("data", "data_dark", "theta"):
            target[f"exchange/{name}"] = source[f"exchange/{name}"][()]


def of_another_format(tooth, path):
    path.write_text("projection, angle\n1, 0\n")


@pytest.mark.parametrize("damage", [truncated, without_flats, of_another_format])
def test_data_file_that_cannot_be_replayed(apsber, tooth, tmp_path, damage):
    path = tmp_path / "scan.h5"
    damage(tooth, path)
    check(apsber("demo", "--data", path, "--data-root", tmp_path / "data"), path)


def test_data_file_that_is_not_there(apsber, tmp_path):
    path = tmp_path / "nowhere.h5"
    check(apsber("demo", "--data", path, "--data-root", tmp_path / "data"), path)


def test_data_root_that_cannot_be_made(apsber, tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "data"
    check(apsber("demo", "--data-root", path), path, "choose another")


def test_unknown_profile_key(apsber, tmp_path):
    profile = tmp_path / "beamline.yaml"
    profile.write_text("name: x\nsession: {beamline_id: a, instrument_name: b, colour: red}\n")
    check(apsber("demo", "--profile", profile), "session.colour", "red")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such_plan"], ["no_such_plan", "fly_tomography"]),
        (["fly_tomography", "exposure_s=-1"], ["exposure_s", "-1"]),
        (["fly_tomography", "num_projections=0"], ["num_projections", "0"]),
        (["fly_tomography", "rotation_start_deg=700", "rotation_stop_deg=880"], ["limits", "720"]),
    ],
)
def test_plan_that_cannot_run(apsber, tmp_path, arguments, words):
    outcome = apsber("run", *arguments, "--data-root", tmp_path / "data", "--json")
    check(outcome, *words)
    assert list(outcome.json) == ["error"]


def test_port_in_use(apsber):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        check(apsber("simulate", "--frame-address", address), address, "in use")
