"""A run of the suite as a scan file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    KEY_OF_STREAM,
    DataFileError,
    FrameBooks,
    ImageKey,
    RunFolder,
    RunLedger,
    TomographyScan,
)
from apsber_bluesky.storage._nexus_stack import projection_angles_deg
from apsber_bluesky.storage._raw_file import RawStream, read_raw
from apsber_bluesky.storage._scan_file import FrameStack, ScanFile

_CALIBRATED_BY = "jungfrau_energy"


def read_run(folder: RunFolder) -> ScanFile:
    """Read what the files of a run say of its scan.

    Frames that are missing or incomplete are left out. Angles are those that the detector
    reported, else those of the plan as the ledger has it.

    Raises
    ------
    DataFileError
        If ``raw.h5`` is missing, truncated, without projections or being written, or its frames
        need a calibration first.
    """
    streams = {stream.name: stream for stream in read_raw(folder.raw)}
    primary = streams.get("primary")
    if primary is None:
        raise DataFileError(f"{folder.raw} has no projections; the run ended before them")
    books, plan, flat_mode = FrameBooks(), None, ""
    if folder.ledger.is_file():
        with RunLedger(folder.ledger) as ledger:
            books, description = ledger.books, ledger.description
            _refuse_calibrated(folder, [stage.record for stage in ledger.stages])
        # Ledgers of earlier versions call it scan.
        of_scan = description.get("tomography") or description.get("scan")
        if of_scan is not None:
            plan = TomographyScan.model_validate(of_scan)
        flat_mode = str(description.get("flat_mode", ""))
    keys = {name: _keys(stream, books) for name, stream in streams.items()}
    stacks = {
        KEY_OF_STREAM[name]: _with_times(
            KEY_OF_STREAM[name],
            FrameStack(stream.dataset, np.flatnonzero(keys[name] == int(KEY_OF_STREAM[name]))),
            plan,
            flat_mode,
        )
        for name, stream in streams.items()
    }
    nothing = FrameStack("", np.empty(0, np.int64))
    lost = sum(int(np.count_nonzero(key == int(ImageKey.INVALID))) for key in keys.values())
    return ScanFile(
        path=folder.raw.absolute(),
        layout="run",
        rows=primary.shape[1],
        columns=primary.shape[2],
        dtype=primary.dtype.str,
        stacks={kind: stacks.get(kind, nothing) for kind in KEY_OF_STREAM.values()},
        angles_deg=_angles(primary, plan, stacks[ImageKey.PROJECTION].index),
        pixel_size_um=None if plan is None else plan.pixel_size_um,
        decodes_whole_frames=_is_compressed(folder.raw, primary.dataset),
        notes=(f"{lost} frames are missing or incomplete and left out",) if lost else (),
    )


def _with_times(
    kind: ImageKey, stack: FrameStack, plan: TomographyScan | None, flat_mode: str
) -> FrameStack:
    """Say when projections and flats were taken, if the plan did."""
    first_after = {"start": np.inf, "end": 0.0, "both": plan.num_flats // 2 if plan else 0.0}
    if plan is None or flat_mode not in first_after or kind == ImageKey.DARK:
        return stack
    if kind == ImageKey.PROJECTION:
        return replace(stack, taken=stack.index.astype(np.float64) + 0.5)
    after = stack.index >= first_after[flat_mode]
    return replace(stack, taken=np.where(after, float(plan.num_projections), 0.0))


def _keys(stream: RawStream, books: FrameBooks) -> NDArray[np.int32]:
    own = books.streams.get(stream.name)
    return stream.image_key(own.unusable if own is not None else frozenset())


def _angles(
    stream: RawStream, plan: TomographyScan | None, used: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    angles = stream.angle_deg if plan is None else projection_angles_deg(stream, plan)
    angles = angles[used]
    return angles if np.isfinite(angles).all() else None


def _refuse_calibrated(folder: RunFolder, records: list[dict[str, Any] | None]) -> None:
    if any(_CALIBRATED_BY in str((record or {}).get("processes")) for record in records):
        raise DataFileError(
            f"{folder.raw} holds raw frames of a Jungfrau, which need their calibration first; use"
            " the volume of the run"
        )


def _is_compressed(path: Path, dataset: str) -> bool:
    with h5py.File(path, "r") as file:
        return bool(file[dataset].id.get_create_plist().get_nfilters() > 0)
