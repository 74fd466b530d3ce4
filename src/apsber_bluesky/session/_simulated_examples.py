"""Examples for learned models, from scans of simulated samples whose truth is known."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import Cancellation, InputError, RunCancelled
from apsber_bluesky.pipeline import local_processes
from apsber_bluesky.processing.learned import ExampleFolder, object_level
from apsber_bluesky.simulation.training import SOIL_CLASSES, random_scans

HELD_OUT_SEED = 900_000
"""Seeds from here on are never trained on."""

SIMULATED_CLASSES = list(SOIL_CLASSES)
"""Classes of simulated samples, in the order of their labels."""

_ORIGIN = "simulated soil cores"

_Example = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class SimulatedExamples:
    """Which examples to simulate.

    Attributes
    ----------
    count : int
        How many volumes.
    first_seed : int
        Seed of the first; the others follow it.
    slices, size : int
        Slices of a volume, and pixels per side of each.
    """

    count: int
    first_seed: int
    slices: int = 16
    size: int = 256


def check_apart(training: SimulatedExamples, held_out: SimulatedExamples) -> None:
    """Make sure that nothing is trained on what it is judged on.

    Raises
    ------
    InputError
        If seeds of the two overlap, or there are no examples in one of them.
    """
    for which, what in ((training, "train on"), (held_out, "hold out")):
        if which.count < 1 or which.first_seed < 0:
            raise InputError(
                f"cannot {what} {which.count} volumes from seed {which.first_seed}; "
                "give 1 or more, and no negative seed"
            )
    last = training.first_seed + training.count - 1
    if last >= held_out.first_seed:
        raise InputError(
            f"seeds {training.first_seed} to {last} reach those that are held out, from "
            f"{held_out.first_seed} on; begin with a smaller seed"
        )


def simulate_examples(
    path: Path,
    wanted: SimulatedExamples,
    *,
    processes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    cancelled: Cancellation | None = None,
) -> ExampleFolder:
    """Simulate what is not there yet.

    What comes of a seed does not depend on the number of processes, nor on where it was
    interrupted.

    Parameters
    ----------
    path : Path
        Folder of the examples.
    wanted : SimulatedExamples
        Which.
    processes : int
        How many work at once.
    progress : callable
        Told how many volumes there are, of how many.
    cancelled : Cancellation, optional
        Asked after each volume.

    Returns
    -------
    ExampleFolder
        The folder.

    Raises
    ------
    InputError
        If the folder holds other examples, or more than are wanted.
    RunCancelled
        If it was cancelled; the volumes that are whole stay.
    StorageError
        If the folder cannot be written to.
    """
    made_with = asdict(wanted)
    del made_with["count"]
    folder = ExampleFolder.open_or_create(path, _ORIGIN, SIMULATED_CLASSES, made_with)
    done = folder.description.volumes
    if done > wanted.count:
        raise InputError(
            f"{path} holds {done} volumes, more than the {wanted.count} that are wanted; "
            "choose another folder"
        )
    progress(done, wanted.count)
    stop = cancelled or threading.Event()
    for inputs, targets, labels in _examples(wanted, done, processes, stop):
        folder.add(inputs, targets=targets, labels=labels)
        progress(folder.description.volumes, wanted.count)
        if stop.is_set() and folder.description.volumes < wanted.count:
            raise RunCancelled(
                f"interrupted after {folder.description.volumes} of {wanted.count} examples; "
                "the same command goes on with them"
            )
    return folder


def _examples(
    wanted: SimulatedExamples, first: int, processes: int, stop: Cancellation
) -> Iterator[_Example]:
    """Examples from number `first` on, in order; as many are under way as there are processes."""
    if first == wanted.count:
        return
    numbers = iter(range(first, wanted.count))
    if processes == 1:
        yield from (_example(wanted, number) for number in numbers)
        return
    with local_processes(processes, stop) as pool:
        waiting: deque[Future[_Example]] = deque()
        for number in itertools.islice(numbers, processes + 1):
            waiting.append(pool.submit(_example, wanted, number))
        while waiting:
            result = waiting.popleft().result()
            for number in itertools.islice(numbers, 1):
                waiting.append(pool.submit(_example, wanted, number))
            yield result


def _example(wanted: SimulatedExamples, number: int) -> _Example:
    """Several noisy scans and the clean one, in units of the clean one's level."""
    scans = random_scans(number, wanted.first_seed, slices=wanted.slices, size=wanted.size)
    clean, labels = scans[0].clean, scans[0].labels
    level = object_level(clean)
    inputs = np.stack([*(scan.noisy for scan in scans), clean])
    # A Python float leaves single precision as it is.
    inputs /= level
    targets = clean[None] / level
    return inputs, targets.astype(np.float32, copy=False), labels
