"""The IPython profile as a user starts it: names, banner, magics, Ctrl-C, exit."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]

TABLE = runpy.run_path(str(Path(__file__).with_name("plan_arguments.py")))

NAMES = ["RE", "sd", "cat", "bec", "peaks", "oregistry", "bp", "bps", "camera", "fly_tomography"]
TYPED = """
print("NAMES", [name for name in "{names}".split() if name in globals()])
(uid,) = RE(bp.count([shutter, sample_x], num=2))
%wa shutters
print("RAN", uid)
print("PLOTS", bec._plots_enabled)
exit
""".replace("{names}", " ".join(NAMES))


@pytest.fixture
def start(apsber, repository, tmp_path):
    """Start IPython with the profile of the repository, copied: it keeps its own files there."""
    folder = tmp_path / "profile"
    shutil.copytree(repository / "profiles" / "ipython", folder)
    profile = tmp_path / "small.yaml"
    TABLE["write_profile"](repository, profile)

    def start():
        return subprocess.Popen(
            [sys.executable, "-m", "IPython", "--simple-prompt", "--profile-dir", str(folder)],
            env={
                **apsber.environment,
                "APSBER_PROFILE": str(profile),
                "APSBER_DATA_ROOT": str(tmp_path / "data"),
                "IPYTHONDIR": str(tmp_path / "ipython"),
                "COLUMNS": "200",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


def test_everything_a_user_needs_is_there_and_exit_leaves_nothing(start, apsber):
    process = start()
    output, _ = process.communicate(TYPED, timeout=120)
    assert process.returncode == 0, output
    assert f"NAMES {NAMES}" in output, output
    assert re.search(r"RAN [0-9a-f-]{36}", output), output
    assert "PLOTS False" in output
    # The banner, %wa and the table of the scan.
    assert "connected" in output
    assert "last scan  none yet" in output
    assert "shutter_state" in output
    assert apsber.left_running() == []


def test_ctrl_c_while_it_starts_leaves_nothing(start, apsber, wait_until):
    process = start()
    wait_until(lambda: len(apsber.left_running()) >= 3)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate("exit\n", timeout=60)
    assert "interrupted while the session was starting" in output, output
    assert apsber.left_running() == []
