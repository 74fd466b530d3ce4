"""What training on somebody's own data has in common: the scan, the model to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apsber_bluesky.cli._output import profile_with
from apsber_bluesky.core import ModelCard, RunFolder, file_checksum, find_run, tree_checksum

if TYPE_CHECKING:
    from apsber_bluesky.processing.learned import Recipe, SliceNetwork

NO_START = "none"
"""What to give instead of a model, to begin with random weights."""


@dataclass(frozen=True, slots=True)
class OwnTraining:
    """What is asked for; see the options of the command."""

    run: str
    steps: int | None
    batch: int
    patch: int
    checkpoint_steps: int
    folder: Path
    name: str | None
    device: str
    jobs: int | None
    start: str
    profile: str
    data_root: Path | None

    @property
    def place(self) -> Path:
        """The run or file that is meant.

        Raises
        ------
        StorageError
            If it is neither a file nor a run.
        """
        path = Path(self.run)
        if path.exists():
            return path
        settings = profile_with(self.profile, self.data_root)
        return find_run(settings.session.data_root, self.run).path

    def start_model(self) -> tuple[ModelCard, Path] | None:
        """The model to begin with, and its folder.

        Raises
        ------
        ConfigurationError
            If there is no such model.
        """
        from apsber_bluesky.processing.learned import find_model

        if self.start == NO_START:
            return None
        own = profile_with(self.profile, self.data_root).processing.models
        return find_model(self.start, own)


def begin(
    recipe: Recipe, model: tuple[ModelCard, Path] | None
) -> tuple[Recipe, SliceNetwork | None]:
    """The recipe of the model that is begun with, and its network."""
    from apsber_bluesky.processing.learned import begin_with

    return (recipe, None) if model is None else begin_with(recipe, *model)


def identity(place: Path) -> dict[str, Any]:
    """What a card says a model was trained on: the run's uid, or the file's name and hash."""
    for folder in (place.absolute(), place.absolute().parent):
        if RunFolder(folder).ledger.is_file():
            return {"run_uid": folder.name}
    return {"file": place.name, "checksum": checksum(place)}


def checksum(place: Path) -> str:
    """Of a file, or of all files of a folder."""
    return tree_checksum(place) if place.is_dir() else file_checksum(place)
