"""Scan files of an object that is known exactly, and the command that is run on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from apsber_bluesky.cli import main

ROWS, COLUMNS, PROJECTIONS = 40, 64, 90
MU = 0.02
DARK, FLAT = 90, 30000


@pytest.fixture
def apsber_command(monkeypatch, capsys, tmp_path):
    """Run a command as the ``apsber`` script does; gives status, standard output and error."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["apsber", *map(str, words)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def line_integrals(angles_deg: np.ndarray, rows: int, columns: int, centre: float) -> np.ndarray:
    """Two cylinders of attenuation `MU`, the larger one narrower in every further row."""
    theta = np.deg2rad(angles_deg)[:, None, None]
    column = np.arange(columns)[None, None, :] - centre
    shrink = 1 - 0.4 * np.arange(rows)[None, :, None] / rows
    lines = np.zeros((len(angles_deg), rows, columns))
    for x, y, radius in ((3.0, -2.0, 0.34 * columns * shrink), (-8.0, 6.0, 0.06 * columns)):
        away = column - (x * np.cos(theta) + y * np.sin(theta))
        lines += MU * 2 * np.sqrt(np.maximum(radius**2 - away**2, 0))
    return lines


class ScanMaker:
    """Writes scan files; what is unusual about one is changed afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def frames(
        self,
        *,
        angles: np.ndarray | None = None,
        rows: int = ROWS,
        columns: int = COLUMNS,
        centre: float = 30.4,
    ) -> dict[str, np.ndarray]:
        angles = np.arange(PROJECTIONS) * 2.0 if angles is None else angles
        random = np.random.default_rng(7)
        shape = (rows, columns)
        gain = FLAT * (1 + 0.1 * random.normal(size=shape).clip(-2, 2))
        lines = line_integrals(angles, rows, columns, centre)
        return {
            "data": np.rint(DARK + gain * np.exp(-lines)).astype(np.uint16),
            "data_white": np.rint(DARK + np.stack([gain] * 3)).astype(np.uint16),
            "data_dark": np.full((3, *shape), DARK, np.uint16),
            "theta": angles,
        }

    def dxchange(
        self,
        name: str = "scan.h5",
        change: Callable[[dict[str, np.ndarray]], Any] | None = None,
        compression: str | None = None,
        **options: Any,
    ) -> Path:
        frames = self.frames(**options)
        if change is not None:
            change(frames)
        with h5py.File(self.folder / name, "w") as file:
            for key, values in frames.items():
                stack = {"chunks": (1, *values.shape[1:]), "compression": compression}
                keep = stack if compression and values.ndim == 3 else {}
                file.create_dataset(f"exchange/{key}", data=values, **keep)
        return self.folder / name

    def nxtomo(self, name: str = "scan.nxs", invalid: tuple[int, ...] = ()) -> Path:
        frames = self.frames()
        keys = [2] * 3 + [1] * 3 + [0] * PROJECTIONS
        for number in invalid:
            keys[6 + number] = 3
            frames["data"][number] = 0
        with h5py.File(self.folder / name, "w") as file:
            detector = file.create_group("entry/instrument/detector")
            stack = [frames[key] for key in ("data_dark", "data_white", "data")]
            detector["data"] = np.concatenate(stack)
            detector["image_key"] = keys
            detector["x_pixel_size"] = 2.5e-3
            detector["x_pixel_size"].attrs["units"] = "mm"
            angles = np.deg2rad(np.concatenate([np.zeros(6), frames["theta"]]))
            file["entry/sample/rotation_angle"] = angles
            file["entry/sample/rotation_angle"].attrs["units"] = "rad"
        return self.folder / name


@pytest.fixture
def scan_maker(tmp_path):
    return ScanMaker(tmp_path)
