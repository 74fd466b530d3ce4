"""From examples to a model on disk: train, hold it against other examples, write it down."""

from __future__ import annotations

import copy
import json
import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from apsber_bluesky.core import (
    Cancellation,
    ConfigurationError,
    ModelCard,
    ModelInput,
    RunCancelled,
    explain_disk_errors,
)
from apsber_bluesky.processing.learned._card_writing import write_model
from apsber_bluesky.processing.learned._examples import ExampleFolder, check_examples
from apsber_bluesky.processing.learned._held_out import held_out_loss
from apsber_bluesky.processing.learned._network import SliceNetwork
from apsber_bluesky.processing.learned._recipes import Recipe
from apsber_bluesky.processing.learned._training import train

_TRIED_STEPS = 2
# Noise has no largest value: this part of the voxels lies beyond the range that a card tells.
_BEYOND_PERCENT = 0.05


@dataclass(frozen=True, slots=True)
class ModelAbout:
    """What a card says of a model that cannot be measured.

    Attributes
    ----------
    name, version, description : str
        What it is; the name is also that of its files.
    training : dict
        Data and command, for the reader.
    """

    name: str
    version: str
    description: str
    training: dict[str, Any] = field(default_factory=dict)


class TrainingWatch(Protocol):
    """Told how a training proceeds."""

    def step(self, done: int) -> None:
        """So many steps are done; also told before the first one."""

    def checkpoint(self, step: int, loss: float, held_out_loss: float) -> None:
        """The state is saved; the losses since the last time, and on held-out examples."""


class _Nobody:
    """A watch that does nothing."""

    def step(self, done: int) -> None:
        pass

    def checkpoint(self, step: int, loss: float, held_out_loss: float) -> None:
        pass


def make_model(
    recipe: Recipe,
    examples: ExampleFolder,
    held_out: ExampleFolder,
    folder: Path,
    about: ModelAbout,
    *,
    start: SliceNetwork | None = None,
    device: str = "cpu",
    watch: TrainingWatch | None = None,
    cancelled: Cancellation | None = None,
) -> ModelCard:
    """Train a network and write ``NAME.yaml`` and ``NAME.safetensors``.

    ``NAME.checkpoint`` keeps the state, so that a training that was interrupted goes on, and
    ``NAME.losses.jsonl`` one line for each checkpoint.

    Parameters
    ----------
    recipe : Recipe
        What to train, and how.
    examples, held_out : ExampleFolder
        What it learns from, and what it is held against.
    folder : Path
        Where everything is kept.
    about : ModelAbout
        For the card.
    start : SliceNetwork, optional
        Weights to begin with, instead of random ones; it is not changed.
    device : str
        Where to train, as torch names it.
    watch : TrainingWatch, optional
        Told how it proceeds.
    cancelled : Cancellation, optional
        Asked after each step.

    Returns
    -------
    ModelCard
        The card that was written.

    Raises
    ------
    ConfigurationError
        If safetensors is not installed.
    InputError
        If the examples do not fit the recipe, or there is a checkpoint of another training.
    RunCancelled
        If it was cancelled; what was done is kept.
    StorageError
        If the folder cannot be written to.
    """
    if find_spec("safetensors") is None:
        raise ConfigurationError(
            "a model's weights are written with safetensors; install apsber_bluesky[ml]"
        )
    for which in (examples, held_out):
        check_examples(
            which, slices=recipe.shape.slices, patch=recipe.settings.patch, labels=recipe.labels
        )
    watch = watch or _Nobody()
    losses = _Losses(recipe, held_out, folder / f"{about.name}.losses.jsonl", watch)
    network = recipe.network() if start is None else copy.deepcopy(start)
    average = train(
        network,
        examples,
        recipe.settings,
        recipe.loss,
        checkpoint=folder / f"{about.name}.checkpoint",
        labels=recipe.labels,
        device=device,
        progress=watch.step,
        report=losses.report,
        validate=losses.validate,
        cancelled=cancelled,
    )
    if cancelled is not None and cancelled.is_set():
        raise RunCancelled("the training was interrupted; the same command goes on with it")
    return _write_down(recipe, average, examples, held_out, folder, about)


def step_seconds(recipe: Recipe, examples: ExampleFolder, device: str = "cpu") -> float:
    """Seconds that a step takes here; a few are tried, in a place of their own."""
    settings = replace(recipe.settings, steps=_TRIED_STEPS + 1)
    told: list[float] = []

    def note(step: int) -> None:
        told.append(time.monotonic())

    with tempfile.TemporaryDirectory(prefix="apsber-train-") as place:
        train(
            recipe.network(),
            examples,
            settings,
            recipe.loss,
            checkpoint=Path(place) / "tried",
            labels=recipe.labels,
            device=device,
            progress=note,
        )
    # The first step also makes what all of them need.
    return float(np.diff(told)[1:].min())


class _Losses:
    """Keeps what a training's losses were."""

    def __init__(
        self, recipe: Recipe, held_out: ExampleFolder, path: Path, watch: TrainingWatch
    ) -> None:
        self._recipe, self._held_out, self._path, self._watch = recipe, held_out, path, watch
        self._loss = 0.0

    def report(self, step: int, loss: float) -> None:
        self._loss = loss

    def validate(self, step: int, average: SliceNetwork) -> None:
        recipe = self._recipe
        held_out = held_out_loss(average, self._held_out, recipe.loss, labels=recipe.labels)
        line = json.dumps({"step": step, "loss": self._loss, "held_out_loss": held_out})
        with (
            explain_disk_errors(self._path, "keep the losses"),
            self._path.open("a", encoding="utf-8") as stream,
        ):
            stream.write(line + "\n")
        self._watch.checkpoint(step, self._loss, held_out)


def _write_down(
    recipe: Recipe,
    network: SliceNetwork,
    examples: ExampleFolder,
    held_out: ExampleFolder,
    folder: Path,
    about: ModelAbout,
) -> ModelCard:
    figures = recipe.figures(network, held_out)
    low, high = _input_range(examples)
    settings, origin = recipe.settings, examples.description
    training = {
        "data": origin.origin,
        "volumes": origin.volumes,
        **{f"data_{name}": value for name, value in origin.made_with.items()},
        "held_out_volumes": held_out.description.volumes,
        **{f"held_out_{name}": value for name, value in held_out.description.made_with.items()},
        "steps": settings.steps,
        "batch": settings.batch,
        "patch": settings.patch,
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
        **about.training,
    }
    return write_model(
        folder,
        network,
        {
            "name": about.name,
            "version": about.version,
            "description": about.description,
            "task": recipe.task,
            "network": recipe.shape,
            "input": ModelInput(
                slices=recipe.shape.slices,
                unit="level",
                minimum=low,
                maximum=high,
                multiple=network.multiple,
            ),
            "classes": origin.classes if recipe.labels else [],
            "temperature": round(figures.temperature, 4),
            "training": training,
            "figures": {name: round(value, 5) for name, value in figures.values.items()},
        },
    )


def _input_range(folder: ExampleFolder) -> tuple[float, float]:
    ends = [
        np.percentile(
            np.asarray(folder.inputs(number), np.float32), (_BEYOND_PERCENT, 100 - _BEYOND_PERCENT)
        )
        for number in range(0, folder.description.volumes, -(-folder.description.volumes // 16))
    ]
    return round(float(np.min(ends)), 3), round(float(np.max(ends)), 3)
