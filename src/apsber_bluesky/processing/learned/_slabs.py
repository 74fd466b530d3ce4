"""A volume through a model, slab by slab, as if it had come in one piece."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned._arrays import as_tensor, like
from apsber_bluesky.processing.learned._checks import check_slab
from apsber_bluesky.processing.learned._model import Model
from apsber_bluesky.processing.learned._tiles import mirrored

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class Volume(Protocol):
    """Anything that has a shape and gives slices: an array, on disk or in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Slices, rows, columns."""

    def __getitem__(self, key: slice, /) -> Any:
        """Some slices."""


class SlabStream(Generic[Answer]):
    """Slabs go in, in order; answers come out as soon as their neighbours have come.

    The answer to a slice is the same however the volume is cut into slabs. Beyond the ends of the
    volume stand its slices mirrored.

    Parameters
    ----------
    model : Model
        The model.
    shape : tuple of int
        Slices, rows and columns of the volume.
    scale : float
        Voxels are multiplied by it before the model sees them.
    finish : callable
        Makes, on the model's device, the parts of an answer from what the network says to some
        slices; each part has these slices along its first axis.
    build : callable
        Makes an answer from its parts, as arrays of the same kind as the slab.
    """

    def __init__(
        self,
        model: Model,
        shape: tuple[int, int, int],
        scale: float,
        finish: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
        build: Callable[..., Answer],
    ) -> None:
        if min(shape) < 1:
            raise InputError(f"a volume of shape {shape} has no slices; give (n, rows, columns)")
        self._model, self._shape, self._scale = model, shape, scale
        self._finish, self._build = finish, build
        self._slices = model.card.input.slices
        self._before = self._slices // 2
        self._after = self._slices - 1 - self._before
        self._held: dict[int, torch.Tensor] = {}
        self._come, self._done, self._warned = 0, 0, False
        self._kind: Any = None

    def push(self, slab: Any) -> list[tuple[int, Answer]]:
        """Hand over the next slab.

        Parameters
        ----------
        slab : ndarray, shape (n, rows, columns)
            The next slices, of NumPy, CuPy or torch; it may be reused afterwards.

        Returns
        -------
        list of (int, answer)
            First slice and answer of what can be answered now.

        Raises
        ------
        InputError
            If the slab does not fit the volume, a voxel is NaN or infinite, or more than 1 % of
            them are far beyond what the model was trained on.
        """
        tensor = as_tensor(slab)
        first, end = self._come, self._come + len(tensor)
        if tensor.ndim != 3 or tensor.shape[1:] != self._shape[1:] or end > self._shape[0]:
            raise InputError(
                f"a slab of shape {tuple(tensor.shape)} after {first} slices does not fit a volume "
                f"of shape {self._shape}"
            )
        if len(tensor) == 0:
            return []
        self._check(tensor, first)
        self._kind, self._come = slab, end
        self._held.update(zip(range(first, end), tensor, strict=True))
        answers = self._answer_until(end - self._after)
        self._forget(first)
        return answers

    def finish(self) -> list[tuple[int, Answer]]:
        """The last answers, once all slabs have come.

        Raises
        ------
        InputError
            If slices are missing.
        """
        if self._come < self._shape[0]:
            raise InputError(f"{self._come} of {self._shape[0]} slices of the volume have come")
        answers = self._answer_until(self._shape[0])
        self._held.clear()
        return answers

    def run(self, volume: Volume, slab_slices: int = 16) -> Iterator[tuple[int, Answer]]:
        """Work on a whole volume, which may be larger than memory.

        Parameters
        ----------
        volume : array-like
            Anything that has a shape and gives slices.
        slab_slices : int
            Slices that are read at once.

        Yields
        ------
        int
            Number of the first slice of the answer.
        answer
            To some slices.
        """
        for start in range(0, self._shape[0], slab_slices):
            yield from self.push(volume[start : start + slab_slices])
        yield from self.finish()

    def _check(self, slab: torch.Tensor, first: int) -> None:
        card = self._model.card
        if not check_slab(slab, first, card, self._scale) and not self._warned:
            self._warned = True
            logger.warning(
                "more than 1 %% of the voxels from slice %d on are beyond what model %s was "
                "trained on, %g to %g %s; look at the result with care",
                first, card.name, card.input.minimum, card.input.maximum, card.input.unit,
            )  # fmt: skip

    def _answer_until(self, end: int) -> list[tuple[int, Answer]]:
        first, count = self._done, end - self._done
        if count <= 0:
            return []
        parts = self._model.map(
            count,
            self._shape[1:],
            lambda a, b: self._windows(first + a, first + b),
            lambda answer: tuple(part.to(self._home) for part in self._finish(answer)),
        )
        self._done = end
        joined = (torch.cat(each) for each in zip(*parts, strict=True))
        return [(first, self._build(*(like(part, self._kind) for part in joined)))]

    @property
    def _home(self) -> torch.device:
        return next(iter(self._held.values())).device

    def _windows(self, first: int, end: int) -> torch.Tensor:
        """Slices with their neighbours, ``(n, slices, rows, columns)``; a view of few slices."""
        places = mirrored(first - self._before, end + self._after, self._shape[0])
        near = torch.stack([self._held[int(place)] for place in places])
        near = near.to(self._model.device).mul_(self._scale)
        return near.unfold(0, self._slices, 1).movedim(-1, 1)

    def _forget(self, first_of_slab: int) -> None:
        """Keep what later answers need, and that as a copy: the slab is its owner's."""
        kept = range(max(self._done - self._before, 0), self._come)
        self._held = {
            number: self._held[number].clone() if number >= first_of_slab else self._held[number]
            for number in kept
        }
