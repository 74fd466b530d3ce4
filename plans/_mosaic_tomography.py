"""Tomography of a sample that is larger than the field of view."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Generator
from typing import Any

import bluesky.plan_stubs as bps
from bluesky.utils import Msg

from apsber_bluesky.core import (
    InputError,
    ScanPrediction,
    asking_for_predictions,
    submit_prediction,
)
from apsber_bluesky.devices import Camera, FastShutter, RotationStage, SampleStage
from apsber_bluesky.plans._checks import check_count, check_number
from apsber_bluesky.plans._fly_tomography import fly_tomography
from apsber_bluesky.plans._preflight import motion_s, together

_UM_PER_MM = 1000.0


def mosaic_tomography(
    camera: Camera,
    rotation: RotationStage,
    shutter: FastShutter,
    sample_stage: SampleStage,
    *,
    tiles_x: int = 2,
    tiles_y: int = 1,
    overlap: float = 0.2,
    centre_x_mm: float = 0.0,
    centre_y_mm: float = 0.0,
    num_projections: int = 180,
    exposure_s: float = 0.02,
    rotation_start_deg: float = 0.0,
    rotation_stop_deg: float = 180.0,
    num_darks: int = 10,
    num_flats: int = 10,
    sample_out_mm: float = 8.0,
    sample: str = "",
    md: dict[str, Any] | None = None,
) -> Generator[Msg, Any, tuple[str, ...]]:
    """Take a tomography scan at each place of a grid of sample positions.

    Each tile is a run of its own, with flats and darks of its own. Key ``mosaic`` of its start
    document says which tile it is, of which mosaic, and where the sample stood; all runs of a
    mosaic share its ``uid``. The grid is taken row by row, each in the direction that is nearer.

    Parameters
    ----------
    camera : Camera
        Camera to expose.
    rotation : RotationStage
        Stage that turns the sample and triggers the camera.
    shutter : FastShutter
        Shutter, closed for darks and after each tile.
    sample_stage : SampleStage
        Stage that moves the sample with its rotation axis: ``x`` across the beam and ``y`` along
        the axis.
    tiles_x, tiles_y : int
        Tiles across the beam and along the axis, 1 or more.
    overlap : float
        Part of a frame that neighbours share, 0.05 to 0.9.
    centre_x_mm, centre_y_mm : float
        Position of the stage for the middle of the mosaic [mm].
    num_projections : int
        Projections of each tile, 1 or more.
    exposure_s : float
        Exposure time of each frame [s].
    rotation_start_deg : float
        Angle of the first projection [deg].
    rotation_stop_deg : float
        End of the range [deg]; the angle itself is not exposed.
    num_darks, num_flats : int
        Darks and flats of each tile, taken first.
    sample_out_mm : float
        Position of ``sample_stage.x`` with all of the sample out of the beam [mm].
    sample : str
        Name of the sample.
    md : dict, optional
        Further metadata of each run.

    Yields
    ------
    Msg
        Messages for the RunEngine.

    Returns
    -------
    tuple of str
        Bluesky run uids, in the order in which the tiles were taken.

    Raises
    ------
    InputError
        If an argument is wrong, a tile cannot be reached, or disk or memory would not suffice;
        before anything moves.
    """
    check_count("tiles_x", tiles_x)
    check_count("tiles_y", tiles_y)
    check_number("overlap", overlap, 0.05, 0.9)
    check_number("centre_x_mm", centre_x_mm, -1e4, 1e4, "mm")
    check_number("centre_y_mm", centre_y_mm, -1e4, 1e4, "mm")
    check_number("sample_out_mm", sample_out_mm, -1e4, 1e4, "mm")
    width_mm, height_mm = _field_mm(camera)
    steps = (width_mm * (1 - overlap), height_mm * (1 - overlap))
    tiles = _tiles(tiles_x, tiles_y, (centre_x_mm, centre_y_mm), steps)
    _check_reach(sample_stage, tiles, sample_out_mm, width_mm)
    common = {
        "uid": str(uuid.uuid4()),
        "tiles_x": tiles_x,
        "tiles_y": tiles_y,
        "overlap": overlap,
        "step_x_mm": steps[0],
        "step_y_mm": steps[1],
        "centre_x_mm": centre_x_mm,
        "centre_y_mm": centre_y_mm,
    }

    def scan(tile: dict[str, Any]) -> Generator[Msg, Any, str]:
        return fly_tomography(
            camera,
            rotation,
            shutter,
            sample_stage.x,
            num_projections=num_projections,
            exposure_s=exposure_s,
            rotation_start_deg=rotation_start_deg,
            rotation_stop_deg=rotation_stop_deg,
            num_darks=num_darks,
            num_flats=num_flats,
            sample_in_mm=tile["x_mm"],
            sample_out_mm=sample_out_mm,
            sample=sample,
            md={
                "mosaic": {**common, **tile},
                "plan_name": "mosaic_tomography",
                **(md or {}),
            },
        )

    way_s = sum(
        motion_s(sample_stage.y, after["y_mm"] - before["y_mm"])
        for before, after in itertools.pairwise(tiles)
    )
    submit_prediction(
        together("mosaic_tomography", [predicted(scan(tile)) for tile in tiles], way_s)
    )
    uids = []
    for tile in tiles:
        yield from bps.checkpoint()
        yield from bps.mv(sample_stage.y, tile["y_mm"])
        uids.append((yield from scan(tile)))
    yield from bps.mv(sample_stage.x, centre_x_mm, sample_stage.y, centre_y_mm)
    return tuple(uids)


def predicted(plan: Generator[Msg, Any, Any]) -> ScanPrediction:
    """What a plan predicts for itself; it is ended before its first message is obeyed.

    Raises
    ------
    InputError
        If the plan refuses its arguments.
    """
    with asking_for_predictions() as found:
        try:
            next(plan)
        finally:
            plan.close()
    return found[0]


def _field_mm(camera: Camera) -> tuple[float, float]:
    """Width and height of the field of view [mm]."""
    if camera.pixel_size_um is None:
        raise InputError(
            f"{camera.name} has no pixel_size_um, so tiles cannot be laid out; give it in the"
            " profile"
        )
    rows, columns = camera.frame_shape
    pixel_mm = camera.pixel_size_um / _UM_PER_MM
    return columns * pixel_mm, rows * pixel_mm


def _tiles(
    tiles_x: int, tiles_y: int, centre_mm: tuple[float, float], steps_mm: tuple[float, float]
) -> list[dict[str, Any]]:
    """All tiles in the order in which they are taken, to and fro."""
    found: list[dict[str, Any]] = []
    for row in range(tiles_y):
        order = range(tiles_x) if row % 2 == 0 else range(tiles_x - 1, -1, -1)
        for column in order:
            # The sample moves against the way that the field of view goes over it.
            x_mm = centre_mm[0] - (column - (tiles_x - 1) / 2) * steps_mm[0]
            y_mm = centre_mm[1] - (row - (tiles_y - 1) / 2) * steps_mm[1]
            found.append(
                {
                    "index": len(found),
                    "column": column,
                    "row": row,
                    "x_mm": round(x_mm, 6),
                    "y_mm": round(y_mm, 6),
                }
            )
    return found


def _check_reach(
    stage: SampleStage, tiles: list[dict[str, Any]], sample_out_mm: float, width_mm: float
) -> None:
    for axis, key in ((stage.x, "x_mm"), (stage.y, "y_mm")):
        low, high = getattr(axis, "limits", (0.0, 0.0))
        for tile in tiles:
            if low < high and not low <= tile[key] <= high:
                raise InputError(
                    f"tile {tile['index']} would need {axis.name} at {tile[key]:.4g} mm, its limits"
                    f" are {low:.4g} to {high:.4g} mm; take fewer tiles or more overlap"
                )
    nearest = min(abs(sample_out_mm - tile["x_mm"]) for tile in tiles)
    if nearest < width_mm:
        raise InputError(
            f"sample_out_mm is {sample_out_mm:g}, {nearest:.4g} mm from a tile; the field of view"
            f" is {width_mm:.4g} mm wide, so flats would show the sample"
        )
