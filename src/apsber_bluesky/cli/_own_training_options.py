"""Options of ``apsber train`` for data of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

OwnRunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        help="Train on this run or file instead of simulated samples; 'latest' is the last run.",
        metavar="RUN|FILE",
    ),
]
StartOption = Annotated[
    str, typer.Option(help="Model to begin with, by name or card; none begins with chance.")
]
SplitsOption = Annotated[
    int, typer.Option(help="Parts that the scan's projections are split into.", metavar="N", min=2)
]
BlocksOption = Annotated[
    int, typer.Option(help="Blocks of 16 slices to learn from.", metavar="N", min=1)
]
LabelsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Labels drawn on the run's volume: HDF5 (FILE.h5:/DATASET), TIFF, folder of TIFF"
        " files or OME-Zarr. Given several times, each file is of one class.",
        metavar="FILE",
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        help="Names of the classes, by their number in the labels or in the order of the files.",
        metavar="NAME,NAME,...",
    ),
]
UnlabelledOption = Annotated[
    int,
    typer.Option(
        help="Number of voxels that are not labelled, beside 255; napari's is 0.", metavar="N"
    ),
]
