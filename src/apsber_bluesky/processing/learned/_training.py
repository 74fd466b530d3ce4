"""Train a network, step by step, from where it was left."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from apsber_bluesky.core import Cancellation, InputError, atomic_file, explain_disk_errors
from apsber_bluesky.processing.learned._examples import UNKNOWN, ExampleFolder
from apsber_bluesky.processing.learned._network import SliceNetwork
from apsber_bluesky.processing.learned._patches import PatchDraw, draw_patch

_AVERAGE_OVER = 500.0  # steps
_WARM_UP = 200  # steps, or a tenth of a short training
_STATE = {"settings", "step", "network", "average", "optimiser"}

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(inputs, answer, target) -> one number."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a network is trained.

    Attributes
    ----------
    steps, batch, patch : int
        Steps, patches per step, and rows and columns of a patch.
    learning_rate : float
        Highest rate of AdamW; it rises at first and falls as a cosine.
    scale_spread : float
        Spread of the factors on the values.
    seed : int
        Seed of the first weights and of the patches.
    checkpoint_steps : int
        Steps between checkpoints.
    bfloat16 : bool
        Whether layers are computed with half the digits, which takes half the time where the
        processor can; weights and loss keep theirs.
    """

    steps: int
    batch: int = 8
    patch: int = 128
    learning_rate: float = 2e-3
    scale_spread: float = 0.0
    seed: int = 1
    checkpoint_steps: int = 500
    bfloat16: bool = False


def denoising_loss(
    inputs: torch.Tensor, answer: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Squared error, in which noisy patches count as much as clean ones."""
    middle = inputs[:, inputs.shape[1] // 2]
    noise = ((middle - target) ** 2).mean((1, 2), keepdim=True).sqrt().clamp(min=0.02)
    return ((answer[:, 0] - target) ** 2 / noise).mean()


def segmentation_loss(
    inputs: torch.Tensor, answer: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Cross entropy plus one minus the soft Dice coefficient of the classes that are there.

    F. Milletari, N. Navab and S.-A. Ahmadi, 3DV 2016, arXiv:1606.04797, for the latter.
    """
    del inputs
    labels = target.long()
    if not (labels != UNKNOWN).any():
        # Where labels are few, patches by chance may all lie beside them.
        return answer.sum() * 0
    entropy = functional.cross_entropy(answer, labels, ignore_index=UNKNOWN)
    known = (labels != UNKNOWN).unsqueeze(1)
    one_hot = functional.one_hot(labels.clamp(max=answer.shape[1] - 1), answer.shape[1])
    truth = one_hot.movedim(-1, 1) * known
    likely = torch.softmax(answer, 1) * known
    common, total = (truth * likely).sum((0, 2, 3)), (truth + likely).sum((0, 2, 3))
    there = truth.sum((0, 2, 3)) > 0
    dice = ((2 * common + 1) / (total + 1))[there]
    return entropy + (1 - dice.mean())


def train(
    network: SliceNetwork,
    folder: ExampleFolder,
    settings: TrainingSettings,
    loss: Loss,
    *,
    checkpoint: Path,
    labels: bool,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda step: None,
    report: Callable[[int, float], None] = lambda step, loss: None,
    validate: Callable[[int, SliceNetwork], None] = lambda step, average: None,
    cancelled: Cancellation | None = None,
) -> SliceNetwork:
    """Train a network; a checkpoint that is there is continued.

    On one device with one number of threads, a training that was killed and continued ends with
    the same bits as one that was not.

    Parameters
    ----------
    network : SliceNetwork
        The network; its weights are changed.
    folder : ExampleFolder
        Examples.
    settings : TrainingSettings
        How.
    loss : callable
        What is made small.
    checkpoint : Path
        Where the state is kept, so that training goes on after an interruption.
    labels : bool
        Whether targets are labels.
    device : str
        Where it is done, as torch names it.
    progress : callable
        Told how many steps are done, after each one and before the first.
    report : callable
        Told the step and the mean loss since the last report, at each checkpoint.
    validate : callable
        Shown the step and the average of the network, at each checkpoint; it must leave it as
        it is.
    cancelled : Cancellation, optional
        Asked after each step; the state is saved before it returns.

    Returns
    -------
    SliceNetwork
        The network with the running average of its weights, which errs less than the last ones
        (B. T. Polyak and A. B. Juditsky, SIAM J. Control Optim. 30 (1992) 838).

    Raises
    ------
    InputError
        If the checkpoint is of another training, or the loss is no longer finite.
    """
    draw = PatchDraw(network.slices, settings.patch, labels, settings.scale_spread)
    network.to(device)
    average: SliceNetwork = copy.deepcopy(network)
    average.eval()
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    first = _restore(checkpoint, settings, network, average, optimiser)
    network.to(memory_format=torch.channels_last).train()
    total, count = 0.0, 0
    progress(first)
    for step in range(first, settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings.steps)
        inputs, target = _draw_batch(folder, settings, draw, step, device)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=settings.bfloat16):
            answer = network(inputs)
        found = loss(inputs, answer.float(), target)
        value = found.item()
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} at step {step}; train with a lower learning rate "
                f"than {settings.learning_rate}"
            )
        found.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        _update(average, network, step)
        total, count = total + value, count + 1
        progress(step + 1)
        stop = cancelled is not None and cancelled.is_set()
        if (step + 1) % settings.checkpoint_steps == 0 or step + 1 == settings.steps or stop:
            _save(checkpoint, settings, step + 1, network, average, optimiser)
            report(step + 1, total / count)
            validate(step + 1, average)
            total, count = 0.0, 0
        if stop:
            break
    return average


def _draw_batch(
    folder: ExampleFolder, settings: TrainingSettings, draw: PatchDraw, step: int, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    # Patches follow from the step, so that a training that is continued sees the same ones.
    random = np.random.default_rng((settings.seed, step))
    patches = [draw_patch(folder, draw, random) for _ in range(settings.batch)]
    inputs = torch.from_numpy(np.stack([patch[0] for patch in patches])).to(device)
    target = torch.from_numpy(np.stack([patch[1] for patch in patches])).to(device)
    return inputs.contiguous(memory_format=torch.channels_last), target


def _schedule(step: int, steps: int) -> float:
    warm_up = max(1, min(_WARM_UP, steps // 10))
    return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-3)


def _update(average: SliceNetwork, network: SliceNetwork, step: int) -> None:
    keep = min(1 - 1 / _AVERAGE_OVER, step / (step + 10))
    with torch.no_grad():
        for mean, value in zip(average.parameters(), network.parameters(), strict=True):
            mean.lerp_(value, 1 - keep)


def _save(
    path: Path,
    settings: TrainingSettings,
    step: int,
    network: SliceNetwork,
    average: SliceNetwork,
    optimiser: torch.optim.Optimizer,
) -> None:
    state = {
        "settings": asdict(settings),
        "step": step,
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with explain_disk_errors(path, "keep the state of the training"), atomic_file(path) as partial:
        torch.save(state, partial)


def _restore(
    path: Path,
    settings: TrainingSettings,
    network: SliceNetwork,
    average: SliceNetwork,
    optimiser: torch.optim.Optimizer,
) -> int:
    if not path.exists():
        return 0
    state = _load(path)
    if state["settings"] != asdict(settings):
        raise InputError(
            f"{path} is a checkpoint of another training, with {state['settings']}; "
            "remove it, or train with those settings"
        )
    network.load_state_dict(state["network"])
    average.load_state_dict(state["average"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _load(path: Path) -> dict[str, Any]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"{path} is no checkpoint of a training: {error}; remove it") from error
    if not isinstance(state, dict) or not state.keys() >= _STATE:
        raise InputError(f"{path} is no checkpoint of a training; remove it")
    return dict(state)
