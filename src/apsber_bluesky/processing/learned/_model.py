"""A model that is ready to run: its network, where it runs, and how images go through it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from apsber_bluesky.core import InputError, LearnedSettings, ModelCard
from apsber_bluesky.processing.learned._arrays import as_tensor, like
from apsber_bluesky.processing.learned._formats import Network, open_network
from apsber_bluesky.processing.learned._memory import multiple_of, overlap_of, reach_of
from apsber_bluesky.processing.learned._placement import (
    Precision,
    choose_device,
    choose_precision,
    numerics,
)
from apsber_bluesky.processing.learned._tiles import Tiling, cut, mirrored

logger = logging.getLogger(__name__)

# Enough pixels at once to keep a GPU busy.
_BATCH_PIXELS = 1 << 22
_LEAST_TILE = 64

Result = TypeVar("Result")


class Model:
    """A network with its card, on a device; `load_model` makes it.

    Attributes
    ----------
    card : ModelCard
        What it is.
    device : str
        Where it runs.
    precision : {"float32", "bfloat16"}
        What it computes in.
    """

    def __init__(
        self,
        card: ModelCard,
        network: Network,
        settings: LearnedSettings,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.card, self.device, self.precision = card, str(device), precision
        self._network, self._device = network, device
        self._deterministic = settings.deterministic
        self._tile, self._overlap = settings.tile, overlap_of(card, settings)
        self._multiple = multiple_of(card)
        # Of a foreign network only its author knows how far it looks.
        self._reach = settings.tile if card.network is None else reach_of(card.network)
        self._batch_pixels = 0 if settings.deterministic or device.type == "cpu" else _BATCH_PIXELS

    def apply(self, images: Any) -> Any:
        """Raw answers of the network to images of any size.

        Parameters
        ----------
        images : ndarray of float32, shape (n, slices, rows, columns)
            Neighbouring slices, or frames, in the unit of the card; of NumPy, CuPy or torch.

        Returns
        -------
        ndarray of float32, shape (n, outputs, rows, columns)
            Answers, by the library of the images; of a model that classifies ``(n, classes)``.

        Raises
        ------
        InputError
            If the shape is wrong, a value is NaN or infinite, the model answers with another shape
            than its card says, or the device's memory does not even suffice for a small tile.
        """
        tensor = as_tensor(images)
        wanted = self.card.input.slices
        if tensor.ndim != 4 or tensor.shape[1] != wanted or 0 in tensor.shape:
            raise InputError(
                f"model {self.card.name} takes images of shape (n, {wanted}, rows, columns), "
                f"not {tuple(tensor.shape)}"
            )
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InputError(f"the images hold {bad} NaN or infinite values; replace them first")
        answers = self.map(
            len(tensor),
            tensor.shape[2:],
            lambda first, last: tensor[first:last].to(self._device),
            lambda answer: answer.to(tensor.device),
        )
        return like(torch.cat(answers), images)

    def map(
        self,
        count: int,
        shape: Sequence[int],
        take: Callable[[int, int], torch.Tensor],
        finish: Callable[[torch.Tensor], Result],
    ) -> list[Result]:
        """Answer `count` images, some at a time, and make something of each answer.

        When the device's memory runs out, fewer images are taken at a time, then smaller tiles.

        Parameters
        ----------
        count : int
            How many images.
        shape : sequence of int
            Rows and columns of each [pixel].
        take : callable
            Images from the first to before the last, shape ``(n, slices, rows, columns)``, on the
            model's device.
        finish : callable
            What is made of their answer, which is on the model's device, too.

        Returns
        -------
        list
            What was made, in order.

        Raises
        ------
        InputError
            As of `apply`.
        """
        results: list[Result] = []
        done = 0
        while done < count:
            last = min(done + self._at_once(shape), count)
            try:
                with numerics(self._device, self.precision, deterministic=self._deterministic):
                    results.append(finish(self._answer(take(done, last))))
            except torch.OutOfMemoryError as error:
                shortage = str(error).partition(". ")[0]
            else:
                done = last
                continue
            # Outside of the handler, which holds what is to be given back.
            self._shrink(last - done, shape, shortage)
        return results

    def _at_once(self, shape: Sequence[int]) -> int:
        return max(1, self._batch_pixels // (shape[0] * shape[1]))

    def _shrink(self, images: int, shape: Sequence[int], shortage: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        tile = min(self._tile, max(shape))
        if self._deterministic or (images == 1 and tile < 2 * _LEAST_TILE):
            raise InputError(
                f"model {self.card.name} does not fit into the memory of {self.device} with tiles "
                f"of {tile} pixels ({shortage}); give a smaller tile, or free the device's memory"
            )
        if images > 1:
            self._batch_pixels = images // 2 * shape[0] * shape[1]
            smaller = f"batches of {images // 2}"
        else:
            self._tile = tile // 2
            smaller = f"tiles of {self._tile} pixels"
        logger.warning("model %s: %s; going on with %s", self.card.name, shortage, smaller)

    def _answer(self, images: torch.Tensor) -> torch.Tensor:
        """Pad, cut, run and join; whole images for a model that classifies."""
        rows, columns = images.shape[2:]
        images = self._padded(images)
        if self.card.task == "classify":
            answer = self._run(images)
        else:
            answer = self._tiled(images)[:, :, :rows, :columns]
        if not bool(torch.isfinite(answer).all()):
            raise InputError(
                f"model {self.card.name} answers with NaN or infinite values; are its input's "
                f"unit ({self.card.input.unit}) and range right?"
            )
        return answer

    def _padded(self, images: torch.Tensor) -> torch.Tensor:
        for axis in (2, 3):
            length = images.shape[axis]
            padded = -(-length // self._multiple) * self._multiple
            if padded > length:
                places = torch.from_numpy(mirrored(0, padded, length)).to(images.device)
                images = images.index_select(axis, places)
        return images

    def _tiled(self, images: torch.Tensor) -> torch.Tensor:
        tilings = [self._cut(length) for length in images.shape[2:]]
        if all(len(tiling.starts) == 1 for tiling in tilings):
            return self._run(images)
        down, across = tilings
        answer: torch.Tensor | None = None
        for top, row_weight in zip(down.starts, down.weights, strict=True):
            for left, column_weight in zip(across.starts, across.weights, strict=True):
                window = (..., slice(top, top + down.size), slice(left, left + across.size))
                part = self._run(images[window])
                if answer is None:
                    answer = part.new_zeros((*part.shape[:2], *images.shape[2:]))
                weight = torch.from_numpy(np.outer(row_weight, column_weight)).to(part.device)
                answer[window].addcmul_(part, weight)
        assert answer is not None
        return answer

    def _cut(self, length: int) -> Tiling:
        return cut(length, self._tile, self._overlap, self._multiple, self._reach)

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        # A copy, for foreign networks may change what they are given.
        images = images.clone(memory_format=torch.channels_last)
        try:
            answer = self._network(images).float()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise InputError(
                f"model {self.card.name} fails on images of shape {tuple(images.shape)}: "
                f"{str(error).strip().splitlines()[-1]}"
            ) from error
        self._check_shape(images, answer)
        return answer

    def _check_shape(self, images: torch.Tensor, answer: torch.Tensor) -> None:
        outputs = 1 if self.card.task == "denoise" else len(self.card.classes)
        if self.card.task == "transform" and answer.ndim > 1:
            outputs = answer.shape[1]
        expected: tuple[int, ...] = (len(images), outputs)
        if self.card.task != "classify":
            expected += tuple(images.shape[2:])
        if tuple(answer.shape) != expected:
            raise InputError(
                f"model {self.card.name} answers images of shape {tuple(images.shape)} with shape "
                f"{tuple(answer.shape)}; its card promises {expected}"
            )


def load_model(card: ModelCard, folder: Path, settings: LearnedSettings) -> Model:
    """Make a model ready to run.

    Parameters
    ----------
    card : ModelCard
        Its card.
    folder : Path
        Where its file lies.
    settings : LearnedSettings
        How it is run.

    Returns
    -------
    Model
        The model.

    Raises
    ------
    InputError
        If its file is missing, damaged, not what the card says, or not of the card's format.
    ConfigurationError
        If the device or precision cannot be had.
    """
    device = choose_device(settings.device)
    precision = choose_precision(settings, device)
    if card.format == "onnx" and settings.precision == "auto":
        precision = "float32"
    network = open_network(card, folder, device, precision)
    return Model(card, network, settings, device, precision)
