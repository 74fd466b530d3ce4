"""The lines of the README, pasted in their order."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

COPIED = ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt")


@pytest.fixture(scope="module")
def clone(repository, tmp_path_factory):
    """What ``make install`` makes of a clone, with the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("clone")
    for name in COPIED:
        (folder / name).write_bytes((repository / name).read_bytes())
    profile = folder / "profiles" / "ipython"
    profile.mkdir(parents=True)
    # Not a link: IPython keeps files of its own there.
    config = "ipython_config.py"
    (profile / config).write_bytes((repository / "profiles" / "ipython" / config).read_bytes())
    environment = folder / ".venv"
    environment.mkdir()
    (environment / "bin").symlink_to(Path(sys.prefix) / "bin")
    # Newer than what it depends on, so that nothing is installed.
    (environment / ".installed").touch()
    return folder


@pytest.fixture(scope="module")
def pasted(apsber, repository, clone):
    """What a shell, and the IPython that it starts, say to the lines."""
    readme = (repository / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- tested: \w+ -->\n```(?:sh|python)\n(.*?)```", readme, re.DOTALL)
    assert len(blocks) == 2
    environment = {**apsber.environment, "IPYTHONDIR": str(clone / "ipython"), "COLUMNS": "200"}
    done = subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", "-e"],
        input="".join(blocks),
        cwd=clone,
        # As in a terminal that nobody has prepared.
        env={k: v for k, v in environment.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_pasted_in_order_they_give_two_scans_and_their_volumes(pasted, clone, apsber):
    assert "The queue runs" in pasted
    assert "the queue server has ended" in pasted
    assert "simulated tomography beamline: " in pasted
    assert "'signal_to_noise': {" in pasted
    volumes = re.findall(r"\('([0-9a-f-]{36})', \((\d+), (\d+), (\d+)\), ", pasted)
    assert [tuple(map(int, shape)) for _, *shape in volumes] == [(256, 256, 256)] * 2, pasted
    status = apsber("status", "--data-root", clone / "data", "--json")
    runs = {run["uid"]: run for run in json.loads(status.stdout)["runs"]}
    assert set(runs) == {uid for uid, *_ in volumes}
    assert [run["state"] for run in runs.values()] == ["complete", "complete"]


def test_every_line_is_understood_and_nothing_is_left_running(pasted, apsber):
    # The end of its input would end IPython too, but it would ask.
    for complaint in ("Error", "not found", "Traceback", "really want to exit"):
        assert complaint not in pasted, pasted
    assert apsber.left_running() == []
