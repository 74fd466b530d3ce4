"""What a learned model is: a file of weights, and a card that says what it may be used for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from apsber_bluesky.core._errors import ConfigurationError, InputError
from apsber_bluesky.core._files import file_checksum
from apsber_bluesky.core._settings import Settings

_MAXIMUM_CARD_BYTES = 1 << 18
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class NetworkShape(Settings):
    """Shape of the suite's own network; see ``processing.learned.SliceNetwork``."""

    slices: PositiveInt
    outputs: PositiveInt
    widths: Annotated[list[PositiveInt], Field(min_length=1, max_length=8)]
    biases: bool
    residual: bool


class ModelInput(Settings):
    """What a model takes.

    Attributes
    ----------
    slices : int
        Neighbouring slices, as channels; 1 for frames.
    unit : {"level", "1/pixel", "1/m", "counts"}
        Unit of the values; ``level`` means attenuation over that of the object's usual voxel.
    minimum, maximum : float
        Between them lies what the model was trained on; values far beyond are refused.
    pixel_size_um : tuple of 2 float or None
        Smallest and largest pixel that it was trained on [um]; None for any.
    multiple : int
        Rows and columns are padded to a multiple of this.
    """

    slices: PositiveInt = 1
    unit: Literal["level", "1/pixel", "1/m", "counts"]
    minimum: float
    maximum: float
    pixel_size_um: tuple[PositiveFloat, PositiveFloat] | None = None
    multiple: PositiveInt = 1


class ModelCard(Settings):
    """The card of a model, ``NAME.yaml`` beside its file.

    Attributes
    ----------
    name, version, description, license : str
        What it is.
    task : {"denoise", "segment", "classify", "transform"}
        ``denoise`` answers with slices in the unit of its input, ``segment`` with one logit for
        each class and voxel, ``classify`` with one logit for each class and image, ``transform``
        with images of any meaning.
    file : str
        Name of the file in the folder of the card.
    sha256 : str
        ``sha256:hex`` of the file.
    format : {"safetensors", "torchscript", "onnx"}
        How the file is written.
    network : NetworkShape or None
        What the weights of a safetensors file belong to.
    input : ModelInput
        What goes in.
    classes : list of str
        What comes out, of a model that segments or classifies.
    output_unit : str
        Unit of what comes out of one that transforms.
    temperature : float
        Logits are divided by it, so that probabilities are calibrated (C. Guo et al., ICML 2017,
        arXiv:1706.04599).
    training : dict
        Data, command, seed and steps, for the reader.
    figures : dict of str to float
        What was measured on data that it was not trained on.
    """

    name: str
    version: str
    description: str
    license: str = "BSD-3-Clause"
    task: Literal["denoise", "segment", "classify", "transform"]
    file: str
    sha256: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    format: Literal["safetensors", "torchscript", "onnx"]
    network: NetworkShape | None = None
    input: ModelInput
    classes: list[str] = Field(default_factory=list)
    output_unit: str = ""
    temperature: PositiveFloat = 1.0
    training: dict[str, Any] = Field(default_factory=dict)
    figures: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for what, value in (("name", self.name), ("file", self.file)):
            check_model_name(value, what)
        if (self.format == "safetensors") != (self.network is not None):
            raise ValueError("a safetensors file, and no other, needs the shape of its network")
        if self.task in ("segment", "classify") and len(self.classes) < 2:
            raise ValueError(f"a model that can {self.task} needs the names of its classes")
        if self.network is not None:
            expected = len(self.classes) if self.task == "segment" else 1
            if (self.network.slices, self.network.outputs) != (self.input.slices, expected):
                raise ValueError(
                    f"the network has {self.network.slices} slices and {self.network.outputs} "
                    f"outputs, the card {self.input.slices} and {expected}"
                )
        return self


def check_model_name(name: str, what: str = "name") -> None:
    """Make sure that a model of this name can have files of this name.

    Raises
    ------
    InputError
        If it cannot name a file in a folder.
    """
    if not _FILE_NAME.fullmatch(name):
        raise InputError(f"{what} {name!r} cannot name a file in the folder of the card")


def read_model_card(path: Path) -> ModelCard:
    """Read a card; the file it belongs to is not touched.

    Raises
    ------
    ConfigurationError
        If there is no such card, or a key or value is wrong; the message names it.
    """
    try:
        if path.stat().st_size > _MAXIMUM_CARD_BYTES:
            raise ConfigurationError(f"model card {path} is larger than 256 KiB; is it a card?")
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read model card {path}: {error}") from error
    try:
        return ModelCard.model_validate(plain)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'card'}: {each['msg']}" for each in error.errors()
        )
        raise ConfigurationError(f"model card {path}: {wrong}") from error


def check_model_file(card: ModelCard, folder: Path) -> Path:
    """The file of a model, once its bytes are those that the card describes.

    Raises
    ------
    InputError
        If the file is not there or its hash is another one.
    """
    path = folder / card.file
    if not path.is_file():
        raise InputError(f"model {card.name} has no file {path}; copy it there or train it again")
    found = file_checksum(path)
    if found != card.sha256:
        raise InputError(
            f"the file {path} of model {card.name} has {found}, its card says {card.sha256}; "
            "it is damaged or another model's: restore the one that belongs to the card"
        )
    return path
