"""What is built is what is in the tree: no file missing, none twice, none too many."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

MAPPED = ("callbacks", "plans", "profiles")
SHIPPED = {".css", ".html", ".js", ".onnx", ".py", ".safetensors", ".svg", ".typed", ".yaml"}


@pytest.fixture(scope="module")
def config(repository: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(repository / "setup.cfg")
    return parser


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def walk_package(folder: Path, name: str) -> dict[str, Path]:
    """Every package at and below a folder, symlinked ones too, by dotted name."""
    found = {name: folder} if (folder / "__init__.py").is_file() else {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name != "__pycache__":
            found |= walk_package(entry, f"{name}.{entry.name}")
    return found


@pytest.fixture(scope="module")
def packages(repository: Path) -> dict[str, Path]:
    return walk_package(repository / "src" / "apsber_bluesky", "apsber_bluesky")


@pytest.fixture(scope="module")
def expected_files(packages: dict[str, Path]) -> set[str]:
    """Files that the wheel must hold, by their path in it."""
    return {
        f"{name.replace('.', '/')}/{file.name}"
        for name, folder in packages.items()
        for file in folder.iterdir()
        if file.suffix in SHIPPED
    }


@pytest.fixture(scope="module")
def distributions(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an sdist, the wheel built from it, and in ``direct/`` the wheel of the tree."""
    # Builds leave their own files in the tree, so they get a copy, with the symlinks as they are.
    tree = tmp_path_factory.mktemp("tree") / "apsber_bluesky"
    shutil.copytree(
        repository,
        tree,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            ".*", "*.egg-info", "__pycache__", "build", "dist", "data", "data-archive", "docs"
        ),
    )
    target = tmp_path_factory.mktemp("dist")
    # Without isolation nothing is downloaded; the test extra brings setuptools.
    for options in (["--outdir", target], ["--wheel", "--outdir", target / "direct"]):
        outcome = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", *map(str, options), str(tree)],
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return target


def wheel_contents(folder: Path) -> dict[str, int]:
    """Checksum of every file of the one wheel in a folder, but those that list the others."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert [name for name, count in Counter(names).items() if count > 1] == []
        return {i.filename: i.CRC for i in archive.infolist() if not i.filename.endswith("/RECORD")}


def test_every_package_of_the_tree_is_listed_in_setup_cfg(
    config: configparser.ConfigParser, packages: dict[str, Path]
) -> None:
    assert sorted(lines(config["options"]["packages"])) == sorted(packages)


def test_every_folder_with_python_files_is_a_package(
    repository: Path, packages: dict[str, Path]
) -> None:
    roots = [repository / "src", *(repository / name for name in MAPPED)]
    folders = {f.parent.resolve() for root in roots for f in root.rglob("*.py")}
    assert folders == {folder.resolve() for folder in packages.values()}


def test_the_mapped_packages_are_relative_symlinks_to_the_top_level(repository: Path) -> None:
    source = repository / "src" / "apsber_bluesky"
    entries = source.rglob("*")
    links = {entry.name: str(entry.readlink()) for entry in entries if entry.is_symlink()}
    assert links == {name: f"../../{name}" for name in MAPPED}
    for name in MAPPED:
        assert (source / name).resolve() == repository / name


def test_setup_cfg_maps_the_same_packages_that_are_symlinked(
    config: configparser.ConfigParser,
) -> None:
    mapping = dict(
        (part.strip() for part in line.split("="))
        for line in lines(config["options"]["package_dir"])
    )
    assert mapping == {
        "apsber_bluesky": "src/apsber_bluesky",
        **{f"apsber_bluesky.{name}": name for name in MAPPED},
    }


def test_the_wheel_holds_the_tree_and_nothing_else(
    distributions: Path, expected_files: set[str]
) -> None:
    contents = wheel_contents(distributions / "direct")
    assert {name for name in contents if ".dist-info/" not in name} == expected_files


def test_the_wheel_names_version_licence_and_command(distributions: Path, run_python) -> None:
    (wheel,) = (distributions / "direct").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        entry_points = archive.read(names["entry_points.txt"]).decode()
        metadata = archive.read(names["METADATA"]).decode()
    assert "LICENSE" in names
    assert "apsber = apsber_bluesky.cli:main" in entry_points
    version = run_python("import apsber_bluesky; print(apsber_bluesky.__version__)").stdout.strip()
    assert f"\nVersion: {version}\n" in metadata


def test_the_sdist_builds_the_wheel_that_the_tree_builds(distributions: Path) -> None:
    assert wheel_contents(distributions) == wheel_contents(distributions / "direct")


def test_the_sdist_holds_each_source_once_and_no_symlink(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert [m.name for m in members if m.issym() or m.islnk()] == []
    names = {m.name.partition("/")[2] for m in members if m.isfile()}
    assert "plans/__init__.py" in names
    assert not {n for n in names if n.startswith(tuple(f"src/apsber_bluesky/{m}" for m in MAPPED))}


def test_the_installed_wheel_works_without_the_tree(
    distributions: Path, packages: dict[str, Path], tmp_path: Path, run_python
) -> None:
    (wheel,) = (distributions / "direct").glob("*.whl")
    site = tmp_path / "site"
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    outcome = run_python(
        "import importlib, json, sys\n"
        "from apsber_bluesky.core import load_profile\n"
        f"modules = [importlib.import_module(name) for name in {sorted(packages)!r}]\n"
        "places = {module.__name__: module.__file__ for module in modules}\n"
        "print(json.dumps([places, load_profile('simulated').name]))",
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
    )
    assert outcome.returncode == 0, outcome.stderr
    places, profile = json.loads(outcome.stdout)
    assert profile == "simulated"
    for name in packages:
        assert Path(places[name]) == site.joinpath(*name.split("."), "__init__.py")


@pytest.mark.parametrize("name", ["plans", "callbacks"])
def test_a_mapped_package_refuses_to_be_imported_under_a_second_name(
    name: str, repository: Path, run_python
) -> None:
    outcome = run_python(f"import {name}", cwd=repository)
    assert outcome.returncode == 1
    assert f"ImportError: import apsber_bluesky.{name}, not {name}: " in outcome.stderr


def imported_modules(folders: list[Path]) -> dict[str, str]:
    """Top-level modules that are imported from elsewhere, and a file that imports each."""
    found = {}
    for file in (file for folder in folders for file in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            found |= {name.partition(".")[0]: str(file) for name in names}
    own = {"apsber_bluesky", *(file.stem for folder in folders for file in folder.rglob("*.py"))}
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names | own}


# Optional ones may not be installed here, and then nothing else knows what provides them.
OPTIONAL = {"cupy": "cupy-cuda13x", "cupyx": "cupy-cuda13x", "dectris": "dectris-compression"}


@pytest.mark.parametrize("extras", [[], ["test"]], ids=["package", "tests"])
def test_whatever_is_imported_is_required(
    extras: list[str],
    repository: Path,
    packages: dict[str, Path],
    config: configparser.ConfigParser,
) -> None:
    wanted = lines(config["options"]["install_requires"])
    # Engines and services that are optional are imported where they are used.
    optional = [n for n in config["options.extras_require"] if n not in ("test", "ipython")]
    for extra in [*optional, *extras]:
        wanted += lines(config["options.extras_require"][extra])
    required = {canonicalize_name(Requirement(line).name) for line in wanted}
    folders = [repository / "tests"] if extras else list(packages.values())
    modules = imported_modules(folders)
    assert len(modules) > 10
    distributions = importlib.metadata.packages_distributions()
    unmet = {
        name: file
        for name, file in modules.items()
        if not required
        & {canonicalize_name(d) for d in distributions.get(name, [OPTIONAL.get(name, name)])}
    }
    assert unmet == {}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_constraints_pin_every_requirement_within_its_range(
    python: str, repository: Path, config: configparser.ConfigParser
) -> None:
    environment = {"python_version": python, "extra": ""}
    pins: dict[str, str] = {}
    for line in (repository / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(environment):
                (specifier,) = pin.specifier
                assert specifier.operator == "=="
                assert pin.name.lower() not in pins
                pins[pin.name.lower()] = specifier.version
    wanted = lines(config["options"]["install_requires"])
    for extra, text in config["options.extras_require"].items():
        # The cupy wheel must fit the CUDA of the machine, so it is not pinned.
        wanted += lines(text) if extra != "gpu" else []
    assert len(wanted) > 30
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement
