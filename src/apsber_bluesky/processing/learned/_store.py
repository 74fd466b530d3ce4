"""Where models are found: in the beamline's own folder, and among those of the suite."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from apsber_bluesky.core import ConfigurationError, ModelCard, read_model_card

_CARDS = "*.yaml"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A card that is there, whether it can be read or not.

    Attributes
    ----------
    name : str
        What `find_model` takes.
    path : Path
        The card.
    origin : {"own", "shipped"}
        Whose folder it is in.
    card : ModelCard or None
        What it says.
    problem : str
        Why it cannot be read; empty if it can.
    """

    name: str
    path: Path
    origin: Literal["own", "shipped"]
    card: ModelCard | None
    problem: str = ""


def find_model(name_or_path: str, own: Path | None = None) -> tuple[ModelCard, Path]:
    """Find a model; its file is not looked at yet.

    Parameters
    ----------
    name_or_path : str
        Path of a card, or the name of one, ``NAME.yaml``: that of the beamline's own folder is
        taken before that of the suite.
    own : Path or None
        The beamline's own folder.

    Returns
    -------
    card : ModelCard
        What the model is.
    folder : Path
        Where the card is; the file lies beside it.

    Raises
    ------
    ConfigurationError
        If there is no such model, or its card is wrong.
    """
    if os.sep in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        return read_model_card(path), path.parent
    for folder in _folders(own):
        path = folder / f"{name_or_path}.yaml"
        if path.is_file():
            return read_model_card(path), folder
    known = ", ".join(model.name for model in list_models(own)) or "none"
    raise ConfigurationError(
        f"there is no model {name_or_path!r} (there are: {known}); give one of these or the path "
        "of a card"
    )


def list_models(own: Path | None = None) -> list[ListedModel]:
    """The models that can be found by name, own ones first; broken cards are listed, too."""
    found: dict[str, ListedModel] = {}
    for folder in _folders(own):
        origin: Literal["own", "shipped"] = "own" if folder == own else "shipped"
        for path in sorted(folder.glob(_CARDS)):
            card, problem = None, ""
            try:
                card = read_model_card(path)
            except ConfigurationError as error:
                problem = str(error)
            listed = ListedModel(path.stem, path, origin, card, problem)
            found.setdefault(path.stem, listed)
    return list(found.values())


def _folders(own: Path | None) -> list[Path]:
    shipped = Path(str(resources.files("apsber_bluesky.models")))
    return [shipped] if own is None else [own, shipped]
