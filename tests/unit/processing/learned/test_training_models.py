"""From examples to a model on disk that can be opened and run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from apsber_bluesky.core import (
    InputError,
    LearnedSettings,
    NetworkShape,
    RunCancelled,
    StorageError,
    file_checksum,
    read_model_card,
)
from apsber_bluesky.processing.learned import (
    ExampleFolder,
    ModelAbout,
    Recipe,
    SliceNetwork,
    denoiser_recipe,
    load_model,
    make_model,
    segmenter_recipe,
    step_seconds,
)

CLASSES = ["air", "rock", "old gold"]
ABOUT = ModelAbout("small", "3", "Made by a test.", {"command": "none"})


def small(recipe: Recipe) -> Recipe:
    """The same recipe for a network that is trained within a second."""
    shape = NetworkShape(**{**recipe.shape.model_dump(), "slices": 3, "widths": [8, 12]})
    return replace(recipe, shape=shape)


DENOISER = small(denoiser_recipe(steps=6, batch=2, patch=16, checkpoint_steps=3))
SEGMENTER = small(segmenter_recipe(3, steps=120, batch=4, patch=16, checkpoint_steps=60))
# So few weights in so few steps need all their digits.
SEGMENTER = replace(
    SEGMENTER, settings=replace(SEGMENTER.settings, learning_rate=1e-2, bfloat16=False)
)


def add_discs(folder: ExampleFolder, seed: int) -> None:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:36, :36] - 17.5
    labels = np.zeros((5, 36, 36), np.uint8)
    labels[:, np.hypot(x, y) < random.uniform(10, 15)] = 1
    labels[:, np.hypot(x - random.uniform(-3, 3), y) < 5] = 2
    truth = np.array([0.0, 1.0, 2.0])[labels]
    folder.add(
        truth + 0.2 * random.standard_normal((2, *truth.shape)), targets=truth[None], labels=labels
    )


@pytest.fixture
def examples(tmp_path: Path) -> tuple[ExampleFolder, ExampleFolder]:
    found = []
    for name, seeds in (("examples", range(3)), ("held-out", range(50, 54))):
        folder = ExampleFolder.create(tmp_path / name, "discs", CLASSES, {"first_seed": seeds[0]})
        for seed in seeds:
            add_discs(folder, seed)
        found.append(folder)
    return found[0], found[1]


def test_a_trained_denoiser_can_be_opened_and_says_what_it_is(
    examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    seen: list[tuple[str, int]] = []

    class Watch:
        def step(self, done: int) -> None:
            seen.append(("step", done))

        def checkpoint(self, step: int, loss: float, held_out_loss: float) -> None:
            assert 0 < held_out_loss < 1
            seen.append(("checkpoint", step))

    made = make_model(DENOISER, *examples, tmp_path / "out", ABOUT, watch=Watch())
    card = read_model_card(tmp_path / "out" / "small.yaml")
    assert card == made
    assert card.sha256 == file_checksum(tmp_path / "out" / "small.safetensors")
    assert card.training | {
        "data": "discs", "volumes": 3, "data_first_seed": 0, "held_out_volumes": 4,
        "held_out_first_seed": 50, "steps": 6, "command": "none",
    } == card.training  # fmt: skip
    assert card.figures["held_out_rms_before"] == pytest.approx(0.2, rel=0.05)
    assert (card.input.unit, card.input.multiple) == ("level", 4)
    assert card.input.minimum < -0.4
    assert card.input.maximum > 2.2
    steps = [step for kind, step in seen if kind == "step"]
    assert steps == list(range(7))
    assert [step for kind, step in seen if kind == "checkpoint"] == [3, 6]
    lines = (tmp_path / "out" / "small.losses.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6]
    state = torch.load(tmp_path / "out" / "small.checkpoint", weights_only=True)
    network = SliceNetwork(**DENOISER.shape.model_dump())
    network.load_state_dict(state["average"])
    images = np.random.default_rng(1).standard_normal((2, 3, 20, 16), np.float32)
    opened = load_model(card, tmp_path / "out", LearnedSettings(model="small", device="cpu"))
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(opened.apply(images), expected, atol=1e-5)


def test_equal_examples_and_settings_make_equal_bytes(
    examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    first = make_model(DENOISER, *examples, tmp_path / "a", ABOUT)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert make_model(DENOISER, *examples, tmp_path / "b", ABOUT) == first
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_trained_segmenter_is_calibrated_and_finds_what_was_held_out(
    examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    card = make_model(SEGMENTER, *examples, tmp_path / "out", ABOUT)
    assert card.classes == CLASSES
    figures = card.figures
    assert figures["held_out_dice_mean"] > 0.85
    names = {"air", "rock", "old_gold"}
    assert {f"held_out_dice_{name}" for name in names} <= figures.keys()
    assert card.temperature != 1
    assert figures["held_out_calibration_error"] < figures["held_out_calibration_error_before"]


def test_an_interrupted_training_says_so_and_writes_no_card(
    examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    whole = make_model(DENOISER, *examples, tmp_path / "whole", ABOUT)
    stop = threading.Event()
    stop.set()
    with pytest.raises(RunCancelled, match="the same command goes on"):
        make_model(DENOISER, *examples, tmp_path / "out", ABOUT, cancelled=stop)
    assert not list((tmp_path / "out").glob("small.yaml"))
    assert make_model(DENOISER, *examples, tmp_path / "out", ABOUT) == whole


def test_weights_to_start_with_are_used_and_left_alone(
    examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    start = DENOISER.network()
    torch.nn.init.constant_(start.last.weight, 0.01)
    began = {name: value.clone() for name, value in start.state_dict().items()}
    own = make_model(DENOISER, *examples, tmp_path / "own", ABOUT)
    started = make_model(DENOISER, *examples, tmp_path / "started", ABOUT, start=start)
    assert started.sha256 != own.sha256
    assert all(torch.equal(value, began[name]) for name, value in start.state_dict().items())


def test_a_class_that_nobody_labelled_is_named_before_anything_is_written(
    examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    bare = ExampleFolder.create(tmp_path / "bare", "drawn", CLASSES)
    bare.add(np.ones((1, 5, 36, 36)), labels=np.ones((5, 36, 36), np.uint8))
    with pytest.raises(InputError, match=r"class air has no voxel in the labels of .*bare"):
        make_model(SEGMENTER, bare, examples[1], tmp_path / "out", ABOUT)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(
    examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageError, match="out"):
        make_model(DENOISER, *examples, tmp_path / "out", ABOUT)


def test_trying_some_steps_leaves_nothing_behind(
    examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert step_seconds(DENOISER, examples[0]) > 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("missing", ["torch", "safetensors"])
def test_without_a_library_a_training_says_what_to_install(
    missing: str, examples: tuple[ExampleFolder, ExampleFolder], tmp_path: Path
) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from pathlib import Path
from apsber_bluesky.core import ConfigurationError
from apsber_bluesky.processing import learned
try:
    recipe = learned.denoiser_recipe(steps=1, patch=16)
    folders = [learned.ExampleFolder(Path(path)) for path in sys.argv[1:3]]
    learned.make_model(recipe, *folders, Path(sys.argv[3]), learned.ModelAbout("a", "1", "b"))
except ConfigurationError as error:
    print(error)
"""
    paths = [str(folder.path) for folder in examples]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths, str(tmp_path / "out")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert missing in done.stdout
    assert "install apsber_bluesky[ml]" in done.stdout
    assert not (tmp_path / "out").exists()
