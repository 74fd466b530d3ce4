"""Train a segmenter on labels that somebody drew, ``apsber train segmenter --run --labels``."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apsber_bluesky.cli._display import RunDisplay
from apsber_bluesky.cli._interrupt import cancellable
from apsber_bluesky.cli._output import Output
from apsber_bluesky.cli._own_training import OwnTraining, begin, checksum, identity
from apsber_bluesky.cli._training_display import BarOf, TrainingDisplay, say_card, use_processors
from apsber_bluesky.core import InputError, RunFolder, StorageError, format_ranges

if TYPE_CHECKING:
    from apsber_bluesky.storage import LabelVolume

_STEPS = {True: 500, False: 2000}
_HDF5_DATASET = ":/"


@dataclass(frozen=True, slots=True)
class LabelTraining(OwnTraining):
    """What is asked for; see the options of the command."""

    labels: list[str]
    classes: str | None
    unlabelled: int


def train_on_labels(wanted: LabelTraining, output: Output) -> None:
    """Cut out what is labelled, train a segmenter on it, measure it on the rest, write it."""
    from apsber_bluesky.pipeline import make_labelled_examples, read_drawn_labels
    from apsber_bluesky.processing.learned import (
        ModelAbout,
        choose_device,
        make_model,
        segmenter_recipe,
    )
    from apsber_bluesky.storage import open_volume

    began = time.monotonic()
    paths = _volumes(wanted.place)
    model, device = wanted.start_model(), str(choose_device(wanted.device))
    volumes = {path.name: open_volume(path) for path in paths}
    files = [_open(text) for text in wanted.labels]
    shape = next(iter(volumes.values())).shape
    with output.progress_console.status("reading labels"):
        labels, survey = read_drawn_labels(
            files, shape, classes=_names(wanted.classes), unlabelled=wanted.unlabelled
        )
    for name, count in zip(labels.classes, survey.counts.sum(axis=0), strict=True):
        output.say(f"labels    {name}: {int(count)} voxels")
    recipe = segmenter_recipe(
        len(labels.classes),
        steps=wanted.steps or _STEPS[model is not None],
        batch=wanted.batch,
        patch=wanted.patch,
        checkpoint_steps=wanted.checkpoint_steps,
    )
    recipe, network = begin(recipe, model)
    use_processors(wanted.jobs or len(os.sched_getaffinity(0)))
    display = RunDisplay(output.progress_console)
    with cancellable() as cancelled, display.live():
        examples = make_labelled_examples(
            volumes,
            labels,
            survey,
            wanted.folder,
            slices=recipe.shape.slices,
            patch=wanted.patch,
            origin=f"labels drawn on {', '.join(volumes)}",
            made_with=_made_with(wanted, files, labels.classes),
            progress=BarOf(display, "cut       labelled slices"),
        )
        card = make_model(
            recipe,
            examples.training,
            examples.held_out,
            wanted.folder,
            ModelAbout(
                wanted.name or "segmenter",
                "1",
                f"Tells {', '.join(labels.classes)} apart; trained on drawn labels.",
                {"held_out_slices": format_ranges(examples.held_out_slices, 20)},
            ),
            start=network,
            device=device,
            watch=TrainingDisplay(display, output, recipe, examples.training, device),
            cancelled=cancelled,
        )
    say_card(output, card, wanted.folder, seconds=time.monotonic() - began)


def _volumes(place: Path) -> list[Path]:
    """The volume of a run, and the denoised one if there is; or a volume by itself."""
    run = RunFolder(place)
    if place.suffix == ".zarr":
        return [place]
    if not place.is_dir():
        raise InputError(f"{place} is no volume; give a run, or the .zarr that labels are drawn on")
    if not run.volume.is_dir():
        raise StorageError(f"run {run.uid} has no volume {run.volume}; reconstruct it first")
    return [path for path in (run.volume, run.denoised) if path.is_dir()]


def _open(text: str) -> LabelVolume:
    from apsber_bluesky.storage import open_labels

    path, found, dataset = text.partition(_HDF5_DATASET)
    return open_labels(Path(path), dataset if found else None)


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",")]


def _made_with(
    wanted: LabelTraining, files: list[LabelVolume], classes: list[str]
) -> dict[str, Any]:
    return {
        **identity(wanted.place),
        "labels": [file.path.name for file in files],
        "labels_checksums": [checksum(file.path) for file in files],
        "classes": classes,
        "unlabelled": wanted.unlabelled,
        "patch": wanted.patch,
        "start": wanted.start,
    }
