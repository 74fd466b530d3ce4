"""Small models with weights drawn by chance, which are run for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apsber_bluesky.core import ModelCard, ModelInput, NetworkShape
from apsber_bluesky.processing.learned import SliceNetwork, write_model

CLASSES = ["background", "pore", "grain"]

MakeModel = Callable[..., ModelCard]


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """Of torch, in all these tests."""


@pytest.fixture
def network() -> Callable[..., SliceNetwork]:
    """A network whose answer is not what went in."""

    def make(*, slices: int = 5, widths: tuple[int, ...] = (8, 12), outputs: int = 1) -> Any:
        torch.manual_seed(7)
        shape = {"slices": slices, "widths": widths, "outputs": outputs}
        made = SliceNetwork(**shape, biases=outputs > 1, residual=outputs == 1)
        torch.nn.init.normal_(made.last.weight, 0, 0.3)
        return made.eval()

    return make


@pytest.fixture
def make_model(tmp_path: Path, network: Callable[..., SliceNetwork]) -> MakeModel:
    """Write a model into the test's folder; fields of the card and its input can be changed."""

    def make(task: str = "denoise", *, folder: Path = tmp_path, **changes: Any) -> ModelCard:
        widths = changes.pop("widths", (8, 12))
        slices = changes.pop("slices", 5)
        classes = [] if task == "denoise" else CLASSES
        outputs = len(classes) or 1
        made = network(slices=slices, widths=widths, outputs=outputs)
        shape = NetworkShape(
            slices=slices, outputs=outputs, widths=list(widths), biases=outputs > 1,
            residual=outputs == 1,
        )  # fmt: skip
        takes = {"slices": slices, "unit": "level", "minimum": -3.0, "maximum": 4.0}
        takes |= changes.pop("input", {})
        about = {
            "name": f"test-{task}", "version": "1", "description": "Weights drawn by chance.",
            "task": task, "network": shape, "input": ModelInput(**takes), "classes": classes,
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        return write_model(folder, made, about | changes)

    return make
