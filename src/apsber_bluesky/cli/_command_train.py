"""``apsber train``: learned models from examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apsber_bluesky.cli._label_training import LabelTraining, train_on_labels
from apsber_bluesky.cli._output import DataRootOption, JsonOption, Output, ProfileOption
from apsber_bluesky.cli._own_training import NO_START
from apsber_bluesky.cli._own_training_options import (
    BlocksOption,
    ClassesOption,
    LabelsOption,
    OwnRunOption,
    SplitsOption,
    StartOption,
    UnlabelledOption,
)
from apsber_bluesky.cli._scan_options import (
    BinOption,
    CentreOption,
    FilterOption,
    SlicesOption,
    StripesOption,
    ZingersOption,
)
from apsber_bluesky.cli._scan_training import ScanTraining, train_on_scan
from apsber_bluesky.cli._simulated_training import SimulatedTraining, train_on_simulation
from apsber_bluesky.core import InputError

train = typer.Typer(help="Train learned models.", no_args_is_help=True)

SimulatedOption = Annotated[
    int, typer.Option(help="Simulated samples to learn from.", metavar="N", min=1)
]
SeedOption = Annotated[int, typer.Option(help="Seed of the first simulated sample.", min=0)]
HeldOutOption = Annotated[
    int, typer.Option(help="Other simulated samples, that the model is held against.", min=2)
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        help="Training steps; by default thousands on simulated samples and, beginning with a"
        " model, 500 on a run.",
        metavar="N",
        min=1,
    ),
]
BatchOption = Annotated[int, typer.Option(help="Patches of a step.", min=1)]
PatchOption = Annotated[int, typer.Option(help="Rows and columns of a patch [pixel].", min=32)]
CheckpointOption = Annotated[
    int, typer.Option("--checkpoint-steps", help="Steps between checkpoints.", min=1)
]
FolderOption = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        help="Folder of the model, its examples and its checkpoint; what is there is continued.",
        metavar="FOLDER",
    ),
]
NameOption = Annotated[str | None, typer.Option(help="Name of the model and its files.")]
DeviceOption = Annotated[
    str, typer.Option(help="Where to train: cpu, cuda, cuda:N, xpu, or auto for a GPU if any.")
]
JobsOption = Annotated[
    int | None, typer.Option(help="Processors to use; all by default.", metavar="N", min=1)
]


@train.command()
def denoiser(
    run: OwnRunOption = None,
    start: StartOption = "denoiser",
    splits: SplitsOption = 4,
    blocks: BlocksOption = 8,
    centre: CentreOption = "auto",
    slices: SlicesOption = ":",
    bin_: BinOption = 1,
    filter_: FilterOption = "ramp",
    stripes: StripesOption = "none",
    zingers: ZingersOption = None,
    simulated: SimulatedOption = 300,
    seed: SeedOption = 1000,
    held_out: HeldOutOption = 24,
    steps: StepsOption = None,
    batch: BatchOption = 8,
    patch: PatchOption = 128,
    checkpoint_steps: CheckpointOption = 500,
    folder: FolderOption = Path("models"),
    name: NameOption = None,
    device: DeviceOption = "cpu",
    jobs: JobsOption = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a denoiser, on simulated scans or (--run) on the scan that it is for."""
    output = Output(as_json=as_json)
    if run is not None:
        own = ScanTraining(
            run, steps, batch, patch, checkpoint_steps, folder, name, device, jobs, start, profile,
            data_root, splits=splits, blocks=blocks, centre=centre, slices=slices, bin=bin_,
            filter=filter_, stripes=stripes, zingers=zingers,
        )  # fmt: skip
        train_on_scan(own, output)
        return
    wanted = SimulatedTraining(
        "denoiser", simulated=simulated, seed=seed, held_out=held_out, steps=steps or 14_000,
        batch=batch, patch=patch, checkpoint_steps=checkpoint_steps, folder=folder,
        name=name or "denoiser", device=device, jobs=jobs,
    )  # fmt: skip
    train_on_simulation(wanted, output)


@train.command()
def segmenter(
    run: OwnRunOption = None,
    labels: LabelsOption = None,
    classes: ClassesOption = None,
    unlabelled: UnlabelledOption = 255,
    start: StartOption = NO_START,
    simulated: SimulatedOption = 300,
    seed: SeedOption = 1000,
    held_out: HeldOutOption = 24,
    steps: StepsOption = None,
    batch: BatchOption = 8,
    patch: PatchOption = 128,
    checkpoint_steps: CheckpointOption = 500,
    folder: FolderOption = Path("models"),
    name: NameOption = None,
    device: DeviceOption = "cpu",
    jobs: JobsOption = None,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a segmenter, on simulated soil cores or (--run, --labels) on labels that you drew."""
    output = Output(as_json=as_json)
    if (run is None) != (labels is None):
        raise InputError("--run and --labels belong together: give the run and what is drawn on it")
    if run is not None and labels is not None:
        own = LabelTraining(
            run, steps, batch, patch, checkpoint_steps, folder, name, device, jobs, start, profile,
            data_root, labels=labels, classes=classes, unlabelled=unlabelled,
        )  # fmt: skip
        train_on_labels(own, output)
        return
    wanted = SimulatedTraining(
        "segmenter", simulated=simulated, seed=seed, held_out=held_out, steps=steps or 10_000,
        batch=batch, patch=patch, checkpoint_steps=checkpoint_steps, folder=folder,
        name=name or "soil-segmenter", device=device, jobs=jobs,
    )  # fmt: skip
    train_on_simulation(wanted, output)
