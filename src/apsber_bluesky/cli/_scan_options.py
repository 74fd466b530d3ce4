"""Options of the commands that work on scans that are already on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from apsber_bluesky.core import DataFileError, InputError

_MOST_CENTRES = 1000

FileArgument = Annotated[
    Path,
    typer.Argument(
        help="DXchange or NXtomo file, or a run of the suite: its folder, raw.h5 or run.nxs.",
        metavar="FILE",
    ),
]
EngineOption = Annotated[
    str, typer.Option("--engine", help="Reconstruction engine; auto takes the best present.")
]
CentreOption = Annotated[
    str,
    typer.Option(
        "--centre",
        help="Column of the rotation axis in the recorded frames, or auto.",
        metavar="auto|COLUMN",
    ),
]
SlicesOption = Annotated[
    str,
    typer.Option("--slices", help="Detector rows to reconstruct, B not included.", metavar="A:B"),
]
BinOption = Annotated[
    int, typer.Option("--bin", help="Average blocks of N x N pixels.", metavar="N")
]
RoiOption = Annotated[
    str | None,
    typer.Option(
        "--roi", help="Pixels of each slice to keep; all data are used.", metavar="X0:X1,Y0:Y1"
    ),
]
TiltOption = Annotated[
    float,
    typer.Option(
        "--tilt",
        help="Degrees by which the axis leans; positive if its top lies at higher columns.",
        metavar="DEG",
    ),
]
StitchOption = Annotated[
    str | None,
    typer.Option(
        "--stitch",
        help="Off-axis scan of 360 degrees: columns that both sides show (negative if the axis is"
        " near column 0), or auto.",
        metavar="auto|OVERLAP",
    ),
]
FilterOption = Annotated[
    str, typer.Option("--filter", help="Window of the ramp filter: ramp, shepp, hann or parzen.")
]
MethodOption = Annotated[
    str,
    typer.Option(
        "--method",
        help="Filtered back-projection, or for few or noisy projections an iterative method.",
        metavar="fbp|cgls|sirt|tv",
    ),
]
IterationsOption = Annotated[
    int | None, typer.Option("--iterations", help="Iterations at most.", metavar="N")
]
NonNegativeOption = Annotated[
    bool | None,
    typer.Option(
        "--non-negative/--any-sign",
        help="Whether iterations forbid attenuation below 0; by default sirt and tv do.",
        show_default=False,
    ),
]
RegularisationOption = Annotated[
    float | None,
    typer.Option("--regularisation", help="Weight of the total variation.", metavar="WEIGHT"),
]
NoiseOption = Annotated[
    float | None,
    typer.Option(
        "--noise",
        help="Noise of the line integrals (RMS); a slice whose residual has come down to it stops.",
        metavar="RMS",
    ),
]
StripesOption = Annotated[
    str,
    typer.Option(
        "--stripes",
        help="How stripes of sinograms, which become rings, are removed.",
        metavar="none|sorting|wavelet",
    ),
]
ZingersOption = Annotated[
    float | None,
    typer.Option(
        "--zingers",
        help="Replace pixels whose line integral lies so far below their neighbours', e.g. 0.3.",
        metavar="STEP",
    ),
]
PhaseOption = Annotated[
    float | None,
    typer.Option(
        "--phase",
        help="Retrieve the phase (Paganin) of a material with this delta over beta.",
        metavar="DELTA_OVER_BETA",
    ),
]
EnergyOption = Annotated[
    float | None, typer.Option("--energy-keV", help="Photon energy for --phase.", metavar="KEV")
]
DistanceOption = Annotated[
    float | None,
    typer.Option(
        "--distance-mm", help="From sample to detector, for --phase, in mm.", metavar="MM"
    ),
]
FlatsOption = Annotated[
    str,
    typer.Option(
        "--flats",
        help="Average flats from before and after the scan, or interpolate between them.",
        metavar="average|interpolate",
    ),
]
ExtendEdgesOption = Annotated[
    bool,
    typer.Option(
        "--extend-edges", help="The sample is wider than the view: continue rows beyond it."
    ),
]
AnglesOption = Annotated[
    str | None,
    typer.Option(
        "--angles",
        help="Angles instead of the file's: a text file with one a line, or evenly from START to"
        " STOP degrees, STOP not included.",
        metavar="FILE|START:STOP",
    ),
]
LeaveOutOption = Annotated[
    str | None,
    typer.Option("--leave-out", help="Projections not to use, e.g. 17,40-52.", metavar="FRAMES"),
]
PixelSizeOption = Annotated[
    float | None,
    typer.Option("--pixel-size", help="Pixel size at the sample, in um.", metavar="UM"),
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", "-j", help="Processes; by default one for each processor.", min=1),
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", help="Scheduler of a Dask cluster.", metavar="tcp://HOST:PORT"),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="Function that makes a concurrent.futures executor, e.g. for Globus Compute.",
        metavar="MODULE:FUNCTION",
    ),
]
SlabSlicesOption = Annotated[
    int | None,
    typer.Option("--slab-slices", help="Slices of a slab; by default from free memory.", min=1),
]
DenoiseOption = Annotated[
    str | None,
    typer.Option(
        "--denoise",
        help="Denoise the volume with this model (name or card, e.g. denoiser; see apsber models).",
        metavar="MODEL",
    ),
]
SegmentOption = Annotated[
    str | None,
    typer.Option(
        "--segment",
        help="Label each voxel with this model, e.g. soil-segmenter; denoised slices are taken if"
        " there are some.",
        metavar="MODEL",
    ),
]
ModelsOption = Annotated[
    Path | None,
    typer.Option("--models", help="Folder of models of your own.", metavar="FOLDER"),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", help="Where models run: auto, cpu, cuda, cuda:N or xpu.", metavar="DEVICE"
    ),
]


def parse_range(text: str, stop: int, what: str) -> tuple[int, int]:
    """Read ``A:B``, ``A:``, ``:B`` or ``:`` as first and one after last.

    Raises
    ------
    InputError
        If it is something else.
    """
    match = re.fullmatch(r"\s*(\d{0,9})\s*:\s*(\d{0,9})\s*", text)
    if match is None:
        raise InputError(
            f"{what} {text!r} are no range; write the first and the one after last, A:B"
        )
    return int(match[1] or 0), int(match[2] or stop)


def parse_region(text: str, size: int) -> tuple[int, int, int, int]:
    """Read ``X0:X1,Y0:Y1``.

    Raises
    ------
    InputError
        If it is something else.
    """
    parts = text.split(",")
    if len(parts) != 2:
        raise InputError(f"region {text!r} is none; write columns and rows of a slice, X0:X1,Y0:Y1")
    (x0, x1), (y0, y1) = (parse_range(part, size, "pixels of the region") for part in parts)
    return x0, x1, y0, y1


def parse_number(text: str, what: str) -> float:
    """Read a number.

    Raises
    ------
    InputError
        If it is none, or not finite.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"{what} {text!r} is no number; give one, or auto")
    return value


def parse_centres(text: str) -> list[float]:
    """Read ``A:B:STEP`` as centres from A to B, B included.

    Raises
    ------
    InputError
        If it is something else, or they are too many.
    """
    try:
        first, last, step = (float(part) for part in text.split(":"))
        count = np.floor((last - first) / step + 1e-9) + 1
    except (ValueError, ZeroDivisionError):
        count = np.nan
    if not 1 <= count <= _MOST_CENTRES:
        raise InputError(
            f"centres to try are {text!r}; write the first, the last and the step, A:B:STEP, for at"
            f" most {_MOST_CENTRES}"
        )
    return [first + number * step for number in range(int(count))]


def read_angles(text: str, projections: int) -> NDArray[np.float64]:
    """Read angles from a text file, or spread them evenly.

    Raises
    ------
    InputError
        If `text` is neither a file nor ``START:STOP``.
    DataFileError
        If the file holds something else than numbers.
    """
    path = Path(text)
    if path.is_file():
        try:
            return np.asarray(path.read_text(encoding="utf-8").split(), dtype=np.float64)
        except (ValueError, OSError) as error:
            raise DataFileError(f"cannot read angles from {path}: {error}") from error
    try:
        start, stop = (float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"angles {text!r} are neither a file nor degrees START:STOP") from None
    return start + (stop - start) / projections * np.arange(projections, dtype=np.float64)
