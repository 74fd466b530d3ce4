"""Models by name or path, and the command that lists and checks them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from apsber_bluesky.cli import app
from apsber_bluesky.core import ConfigurationError, check_model_file, load_profile
from apsber_bluesky.processing.learned import find_model, list_models

WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from pathlib import Path
from apsber_bluesky.core import ConfigurationError, DenoiseSettings
from apsber_bluesky.processing import learned

card, folder = learned.find_model("test-denoise", Path(FOLDER))
assert learned.learned_bytes(card, 64, 64, 4, DenoiseSettings()) > 0
assert not hasattr(learned, "no_such_name")
try:
    learned.load_model(card, folder, DenoiseSettings())
except ConfigurationError as error:
    print(error)
"""


def profile_of(tmp_path: Path, models: Path) -> str:
    path = tmp_path / "profile.yaml"
    profile = load_profile("simulated", {"processing": {"models": str(models)}})
    path.write_text(yaml.safe_dump(profile.model_dump(mode="json", exclude_unset=True)))
    return str(path)


def test_a_model_is_found_by_name_or_by_the_path_of_its_card(make_model, tmp_path):
    card = make_model()
    path = tmp_path / "test-denoise.yaml"
    assert find_model("test-denoise", tmp_path) == (card, tmp_path)
    assert find_model(str(path)) == (card, tmp_path)


def test_a_name_that_is_not_there_is_answered_with_those_that_are(make_model, tmp_path):
    make_model()
    with pytest.raises(ConfigurationError, match=r"no model 'x' \(there are: test-denoise"):
        find_model("x", tmp_path)
    with pytest.raises(ConfigurationError, match=r"cannot read model card .*gone\.yaml"):
        find_model(str(tmp_path / "gone.yaml"))


def test_own_models_come_before_those_of_the_suite(make_model, tmp_path, monkeypatch):
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    make_model(folder=own, version="own")
    make_model(folder=shipped, version="shipped")
    make_model("segment", folder=shipped)
    monkeypatch.setattr(
        "apsber_bluesky.processing.learned._store.resources.files", lambda package: shipped
    )
    found = {model.name: (model.origin, model.card.version) for model in list_models(own)}
    assert found == {"test-denoise": ("own", "own"), "test-segment": ("shipped", "1")}
    assert find_model("test-denoise", own)[1] == own
    assert find_model("test-denoise")[1] == shipped


def test_every_shipped_model_is_whole():
    for model in list_models():
        assert model.card is not None, model.problem
        assert model.card.name == model.name
        assert check_model_file(model.card, model.path.parent).stat().st_size < 16 << 20


def test_a_broken_card_is_listed_with_what_is_wrong(make_model, tmp_path):
    make_model()
    (tmp_path / "broken.yaml").write_text("name: [", encoding="utf-8")
    models = {model.name: model for model in list_models(tmp_path) if model.origin == "own"}
    assert set(models) == {"broken", "test-denoise"}
    assert models["broken"].card is None
    assert "cannot read model card" in models["broken"].problem


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_without_the_libraries_models_are_known_and_running_one_says_what_is_missing(
    make_model, tmp_path, run_python, missing
):
    make_model()
    done = run_python(f"BLOCKED, FOLDER = [{missing!r}], {str(tmp_path)!r}\n{WITHOUT}")
    assert done.returncode == 0, done.stderr
    assert f"{missing}, which is not installed" in done.stdout
    assert done.stdout.strip().endswith("install apsber_bluesky[ml]")


def test_the_command_lists_shows_and_checks(make_model, tmp_path):
    folder = tmp_path / "models"
    make_model(folder=folder, figures={"psnr": 31.5})
    damaged = make_model("segment", folder=folder)
    (folder / damaged.file).write_bytes(b"damaged")
    (folder / "broken.yaml").write_text("name: x", encoding="utf-8")
    profile = profile_of(tmp_path, folder)

    def apsber(*words: str, status: int = 0) -> dict[str, object]:
        done = CliRunner().invoke(app, ["models", *words, "-p", profile, "--json"])
        assert done.exit_code == status, done.output
        value: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return value

    listed = {each["name"]: each for each in apsber("list")["models"]}
    assert listed["test-denoise"]["task"] == "denoise"
    assert "version: Field required" in listed["broken"]["problem"]
    shown = apsber("show", "test-denoise")
    assert shown["figures"] == {"psnr": 31.5}
    assert shown["folder"] == str(folder)
    assert apsber("check", "test-denoise")["problems"] == {}
    problems = apsber("check", status=1)["problems"]
    assert set(problems) == {"broken", "test-segment"}
    assert "its card says sha256:" in problems["test-segment"]
    words = CliRunner().invoke(app, ["models", "show", "test-denoise", "-p", profile]).output
    for word in ("test-denoise", "-3 to 4 level", "5 neighbouring slices", "psnr 31.5"):
        assert word in words
