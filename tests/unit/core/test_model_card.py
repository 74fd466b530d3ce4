"""Cards of learned models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from apsber_bluesky.core import (
    ConfigurationError,
    InputError,
    check_model_file,
    file_checksum,
    read_model_card,
)


@pytest.fixture
def about(tmp_path: Path) -> dict[str, Any]:
    """The plain values of a card, whose file is there."""
    (tmp_path / "m.safetensors").write_bytes(b"weights")
    return {
        "name": "m", "version": "1", "description": "Some.", "task": "segment",
        "file": "m.safetensors", "sha256": file_checksum(tmp_path / "m.safetensors"),
        "format": "safetensors", "classes": ["air", "grain"],
        "network": {"slices": 3, "outputs": 2, "widths": [8], "biases": True, "residual": False},
        "input": {"slices": 3, "unit": "level", "minimum": -2, "maximum": 3},
    }  # fmt: skip


def write(folder: Path, about: Any) -> Path:
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(about), encoding="utf-8")
    return path


def test_a_card_is_read_and_its_file_checked(about, tmp_path):
    card = read_model_card(write(tmp_path, about))
    assert (card.name, card.input.slices, card.temperature) == ("m", 3, 1.0)
    assert check_model_file(card, tmp_path) == tmp_path / "m.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"task": "guess"}, "task: Input should be"),
        ({"sha256": "md5:0"}, "sha256: String should match"),
        ({"temperature": 0}, "temperature: Input should be greater than 0"),
        ({"file": "../m.safetensors"}, r"file '\.\./m.safetensors' cannot name a file"),
        ({"name": "a/b"}, "name 'a/b' cannot name a file"),
        ({"classes": ["one"]}, "needs the names of its classes"),
        ({"classes": ["a", "b", "c"]}, "network has 3 slices and 2 outputs, the card 3 and 3"),
        ({"network": None}, "needs the shape of its network"),
        ({"format": "onnx"}, "needs the shape of its network"),
    ],
)
def test_what_is_wrong_in_a_card_is_named(about, tmp_path, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        read_model_card(write(tmp_path, about | changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "cannot read model card"),
        ("!!python/object/apply:os.getcwd []", "cannot read model card"),
        ("- a list", "card: Input should be"),
        ("", "card: Input should be"),
        ("x" * (1 << 19), "larger than 256 KiB"),
    ],
)
def test_what_is_no_card_is_refused(tmp_path, text, message):
    path = tmp_path / "m.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        read_model_card(path)


def test_a_file_of_another_hash_is_named(about, tmp_path):
    card = read_model_card(write(tmp_path, about))
    (tmp_path / "m.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError, match="damaged or another model's"):
        check_model_file(card, tmp_path)
