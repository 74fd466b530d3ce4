"""Begin with the weights of a model that is there."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from apsber_bluesky.core import InputError, ModelCard
from apsber_bluesky.processing.learned._formats import open_network
from apsber_bluesky.processing.learned._network import SliceNetwork
from apsber_bluesky.processing.learned._recipes import Recipe


def begin_with(recipe: Recipe, card: ModelCard, folder: Path) -> tuple[Recipe, SliceNetwork]:
    """A recipe of a model's shape, and the network to begin with.

    Of a segmenter with another number of classes all but the last layer is taken.

    Parameters
    ----------
    recipe : Recipe
        What is to be trained.
    card, folder : ModelCard, Path
        The model.

    Raises
    ------
    InputError
        If the model does something else, or is not one of the suite's own networks, or its file
        is damaged.
    """
    if card.task != recipe.task:
        raise InputError(f"model {card.name} is one to {card.task}, not to {recipe.task}")
    if card.input.unit != "level":
        raise InputError(
            f"model {card.name} takes values in {card.input.unit}; begin with one that takes level"
        )
    network = open_network(card, folder, torch.device("cpu"), "float32")
    if card.network is None or not isinstance(network, SliceNetwork):
        raise InputError(
            f"model {card.name} is a {card.format} file, which cannot be trained further; begin "
            "with a safetensors model"
        )
    shape = card.network.model_copy(update={"outputs": recipe.shape.outputs})
    recipe = replace(recipe, shape=shape)
    if shape.outputs == card.network.outputs:
        return recipe, network
    fresh = recipe.network()
    kept = copy.deepcopy(network.state_dict())
    fresh.load_state_dict(
        {name: kept[name] if not name.startswith("last.") else value
         for name, value in fresh.state_dict().items()}
    )  # fmt: skip
    return recipe, fresh
