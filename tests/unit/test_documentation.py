"""The documentation says what is true, as far as a machine can tell."""

from __future__ import annotations

import json
import re
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from apsber_bluesky import __version__
from apsber_bluesky.analysis import DEFAULT_LIMITS
from apsber_bluesky.core import Profile

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
SETTING = re.compile(r"^\| `([A-Za-z_.]+)` \| (required|`[^`]+`) \| .+ \|$", re.MULTILINE)
DECISIONS = "docs/explanation/decisions"


def pages(repository: Path) -> list[Path]:
    folders = [repository / name for name in ("docs", "profiles", "tests")]
    found = [page for folder in folders for page in sorted(folder.rglob("*.md"))]
    return [*sorted(repository.glob("*.md")), *found]


def anchors(page: Path) -> set[str]:
    """Anchors that a page offers, as GitHub makes them from its headings."""
    headings = HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_relative_link_leads_somewhere(repository: Path) -> None:
    checked, broken = 0, []
    for page in pages(repository):
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", link):
                continue
            checked += 1
            path, _, anchor = link.partition("#")
            target = (page.parent / path) if path else page
            inside = target.resolve().is_relative_to(repository)
            if not inside or not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(repository)}: {link}")
    assert checked > 20
    assert broken == []


def test_every_page_can_be_reached_from_the_index(repository: Path) -> None:
    reached: set[Path] = set()
    waiting = [repository / "docs" / "index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = LINK.findall(page.read_text(encoding="utf-8"))
        waiting += [page.parent / link.partition("#")[0] for link in links if ":" not in link]
    assert set((repository / "docs").resolve().rglob("*.md")) - reached == set()


def test_decisions_are_numbered_without_gaps(repository: Path) -> None:
    records = sorted((repository / DECISIONS).glob("*.md"))
    assert len(records) >= 9
    for number, record in enumerate(records, start=1):
        assert record.name.startswith(f"{number:04d}-")
        text = record.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. ")
        for section in ("## Context", "## Decision", "## Consequences"):
            assert section in text


def test_files_named_in_comments_of_the_configuration_exist(repository: Path) -> None:
    named = []
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", "Makefile"):
        named += re.findall(r"docs/[\w./-]+\.md", (repository / name).read_text(encoding="utf-8"))
    assert named
    assert [path for path in named if not (repository / path).is_file()] == []


def test_the_changelog_has_an_entry_of_this_version(repository: Path) -> None:
    text = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(__version__)}\]", text, re.MULTILINE)


def test_the_readme_lists_the_commands_that_exist(repository: Path, run_python: Any) -> None:
    outcome = run_python(
        "import json, typer.main\n"
        "from apsber_bluesky.cli import app\n"
        "print(json.dumps(sorted(typer.main.get_command(app).commands)))"
    )
    assert outcome.returncode == 0, outcome.stderr
    readme = (repository / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `apsber (\w+)", readme, re.MULTILINE)
    assert sorted(listed) == json.loads(outcome.stdout)


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Key and default of every setting, as the reference writes them."""
    for name, field in model.model_fields.items():
        # A mapping of models, as `analysis.limits`, is one setting.
        is_mapping = typing.get_origin(field.annotation) is dict
        kinds = [] if is_mapping else [field.annotation, *typing.get_args(field.annotation)]
        nested = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if nested:
            yield from settings(nested[0], f"{prefix}{name}.")
        elif field.is_required():
            yield f"{prefix}{name}", "required"
        else:
            value = field.get_default(call_default_factory=True)
            text = json.dumps(value, default=str).replace(str(Path.home()), "~")
            yield f"{prefix}{name}", f"`{text}`"


def test_the_reference_lists_every_setting_with_its_default(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "profile.md").read_text(encoding="utf-8")
    listed = SETTING.findall(text)
    assert len(listed) == len(dict(listed))
    assert dict(listed) == dict(settings(Profile))


def test_the_reference_lists_the_limits_of_every_quality_number(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "profile.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`[^|]*\| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    listed = {name: (float(warn), float(fail)) for name, warn, fail in rows}
    assert listed == {name: (limit.warn, limit.fail) for name, limit in DEFAULT_LIMITS.items()}


@pytest.mark.parametrize("target", ["help", "demo", "test", "lint", "clean"])
def test_make_has_the_targets_that_it_lists(target: str, repository: Path) -> None:
    plan = subprocess.run(
        ["make", "--dry-run", target], cwd=repository, capture_output=True, text=True, check=False
    )
    assert plan.returncode == 0, plan.stderr
    # A phony target without a rule is no error.
    assert "Nothing to be done" not in plan.stdout
    help_text = subprocess.run(
        ["make", "help"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout
    assert target == "help" or f"make {target} " in help_text


def test_continuous_integration_runs_what_a_developer_runs(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text(encoding="utf-8")
