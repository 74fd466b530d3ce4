"""Train a denoiser on one scan (Noise2Inverse), as ``apsber train denoiser --run`` does."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.cli._display import RunDisplay
from apsber_bluesky.cli._interrupt import cancellable
from apsber_bluesky.cli._output import Output
from apsber_bluesky.cli._own_training import OwnTraining, begin, identity
from apsber_bluesky.cli._scan_job import PreparedJob, ScanOptions, prepare
from apsber_bluesky.cli._training_display import BarOf, TrainingDisplay, say_card, use_processors
from apsber_bluesky.core import DenoiseSettings, ModelCard

if TYPE_CHECKING:
    from apsber_bluesky.pipeline import SplitExamples

_STEPS = {True: 500, False: 3000}
_LEARNING_RATE = {True: 3e-4, False: 1e-3}
# Below this, parts differ by more than noise.
_LEAST_INDEPENDENCE = 0.95


@dataclass(frozen=True, slots=True)
class ScanTraining(OwnTraining):
    """What is asked for; see the options of the command."""

    splits: int
    blocks: int
    centre: str
    slices: str
    bin: int
    filter: str
    stripes: str
    zingers: float | None

    @property
    def scan_options(self) -> ScanOptions:
        """How the scan is reconstructed."""
        return ScanOptions(file=self.place, **self.reconstruction)

    @property
    def reconstruction(self) -> dict[str, Any]:
        """The options of that, by name."""
        names = ("centre", "slices", "bin", "filter", "stripes", "zingers")
        return {name: getattr(self, name) for name in names}


def train_on_scan(wanted: ScanTraining, output: Output) -> None:
    """Split a scan, train a denoiser on its parts, measure it on others, write it."""
    from apsber_bluesky.pipeline import SplitPlan, make_split_examples
    from apsber_bluesky.processing.learned import (
        ModelAbout,
        choose_device,
        make_model,
        self_supervised_recipe,
    )

    began = time.monotonic()
    options = wanted.scan_options
    model, device = wanted.start_model(), str(choose_device(wanted.device))
    known = model is not None
    recipe = self_supervised_recipe(
        steps=wanted.steps or _STEPS[known],
        batch=wanted.batch,
        patch=wanted.patch,
        learning_rate=_LEARNING_RATE[known],
        checkpoint_steps=wanted.checkpoint_steps,
    )
    recipe, network = begin(recipe, model)
    processes = wanted.jobs or len(os.sched_getaffinity(0))
    use_processors(processes)
    display = RunDisplay(output.progress_console)
    with cancellable() as cancelled:
        with output.progress_console.status("reading darks and flats, finding the rotation centre"):
            prepared = prepare(options, cancelled)
        for note in prepared.notes:
            output.say(f"note      {note}")
        with display.live():
            examples = make_split_examples(
                prepared.job,
                prepared.references,
                wanted.folder,
                SplitPlan(
                    wanted.splits, wanted.blocks, recipe.shape.slices, wanted.patch, processes
                ),
                origin=f"parts of the scan {prepared.scan.path.name}",
                made_with=_made_with(wanted, prepared, model),
                denoise=None if model is None else _DenoisesWith(*model, device),
                progress=BarOf(display, "split     blocks of slices"),
                cancelled=cancelled,
            )
            _warn(output, examples, prepared.job.projections // wanted.splits, known=known)
            name = wanted.name or f"denoiser-{_stem(wanted.place)}"
            card = make_model(
                recipe,
                examples.training,
                examples.held_out,
                wanted.folder,
                ModelAbout(
                    name,
                    "1",
                    f"Takes noise from slices of the scan {_stem(wanted.place)}, on which it was"
                    " trained (Noise2Inverse).",
                    _about(examples),
                ),
                start=network,
                device=device,
                watch=TrainingDisplay(display, output, recipe, examples.training, device),
                cancelled=cancelled,
            )
    say_card(output, card, wanted.folder, seconds=time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class _DenoisesWith:
    """Denoises slices with a model."""

    card: ModelCard
    folder: Path
    device: str

    def __call__(self, slices: NDArray[np.float32], level: float) -> NDArray[np.float32]:
        from apsber_bluesky.processing.learned import Denoiser, load_model

        settings = DenoiseSettings(model=self.card.name, device=self.device)
        denoiser = Denoiser(load_model(self.card, self.folder, settings))
        depth, rows, columns = slices.shape
        stream = denoiser.slabs((depth, rows, columns), level)
        answers = [*stream.push(slices), *stream.finish()]
        return np.concatenate([answer for _, answer in answers])


def _made_with(
    wanted: ScanTraining, prepared: PreparedJob, model: tuple[ModelCard, Path] | None
) -> dict[str, Any]:
    start = {} if model is None else {"start": model[0].name, "start_sha256": model[0].sha256}
    return {
        **identity(wanted.place),
        "splits": wanted.splits,
        "blocks": wanted.blocks,
        "patch": wanted.patch,
        "centre_px": round(prepared.job.geometry.centre_px, 4),
        **{name: value for name, value in wanted.reconstruction.items() if name != "centre"},
        **start,
    }


def _about(examples: SplitExamples) -> dict[str, Any]:
    found = examples.independence
    return {} if found is None else {"independence": round(found, 4)}


def _warn(output: Output, examples: SplitExamples, projections: int, *, known: bool) -> None:
    found = examples.independence
    if found is None or found >= _LEAST_INDEPENDENCE:
        return
    advice = "" if known else ", or begin with a model (--start denoiser)"
    output.say(
        f"warning   parts of {projections} projections differ by streaks, not by noise alone"
        f" (independence {found:.2f}, 1 is best); the network may learn them: use fewer"
        f" --splits{advice}"
    )


def _stem(place: Path) -> str:
    return place.name[:8] if place.is_dir() else place.stem
