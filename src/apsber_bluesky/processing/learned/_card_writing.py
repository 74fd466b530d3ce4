"""Write a trained network down: its weights, and the card that belongs to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import nn

from apsber_bluesky.core import (
    ModelCard,
    atomic_file,
    explain_disk_errors,
    file_checksum,
)


def write_model(folder: Path, network: nn.Module, about: dict[str, Any]) -> ModelCard:
    """Write ``NAME.safetensors`` and ``NAME.yaml``.

    Equal weights make equal bytes. Between the two files there is a moment in which a card that
    was there before belongs to other weights; who reads it then is told so by the hash.

    Parameters
    ----------
    folder : Path
        Where to.
    network : SliceNetwork
        The network, wherever it is.
    about : dict
        Fields of the card; the file's name, format and hash are filled in.

    Returns
    -------
    ModelCard
        The card that was written.

    Raises
    ------
    StorageError
        If the folder cannot be written to.
    """
    from safetensors.torch import save

    file = f"{about['name']}.safetensors"
    weights = {name: value.detach().cpu().contiguous() for name, value in _state(network)}
    with explain_disk_errors(folder, "write the model"):
        with atomic_file(folder / file) as partial:
            partial.write_bytes(save(weights))
        card = ModelCard(
            **about, file=file, format="safetensors", sha256=file_checksum(folder / file)
        )
        with atomic_file(folder / f"{card.name}.yaml") as partial:
            plain = card.model_dump(mode="json")
            partial.write_text(yaml.safe_dump(plain, sort_keys=False, width=100), encoding="utf-8")
    return card


def _state(network: nn.Module) -> list[tuple[str, Any]]:
    return sorted(network.state_dict().items())
