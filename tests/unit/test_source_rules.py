"""Rules that every file of the project keeps."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

MAXIMUM_LINES = 400
# A test module is a list of cases, and may be a longer one.
MAXIMUM_TEST_LINES = 500
FOLDERS = ("src", "plans", "callbacks", "profiles", "tests", "benchmarks", "docs", ".ci")
TEXT = {".py", ".md", ".yaml", ".yml", ".cfg", ".toml", ".txt", ".sh", ".ipynb", ".json", ""}
# Somebody's own folders; a leading character of a URL or a longer name rules a match out.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/\w")


def text_files(repository: Path) -> Iterator[Path]:
    yield from (f for f in sorted(repository.iterdir()) if f.is_file() and f.suffix in TEXT)
    for folder in FOLDERS:
        for file in sorted((repository / folder).rglob("*")):
            if file.is_file() and file.suffix in TEXT and "__pycache__" not in file.parts:
                yield file


def python_files(repository: Path) -> list[Path]:
    return [file for file in text_files(repository) if file.suffix == ".py"]


def test_no_file_names_a_path_of_somebodys_machine(repository: Path) -> None:
    named = [
        f"{file.relative_to(repository)}:{number}: {line.strip()}"
        for file in text_files(repository)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert named == []


@pytest.mark.parametrize("path", ["/".join(["", top, "data"]) for top in ("work", "root", "home")])
def test_the_search_for_machine_paths_finds_them(path: str) -> None:
    assert MACHINE_PATH.search(f"open('{path}/x')")
    assert MACHINE_PATH.search(f"file://{path}/x")
    assert not MACHINE_PATH.search(f"https://example.org{path}")


def test_no_python_file_is_longer_than_the_limit(repository: Path) -> None:
    files = python_files(repository)
    assert len(files) > 100
    lengths = {f: len(f.read_text(encoding="utf-8").splitlines()) for f in files}
    tests = repository / "tests"
    too_long = {
        str(file): length
        for file, length in lengths.items()
        if length > (MAXIMUM_TEST_LINES if tests in file.parents else MAXIMUM_LINES)
    }
    assert too_long == {}


def packages(repository: Path) -> list[Path]:
    # The first star follows the symlinks of plans and callbacks, which rglob does not.
    source = repository / "src" / "apsber_bluesky"
    return sorted(f.parent for f in source.glob("*/**/__init__.py"))


def public_names(package: Path) -> list[str]:
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = ast.literal_eval(node.value)
            assert isinstance(names, list)
            return names
    return []


def docstrings(package: Path) -> dict[str, list[str | None]]:
    """Docstrings of the functions and classes at the top level of a package's modules.

    A public name of a package may be defined in a package below it.
    """
    found: dict[str, list[str | None]] = {}
    for file in sorted(package.rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.setdefault(node.name, []).append(ast.get_docstring(node))
    return found


def test_every_public_function_and_class_has_a_docstring(repository: Path) -> None:
    bare, seen = [], 0
    for package in packages(repository):
        defined = docstrings(package)
        for name in public_names(package):
            seen += name in defined
            # Constants and type aliases cannot have one.
            if name in defined and not all(defined[name]):
                bare.append(f"{package.relative_to(repository)}: {name}")
    assert seen > 80
    assert bare == []


def test_every_package_but_those_of_data_says_what_is_public(repository: Path) -> None:
    source = repository / "src" / "apsber_bluesky"
    silent = [
        package.relative_to(source).parts[0]
        for package in packages(repository)
        if not public_names(package)
    ]
    assert set(silent) == {"models", "profiles"}
