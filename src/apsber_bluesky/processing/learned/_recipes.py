"""How the networks that come with the suite are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from apsber_bluesky.core import NetworkShape
from apsber_bluesky.processing.learned._examples import ExampleFolder
from apsber_bluesky.processing.learned._held_out import Figures, denoising_figures
from apsber_bluesky.processing.learned._network import SliceNetwork
from apsber_bluesky.processing.learned._segmentation_figures import segmentation_figures
from apsber_bluesky.processing.learned._training import (
    Loss,
    TrainingSettings,
    denoising_loss,
    segmentation_loss,
)

# At a low dose, more slices hold more of what noise hides; labels need fewer.
_SLICES_DENOISING, _SLICES_SEGMENTING = 7, 5


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a network is, and how it learns.

    Attributes
    ----------
    task : {"denoise", "segment"}
        What it does.
    shape : NetworkShape
        Its shape.
    settings : TrainingSettings
        How it is trained.
    loss : callable
        What is made small.
    figures : callable
        What is measured of it on held-out examples.
    """

    task: Literal["denoise", "segment"]
    shape: NetworkShape
    settings: TrainingSettings
    loss: Loss
    figures: Callable[[SliceNetwork, ExampleFolder], Figures]

    @property
    def labels(self) -> bool:
        """Whether it learns from labels."""
        return self.task == "segment"

    def network(self) -> SliceNetwork:
        """A network with its first weights, which follow from the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return SliceNetwork(**self.shape.model_dump())


def denoiser_recipe(
    *, steps: int, batch: int = 8, patch: int = 128, checkpoint_steps: int = 500
) -> Recipe:
    """A denoiser: without biases, so that it knows no unit; see `TrainingSettings`."""
    settings = TrainingSettings(
        steps, batch, patch, checkpoint_steps=checkpoint_steps, bfloat16=True
    )
    shape = NetworkShape(
        slices=_SLICES_DENOISING,
        outputs=1,
        widths=[48, 64, 96, 128],
        biases=False,
        residual=True,
    )
    return Recipe("denoise", shape, settings, denoising_loss, denoising_figures)


def segmenter_recipe(
    classes: int, *, steps: int, batch: int = 8, patch: int = 128, checkpoint_steps: int = 500
) -> Recipe:
    """A segmenter with so many classes; see `TrainingSettings`.

    It does know the unit of its input, so the level that it is told varies in training.
    """
    settings = TrainingSettings(
        steps,
        batch,
        patch,
        learning_rate=1e-3,
        scale_spread=0.1,
        checkpoint_steps=checkpoint_steps,
        bfloat16=True,
    )
    shape = NetworkShape(
        slices=_SLICES_SEGMENTING,
        outputs=classes,
        widths=[32, 64, 96, 128],
        biases=True,
        residual=False,
    )
    return Recipe("segment", shape, settings, segmentation_loss, segmentation_figures)
