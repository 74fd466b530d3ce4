"""What models make of volumes: denoised slices, labels, or any images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned._checks import VolumeUnit, input_scale
from apsber_bluesky.processing.learned._model import Model
from apsber_bluesky.processing.learned._slabs import SlabStream


@dataclass(frozen=True, slots=True)
class Segmented:
    """What a segmenter says of some slices.

    Attributes
    ----------
    labels : ndarray of uint8, shape (n, rows, columns)
        The likeliest class of each voxel, as its place in the card's list.
    uncertainty : ndarray of float16, shape (n, rows, columns), or None
        Entropy of the probabilities over that of equal ones: 0 is sure, 1 knows nothing.
    probabilities : ndarray of float16, shape (classes, n, rows, columns), or None
        Of each class.
    """

    labels: NDArray[np.uint8]
    uncertainty: NDArray[np.float16] | None = None
    probabilities: NDArray[np.float16] | None = None


class Denoiser:
    """Denoises volumes.

    Parameters
    ----------
    model : Model
        A model whose task is ``denoise``.

    Raises
    ------
    InputError
        If the model does something else.
    """

    def __init__(self, model: Model) -> None:
        _check_task(model, "denoise")
        self.model = model

    def slabs(
        self,
        shape: tuple[int, int, int],
        level: float | None = None,
        *,
        unit: VolumeUnit = "1/pixel",
        pixel_size_um: float | None = None,
    ) -> SlabStream[NDArray[np.float32]]:
        """Begin a volume; answers are denoised slices in the unit of the volume, float32.

        Parameters
        ----------
        shape : tuple of int
            Slices, rows and columns of the volume.
        level : float, optional
            The object's level, in the unit of the volume, see `object_level`; needed by models
            whose card says so.
        unit : {"1/pixel", "1/m"}
            Unit of the volume.
        pixel_size_um : float, optional
            Size of its pixels [um].

        Returns
        -------
        SlabStream
            Takes slabs.

        Raises
        ------
        InputError
            If the model wants another pixel size, or level or pixel size are needed and missing.
        """
        scale = input_scale(self.model.card, level, unit, pixel_size_um)
        return SlabStream(
            self.model, shape, scale, lambda answer: (answer[:, 0] / scale,), lambda only: only
        )


class Segmenter:
    """Names the class of each voxel of volumes.

    Parameters
    ----------
    model : Model
        A model whose task is ``segment``.

    Raises
    ------
    InputError
        If the model does something else, or has more classes than labels of 8 bits can name.
    """

    def __init__(self, model: Model) -> None:
        _check_task(model, "segment")
        # 255 stands for what nobody knows.
        if len(model.card.classes) > 255:
            raise InputError(
                f"model {model.card.name} has {len(model.card.classes)} classes; at most 255"
            )
        self.model = model

    def slabs(
        self,
        shape: tuple[int, int, int],
        level: float | None = None,
        *,
        unit: VolumeUnit = "1/pixel",
        pixel_size_um: float | None = None,
        uncertainty: bool = True,
        probabilities: bool = False,
    ) -> SlabStream[Segmented]:
        """Begin a volume; answers are `Segmented`.

        Parameters
        ----------
        shape, level, unit, pixel_size_um
            As of `Denoiser.slabs`.
        uncertainty, probabilities : bool
            Whether they are wanted.

        Returns
        -------
        SlabStream
            Takes slabs.

        Raises
        ------
        InputError
            As of `Denoiser.slabs`.
        """
        card = self.model.card
        wanted = _Wanted(card.temperature, uncertainty, probabilities)
        scale = input_scale(card, level, unit, pixel_size_um)
        return SlabStream(self.model, shape, scale, wanted.parts, wanted.build)


class Transformer:
    """Answers volumes with images of any meaning, or a few numbers for each slice.

    Parameters
    ----------
    model : Model
        Any model that takes volumes.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def slabs(
        self,
        shape: tuple[int, int, int],
        level: float | None = None,
        *,
        unit: VolumeUnit = "1/pixel",
        pixel_size_um: float | None = None,
    ) -> SlabStream[NDArray[np.float32]]:
        """Begin a volume; answers are those of the network, slices first.

        Parameters, returns and raises as of `Denoiser.slabs`.
        """
        scale = input_scale(self.model.card, level, unit, pixel_size_um)
        return SlabStream(self.model, shape, scale, lambda answer: (answer,), lambda only: only)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is made of logits."""

    temperature: float
    uncertainty: bool
    probabilities: bool

    def parts(self, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = [logits.argmax(1).to(torch.uint8)]
        if self.uncertainty or self.probabilities:
            log_likely = torch.log_softmax(logits / self.temperature, 1)
            likely = log_likely.exp()
        if self.uncertainty:
            entropy = -(likely * log_likely).sum(1) / math.log(logits.shape[1])
            parts.append(entropy.clamp(0, 1).to(torch.float16))
        if self.probabilities:
            parts.append(likely.to(torch.float16))
        return tuple(parts)

    def build(self, labels: Any, *others: Any) -> Segmented:
        rest = list(others)
        uncertainty = rest.pop(0) if self.uncertainty else None
        probabilities = rest.pop(0).swapaxes(0, 1) if self.probabilities else None
        return Segmented(labels, uncertainty, probabilities)


def _check_task(model: Model, task: str) -> None:
    if model.card.task != task:
        raise InputError(f"model {model.card.name} is one to {model.card.task}, not to {task}")
