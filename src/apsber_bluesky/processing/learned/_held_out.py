"""What a network does with examples that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.processing.learned._examples import ExampleFolder
from apsber_bluesky.processing.learned._network import SliceNetwork
from apsber_bluesky.processing.learned._training import Loss


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured, for a model's card.

    Attributes
    ----------
    values : dict of str to float
        Figures by name.
    temperature : float
        Of a segmenter.
    """

    values: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class HeldOutSlice:
    """A slice with its neighbours, and where it is from.

    Attributes
    ----------
    images : ndarray of float32, shape (slices, rows, columns)
        What goes in; rows and columns are multiples of what the network takes.
    volume, variant, z : int
        Where it is from.
    """

    images: NDArray[np.float32]
    volume: int
    variant: int
    z: int

    def of(self, volume: NDArray[Any]) -> NDArray[Any]:
        """The same slice of targets or labels."""
        if volume.ndim == 4:
            volume = volume[min(self.variant, len(volume) - 1)]
        rows, columns = self.images.shape[1:]
        return np.array(volume[self.z, :rows, :columns])


def held_out_slices(
    network: SliceNetwork, folder: ExampleFolder, of_each: int
) -> Iterator[HeldOutSlice]:
    """So many slices of each volume, far apart, its variants in turn.

    Raises
    ------
    InputError
        If a volume is smaller than the network takes.
    """
    half, turn = network.slices // 2, 0
    for number in range(folder.description.volumes):
        inputs = folder.inputs(number)
        variants, depth, rows, columns = inputs.shape
        rows, columns = (length - length % network.multiple for length in (rows, columns))
        if depth < network.slices or not rows or not columns:
            raise InputError(
                f"volume {number} of {folder.path} has {inputs.shape[1:]} voxels; the network "
                f"takes {network.slices} slices and multiples of {network.multiple} pixels"
            )
        places = np.linspace(half, depth - half - 1, min(of_each, depth - 2 * half)).round()
        for z in map(int, places):
            variant, turn = turn % variants, turn + 1
            window = inputs[variant, z - half : z + half + 1, :rows, :columns]
            yield HeldOutSlice(np.asarray(window, np.float32), number, variant, z)


def answer_slice(network: SliceNetwork, images: NDArray[np.float32]) -> torch.Tensor:
    """What the network makes of a slice, shape ``(1, outputs, rows, columns)``."""
    device = next(network.parameters()).device
    with torch.no_grad():
        answer: torch.Tensor = network(torch.from_numpy(images)[None].to(device))
    return answer


def held_out_loss(
    network: SliceNetwork, folder: ExampleFolder, loss: Loss, *, labels: bool
) -> float:
    """Mean loss over a slice of each volume."""
    found = []
    for each in held_out_slices(network, folder, 1):
        truth = folder.labels(each.volume) if labels else folder.targets(each.volume)
        target = each.of(truth) if labels else each.of(truth).astype(np.float32)
        answer = answer_slice(network, each.images)
        inputs = torch.from_numpy(each.images)[None].to(answer.device)
        found.append(loss(inputs, answer, torch.from_numpy(target)[None].to(answer.device)).item())
    return float(np.mean(found))


def denoising_figures(network: SliceNetwork, folder: ExampleFolder) -> Figures:
    """RMS errors against targets that have no noise, before and after, in units of the level.

    The gain is the mean over slices; those that had no noise to begin with tell of none.
    """
    before, after, gains = [], [], []
    for each in held_out_slices(network, folder, 3):
        target = each.of(folder.targets(each.volume)).astype(np.float32)
        answer = answer_slice(network, each.images)[0, 0].cpu().numpy()
        before.append(float(np.mean((each.images[network.slices // 2] - target) ** 2)))
        after.append(float(np.mean((answer - target) ** 2)))
        if before[-1] and after[-1]:
            gains.append(10 * np.log10(before[-1] / after[-1]))
    return Figures(
        {
            "held_out_rms_before": float(np.sqrt(np.mean(before))),
            "held_out_rms_after": float(np.sqrt(np.mean(after))),
            "held_out_gain_db": float(np.mean(gains)) if gains else 0.0,
        }
    )
