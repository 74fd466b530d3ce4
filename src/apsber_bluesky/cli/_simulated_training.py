"""Train a model on simulated scans, as ``apsber train`` does when no run is given."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from apsber_bluesky.cli._display import RunDisplay
from apsber_bluesky.cli._interrupt import cancellable
from apsber_bluesky.cli._output import Output
from apsber_bluesky.cli._training_display import BarOf, TrainingDisplay, say_card, use_processors
from apsber_bluesky.core import check_model_name

if TYPE_CHECKING:
    from apsber_bluesky.processing.learned import Recipe

_DESCRIPTIONS = {
    "denoiser": "Takes noise, stripes and streaks of few angles from slices of absorption"
    " tomography; trained on simulated soil cores.",
    "segmenter": "Tells pores, soil aggregates, roots and mineral grains in slices of soil cores;"
    " trained on simulated ones.",
}


@dataclass(frozen=True, slots=True)
class SimulatedTraining:
    """What is asked for; see the options of the command."""

    kind: Literal["denoiser", "segmenter"]
    simulated: int
    seed: int
    held_out: int
    steps: int
    batch: int
    patch: int
    checkpoint_steps: int
    folder: Path
    name: str
    device: str
    jobs: int | None

    @property
    def command(self) -> str:
        """What makes the same model anywhere."""
        return (
            f"apsber train {self.kind} --simulated {self.simulated} --seed {self.seed}"
            f" --held-out {self.held_out} --steps {self.steps} --batch {self.batch}"
            f" --patch {self.patch}"
        )


def train_on_simulation(wanted: SimulatedTraining, output: Output) -> None:
    """Simulate examples, train, hold the model against other examples, write it."""
    from apsber_bluesky.processing.learned import ModelAbout, choose_device, make_model
    from apsber_bluesky.session import (
        HELD_OUT_SEED,
        SimulatedExamples,
        check_apart,
        simulate_examples,
    )

    began = time.monotonic()
    which = {
        "examples": SimulatedExamples(wanted.simulated, wanted.seed),
        "held-out": SimulatedExamples(wanted.held_out, HELD_OUT_SEED),
    }
    # Before minutes are spent on examples.
    check_apart(which["examples"], which["held-out"])
    check_model_name(wanted.name)
    recipe, device = _recipe(wanted), str(choose_device(wanted.device))
    processes = wanted.jobs or len(os.sched_getaffinity(0))
    use_processors(processes)
    display = RunDisplay(output.progress_console)
    with cancellable() as cancelled, display.live():
        examples, held_out = (
            simulate_examples(
                wanted.folder / name,
                each,
                processes=processes,
                progress=BarOf(display, f"simulate  {name}"),
                cancelled=cancelled,
            )
            for name, each in which.items()
        )
        card = make_model(
            recipe,
            examples,
            held_out,
            wanted.folder,
            ModelAbout(wanted.name, "1", _DESCRIPTIONS[wanted.kind], {"command": wanted.command}),
            device=device,
            watch=TrainingDisplay(display, output, recipe, examples, device),
            cancelled=cancelled,
        )
    say_card(output, card, wanted.folder, seconds=time.monotonic() - began)


def _recipe(wanted: SimulatedTraining) -> Recipe:
    from apsber_bluesky.processing.learned import denoiser_recipe, segmenter_recipe
    from apsber_bluesky.session import SIMULATED_CLASSES

    how = {
        "steps": wanted.steps,
        "batch": wanted.batch,
        "patch": wanted.patch,
        "checkpoint_steps": wanted.checkpoint_steps,
    }
    if wanted.kind == "denoiser":
        return denoiser_recipe(**how)
    return segmenter_recipe(len(SIMULATED_CLASSES), **how)
