"""``apsber keys`` on the command line."""

from __future__ import annotations

import json
import stat
import sys

import pytest
import typer

from apsber_bluesky.cli import _app
from apsber_bluesky.cli._command_keys import keys


@pytest.fixture
def apsber_keys(monkeypatch, capsys, tmp_path):
    """Run ``apsber keys``; gives status, standard output and error."""
    monkeypatch.setenv("APSBER_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.add_typer(keys, name="keys")
    # What stands before the group is no part of this; errors are shown as `main` shows them.
    monkeypatch.setattr(_app, "app", app)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["apsber", "keys", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            _app.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_keys_are_made_listed_and_allowed_below_the_data_root(apsber_keys, tmp_path):
    folder = tmp_path / "data" / ".apsber" / "keys"
    status, out, _ = apsber_keys("create", "server", "--json")
    made = json.loads(out)
    assert status == 0
    assert made["public_file"] == str(folder / "server.key")
    assert stat.S_IMODE((folder / "server.key_secret").stat().st_mode) == 0o600
    assert (folder / "server.key_secret").read_text().split('"')[3] not in out
    theirs = tmp_path / "theirs"
    viewer = json.loads(apsber_keys("create", "viewer", "--folder", theirs, "--json")[1])
    allowed = json.loads(apsber_keys("allow", viewer["public_file"], "--json")[1])
    assert allowed == {"name": "viewer", "file": str(folder / "allowed" / "viewer.key")}
    assert json.loads(apsber_keys("list", "--json")[1]) == {
        "folder": str(folder),
        "own": {"server": made["public"]},
        "allowed": {"viewer": viewer["public"]},
    }


def test_people_are_told_what_to_give_away_and_what_to_keep(apsber_keys, tmp_path):
    status, out, _ = apsber_keys("create", "viewer", "--data-root", tmp_path)
    assert status == 0
    folder = tmp_path / ".apsber" / "keys"
    assert f"give away {folder}/viewer.key\n" in out
    assert f"keep      {folder}/viewer.key_secret\n" in out
    _, out, _ = apsber_keys("list", "--data-root", tmp_path)
    assert "viewer" in out
    assert "own" in out
    assert f"no keys in {tmp_path}/data/.apsber/keys" in apsber_keys("list")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create", "server"], "already"),
        (["create", "../server"], "key name '../server'"),
        (["allow", "nowhere.key"], "nowhere.key"),
        (["list", "--profile", "atlantis"], "no profile 'atlantis'"),
    ],
)
def test_refusals_are_one_line_and_status_1(apsber_keys, words, told):
    assert apsber_keys("create", "server")[0] == 0
    status, out, err = apsber_keys(*words)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err


@pytest.mark.parametrize("command", ["create", "list", "allow"])
def test_help_is_everywhere(apsber_keys, command):
    status, out, _ = apsber_keys(command, "--help")
    assert status == 0
    assert "--json" in out
