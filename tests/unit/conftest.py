"""What tests of several packages share."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, and no limit on time: the machine may be busy.
settings.register_profile("apsber", deadline=None, derandomize=True, database=None)
settings.load_profile("apsber")

_MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" -c "$3" "$1"'


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Give torch one thread: tests share the processors."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def full_disk(tmp_path: Path) -> Callable[[str], str]:
    """Run Python code on a disk of 2 MB that really fills up; gives what it printed.

    The code finds the disk as ``root``. It runs in a namespace of its own, which needs no rights
    where user namespaces are allowed; elsewhere the test is skipped.
    """
    probe = ["unshare", "--user", "--map-root-user", "--mount", "--"]
    disk = tmp_path / "disk"
    disk.mkdir()

    def run(code: str) -> str:
        try:
            subprocess.run([*probe, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no user namespaces here: {error}")
        script = "import sys\nfrom pathlib import Path\nroot = Path(sys.argv[1])\n"
        done = subprocess.run(
            [
                *probe,
                "sh",
                "-c",
                _MOUNT,
                "sh",
                disk,
                sys.executable,
                script + textwrap.dedent(code),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
