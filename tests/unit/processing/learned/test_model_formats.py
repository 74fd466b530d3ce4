"""Models as files: what is read, and what is refused before it can do harm."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from apsber_bluesky.core import (
    ConfigurationError,
    InputError,
    LearnedSettings,
    ModelCard,
    file_checksum,
)
from apsber_bluesky.processing.learned import _formats as formats
from apsber_bluesky.processing.learned import load_model

SETTINGS = LearnedSettings(model="here", device="cpu")
EXAMPLE = torch.zeros(2, 3, 16, 24)


def card_of(path: Path, kind: str, **changes: Any) -> ModelCard:
    about: dict[str, Any] = {
        "name": "foreign", "version": "1", "description": "Somebody's.", "task": "transform",
        "file": path.name, "sha256": file_checksum(path), "format": kind,
        "input": {"slices": 3, "unit": "level", "minimum": -3, "maximum": 3, "multiple": 4},
    }  # fmt: skip
    return ModelCard.model_validate(about | changes)


def save_torchscript(network: torch.nn.Module, path: Path, example: torch.Tensor = EXAMPLE) -> Path:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(network, example), str(path))
    return path


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """A network of the suite, exported by torch."""
    from apsber_bluesky.processing.learned import SliceNetwork

    torch.manual_seed(7)
    network = SliceNetwork(slices=3, outputs=1, widths=(4, 6), biases=False, residual=True).eval()
    torch.nn.init.normal_(network.last.weight, 0, 0.3)
    sizes = {0: "n", 2: 4 * torch.export.Dim("r"), 3: 4 * torch.export.Dim("c")}
    sizes[0] = torch.export.Dim("n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (EXAMPLE,), dynamo=True, dynamic_shapes=(sizes,), verbose=False
        )
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    program.save(path)
    return path, network


@pytest.fixture
def images():
    return np.random.default_rng(2).normal(size=(2, 3, 30, 41)).astype(np.float32)


def expected(network, images):
    """The network on images padded by hand."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, 2), (0, 3)), "reflect")
    with torch.inference_mode():
        return network(torch.from_numpy(padded)).numpy()[:, :, :30, :41]


def test_onnx_says_what_torch_says(onnx_file, images):
    path, network = onnx_file
    model = load_model(card_of(path, "onnx"), path.parent, SETTINGS)
    assert model.precision == "float32"
    np.testing.assert_allclose(model.apply(images), expected(network, images), atol=1e-5)


def test_torchscript_says_what_torch_says(network, tmp_path, images):
    made = network(slices=3)
    path = save_torchscript(made, tmp_path / "model.pt")
    model = load_model(card_of(path, "torchscript"), tmp_path, SETTINGS)
    np.testing.assert_allclose(model.apply(images), expected(made, images), atol=1e-5)


def test_tiles_of_foreign_models_are_blended_too(onnx_file):
    path, _ = onnx_file
    image = np.random.default_rng(2).normal(size=(1, 3, 300, 64)).astype(np.float32)
    whole = load_model(card_of(path, "onnx"), path.parent, SETTINGS).apply(image)
    small = SETTINGS.model_copy(update={"tile": 160})
    tiles = load_model(card_of(path, "onnx"), path.parent, small).apply(image)
    np.testing.assert_allclose(tiles, whole, atol=1e-4)


def test_a_model_that_classifies_sees_whole_images(tmp_path):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    ).eval()  # fmt: skip
    path = save_torchscript(network, tmp_path / "hits.pt", torch.zeros(2, 1, 16, 16))
    card = card_of(
        path, "torchscript", task="classify", classes=["blank", "hit"],
        input={"slices": 1, "unit": "counts", "minimum": 0, "maximum": 1e4},
    )  # fmt: skip
    frames = np.random.default_rng(0).poisson(3, (5, 1, 200, 90)).astype(np.float32)
    small = SETTINGS.model_copy(update={"tile": 64})
    answer = load_model(card, tmp_path, small).apply(frames)
    with torch.inference_mode():
        np.testing.assert_allclose(answer, network(torch.from_numpy(frames)), atol=1e-5)


@pytest.mark.parametrize("kind", ["safetensors", "torchscript", "onnx"])
def test_a_pickle_under_another_name_is_never_unpickled(make_model, tmp_path, kind):
    mark = tmp_path / "was-run"

    class Trap:
        def __reduce__(self):
            return Path.touch, (mark,)

    card = make_model()
    for number, dump in enumerate((pickle.dumps, None)):
        path = tmp_path / f"trap{number}"
        if dump is None:
            torch.save({"weights": Trap()}, path)
        else:
            path.write_bytes(dump(Trap()))
        network = card.network if kind == "safetensors" else None
        changes = {"file": path.name, "sha256": file_checksum(path), "format": kind}
        trap = card.model_copy(update=changes | {"network": network})
        with pytest.raises(InputError, match=rf"trap{number} of model .* is no {kind} model"):
            load_model(trap, tmp_path, SETTINGS)
    assert not mark.exists()


def test_a_file_that_was_changed_is_not_opened(make_model, tmp_path):
    card = make_model()
    path = tmp_path / card.file
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"has sha256:[0-9a-f]{64}, its card says sha256:"):
        load_model(card, tmp_path, SETTINGS)
    path.unlink()
    with pytest.raises(InputError, match="has no file"):
        load_model(card, tmp_path, SETTINGS)


def test_weights_of_another_network_are_refused(make_model, tmp_path):
    card = make_model()
    save_file({"last.weight": torch.zeros(3)}, tmp_path / card.file)
    card = card.model_copy(update={"sha256": file_checksum(tmp_path / card.file)})
    with pytest.raises(InputError, match="not those of the card's network"):
        load_model(card, tmp_path, SETTINGS)


def test_a_file_that_is_too_large_is_not_read(make_model, tmp_path, monkeypatch):
    card = make_model()
    monkeypatch.setattr(formats, "_MAXIMUM_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1000 are read"):
        load_model(card, tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (torch.nn.MaxPool2d(2), r"answers .* with shape \(1, 3, 8, 8\); its card promises"),
        (torch.nn.Flatten(), r"answers .* with shape \(1, 768\); its card promises"),
        (torch.nn.Conv2d(4, 1, 1), "fails on images of shape"),
    ],
)
def test_a_program_that_does_not_do_what_its_card_says_is_refused(tmp_path, network, message):
    example = EXAMPLE if not isinstance(network, torch.nn.Conv2d) else torch.zeros(1, 4, 8, 8)
    path = save_torchscript(network, tmp_path / "model.pt", example)
    model = load_model(card_of(path, "torchscript"), tmp_path, SETTINGS)
    with pytest.raises(InputError, match=message):
        model.apply(np.zeros((1, 3, 16, 16), np.float32))


def test_onnx_refuses_images_it_was_not_exported_for(onnx_file):
    path, _ = onnx_file
    narrow = {"slices": 2, "unit": "level", "minimum": 0, "maximum": 1}
    model = load_model(card_of(path, "onnx", input=narrow), path.parent, SETTINGS)
    with pytest.raises(InputError, match=r"refuses images of shape \(1, 2, 8, 8\).*Expected: 3"):
        model.apply(np.zeros((1, 2, 8, 8), np.float32))


def test_onnx_weights_outside_of_the_file_are_not_read(onnx_file, tmp_path, monkeypatch):
    """The hash says nothing of them, and their path could lead anywhere."""
    path, _ = onnx_file
    outside = tmp_path / "outside.onnx"
    onnx.save_model(
        onnx.load(path), outside, save_as_external_data=True, location="weights.bin",
        size_threshold=0,
    )  # fmt: skip
    monkeypatch.chdir("/")
    with pytest.raises(InputError, match="is no onnx model"):
        load_model(card_of(outside, "onnx"), tmp_path, SETTINGS)


def test_onnx_in_another_precision_must_be_exported_so(onnx_file):
    path, _ = onnx_file
    asked = SETTINGS.model_copy(update={"precision": "bfloat16"})
    with pytest.raises(ConfigurationError, match="leave precision at auto"):
        load_model(card_of(path, "onnx"), path.parent, asked)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (3, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)])
def test_images_of_another_shape_are_refused(network, tmp_path, shape):
    path = save_torchscript(network(slices=3), tmp_path / "model.pt")
    model = load_model(card_of(path, "torchscript"), tmp_path, SETTINGS)
    with pytest.raises(InputError, match=r"takes images of shape \(n, 3, rows, columns\)"):
        model.apply(np.zeros(shape, np.float32))


def test_values_that_are_no_numbers_are_refused(network, tmp_path):
    path = save_torchscript(network(slices=3), tmp_path / "model.pt")
    model = load_model(card_of(path, "torchscript"), tmp_path, SETTINGS)
    with pytest.raises(InputError, match="2 NaN or infinite values"):
        model.apply(np.array([np.nan, np.inf, *[0] * 190], np.float32).reshape(1, 3, 8, 8))
    with pytest.raises(InputError, match="complex64 are no real numbers"):
        model.apply(np.zeros((1, 3, 8, 8), np.complex64))


def test_a_foreign_program_cannot_change_what_it_is_given(tmp_path):
    path = save_torchscript(torch.nn.ReLU(inplace=True), tmp_path / "m.pt", EXAMPLE[:, :1].clone())
    takes = {"slices": 1, "unit": "counts", "minimum": -9, "maximum": 9}
    model = load_model(card_of(path, "torchscript", input=takes), tmp_path, SETTINGS)
    frames = np.full((1, 1, 8, 8), -1, np.float32)
    assert model.apply(frames).max() == 0
    assert frames.max() == -1


def test_an_answer_that_is_no_number_is_not_passed_on(tmp_path):
    class Roots(torch.nn.Module):
        def forward(self, images):
            return images.sqrt()

    path = save_torchscript(Roots(), tmp_path / "model.pt")
    model = load_model(card_of(path, "torchscript"), tmp_path, SETTINGS)
    with pytest.raises(InputError, match="answers with NaN or infinite values"):
        model.apply(np.full((1, 3, 8, 8), -1, np.float32))
