from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def run_python() -> RunPython:
    """Run a piece of Python in a fresh interpreter."""

    def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            stdin=subprocess.DEVNULL,
            **options,
        )

    return run


@pytest.fixture(scope="session")
def documented_code(repository: Path) -> Callable[[str, str], str]:
    """The code block behind the line ``<!-- tested: MARK -->`` of a page."""

    def extract(page: str, mark: str) -> str:
        text = (repository / page).read_text(encoding="utf-8")
        blocks = re.findall(rf"<!-- tested: {mark} -->\n```python\n(.*?)\n```\n", text, re.DOTALL)
        assert len(blocks) == 1, f"{page} has {len(blocks)} blocks marked {mark!r}"
        return str(blocks[0])

    return extract
