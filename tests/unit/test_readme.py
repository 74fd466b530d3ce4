"""The README names what there is; its lines are pasted by tests/system/test_readme.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from apsber_bluesky import plans


@pytest.fixture
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def section(readme: str, title: str) -> str:
    return readme.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_way_from_a_clone_to_a_volume_is_about_ten_lines(readme: str) -> None:
    blocks = re.findall(r"```\w+\n(.*?)```", section(readme, "From a clone to a volume"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line]
    assert 10 <= len(lines) <= 12


def test_its_lines_of_ipython_take_a_scan_and_read_a_volume(documented_code: Any) -> None:
    tree = ast.parse(documented_code("README.md", "ipython"))
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert {"RE", "fly_tomography", "session.wait", "from_uri"} <= calls


def test_the_table_of_plans_has_every_plan_and_no_other(readme: str) -> None:
    rows = [line for line in section(readme, "Plans").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(plans.__all__)
