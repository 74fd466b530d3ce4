"""Who may import whom: the contracts of setup.cfg, light imports, and private modules."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

NETWORK = {"tiled", "globus_sdk"}
GPU = {"torch", "cupy"}
HEAVY = NETWORK | GPU | {"matplotlib"}

# What a fresh `import` of a package must not load, beside HEAVY.
FORBIDDEN = {
    "apsber_bluesky": {"numpy", "h5py", "bluesky", "ophyd", "zarr", "zmq", "p4p", "caproto"},
    "apsber_bluesky.core": {"h5py", "bluesky", "ophyd", "zarr", "zmq", "p4p", "caproto"},
    "apsber_bluesky.devices": {"h5py", "zarr", "zmq", "p4p", "caproto", "finufft"},
    "apsber_bluesky.plans": {"h5py", "zarr", "zmq", "p4p", "caproto", "finufft"},
    "apsber_bluesky.callbacks": {"h5py", "zarr", "p4p", "caproto", "finufft"},
    "apsber_bluesky.processing": {"h5py", "bluesky", "ophyd", "zarr", "zmq", "p4p", "caproto"},
    "apsber_bluesky.analysis": {"bluesky", "ophyd", "zmq", "p4p", "caproto"},
    "apsber_bluesky.pipeline": {"bluesky", "ophyd", "zmq", "p4p", "caproto"},
    "apsber_bluesky.streaming": {"bluesky", "ophyd", "zarr", "p4p", "caproto"},
    "apsber_bluesky.storage": {"ophyd", "zmq", "p4p", "caproto"},
    # Every process of a session loads it, most of which compute nothing.
    "apsber_bluesky.session": {"p4p", "caproto", "numba", "scipy"},
    "apsber_bluesky.dashboard": {"p4p", "caproto"},
    "apsber_bluesky.viewers": {"p4p", "caproto"},
    "apsber_bluesky.cli": {"p4p", "caproto"},
}


def test_every_import_contract_of_setup_cfg_is_kept(repository: Path) -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    outcome = subprocess.run(
        [lint, "--no-cache", "--config", "setup.cfg"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    # No contract may go missing unnoticed: a misspelt section would simply not be read.
    assert "Contracts: 5 kept, 0 broken." in outcome.stdout


def test_every_package_has_its_list_of_forbidden_imports(repository: Path) -> None:
    folders = (repository / "src" / "apsber_bluesky").iterdir()
    packages = {f"apsber_bluesky.{f.name}" for f in folders if (f / "__init__.py").is_file()}
    # simulation is the IOC and may load what it needs; models and profiles hold data.
    exempt = {f"apsber_bluesky.{name}" for name in ("simulation", "models", "profiles")}
    assert packages - exempt == set(FORBIDDEN) - {"apsber_bluesky"}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_importing_a_package_loads_nothing_heavy(package: str, run_python, tmp_path: Path) -> None:
    outcome = run_python(
        f"import json, sys, {package}; print(json.dumps(sorted(sys.modules)))", cwd=tmp_path
    )
    assert outcome.returncode == 0, outcome.stderr
    loaded = {name.partition(".")[0] for name in json.loads(outcome.stdout)}
    assert loaded & (HEAVY | FORBIDDEN[package]) == set()


def test_private_modules_are_imported_only_from_within_their_package(repository: Path) -> None:
    # Within: by the package and those below it. One above it or beside it takes public names.
    root = repository / "src"
    trespasses = []
    for file in _python_files(root / "apsber_bluesky"):
        package = ".".join(file.relative_to(root).parent.parts)
        for line, module in _imports(file):
            owner, private = _owner_of_private(module)
            if private and not _is_within(package, owner):
                trespasses.append(f"{file.relative_to(root)}:{line} imports {module}")
    assert trespasses == []


@pytest.mark.parametrize(
    ("file", "module", "allowed"),
    [
        ("processing/_engines.py", "apsber_bluesky.processing._weights", True),
        ("processing/centre/_find.py", "apsber_bluesky.processing._weights", True),
        ("processing/centre/_find.py", "apsber_bluesky.processing.centre._opposites", True),
        ("processing/centre/_find.py", "apsber_bluesky.processing.gridding", True),
        ("processing/centre/_find.py", "apsber_bluesky.processing.gridding._points", False),
        ("processing/_engines.py", "apsber_bluesky.processing.gridding._points", False),
        ("pipeline/_reconstruct.py", "apsber_bluesky.processing.gridding._points", False),
        ("pipeline/_reconstruct.py", "apsber_bluesky.processing._weights", False),
        ("processingx/_a.py", "apsber_bluesky.processing._weights", False),
    ],
)
def test_the_rule_of_private_modules_knows_packages_within_packages(
    file: str, module: str, allowed: bool
) -> None:
    package = ".".join(Path("apsber_bluesky", file).parent.parts)
    owner, private = _owner_of_private(module)
    assert (not private or _is_within(package, owner)) == allowed


def test_tests_of_a_package_reach_into_no_other_package(repository: Path) -> None:
    unit = repository / "tests" / "unit"
    trespasses = []
    for file in _python_files(unit):
        folder = file.relative_to(unit).parts[0]
        for line, module in _imports(file):
            owner, private = _owner_of_private(module)
            if private and not _is_within(owner, f"apsber_bluesky.{folder}"):
                trespasses.append(f"{file.relative_to(unit)}:{line} imports {module}")
    assert trespasses == []


def test_imports_are_absolute(repository: Path) -> None:
    relative = [
        f"{file}:{node.lineno}"
        for file in _python_files(repository / "src" / "apsber_bluesky")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def _is_within(package: str, owner: str) -> bool:
    """Whether a package is another one or lies below it."""
    return package == owner or package.startswith(f"{owner}.")


def _python_files(root: Path) -> list[Path]:
    # Path.rglob does not enter the symlinked packages on every Python, so go folder by folder.
    files: list[Path] = []
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and entry.name != "__pycache__":
            files += _python_files(entry)
        elif entry.suffix == ".py":
            files.append(entry)
    return files


def _imports(file: Path) -> list[tuple[int, str]]:
    """Every module that a file names, ``from a import b`` as ``a`` and ``a.b``."""
    named = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named.append((node.lineno, node.module))
            named += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return named


def _owner_of_private(module: str) -> tuple[str, bool]:
    """The package that a private module of the suite belongs to."""
    parts = module.split(".")
    if parts[0] == "apsber_bluesky":
        for place, part in enumerate(parts[1:], start=1):
            if part.startswith("_") and not part.startswith("__"):
                return ".".join(parts[:place]), True
    return "", False
