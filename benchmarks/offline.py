"""Memory and time of ``apsber reconstruct`` on a volume about as large as the machine's memory.

``python benchmarks/offline.py [--quick] [--json]``

A scan of a cylinder is written to a temporary folder (2.4 GB, and the volume 21.5 GB, without
``--quick``), estimated by ``apsber estimate`` and reconstructed by ``apsber reconstruct`` with its
defaults. Memory is the sum over the command and its workers, looked at ten times a second; pages
that they share are counted for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
from _common import arguments, report

from apsber_bluesky.processing import free_memory
from apsber_bluesky.storage import open_volume

_MU, _DARK, _FLAT = 0.001, 100, 40000


def write_scan(path: Path, rows: int, columns: int, projections: int) -> None:
    """Write a scan of an upright cylinder beside the axis, DXchange."""
    theta = np.arange(projections) * 180 / projections
    middle, radius = (columns - 1) / 2, columns / 3
    away = np.arange(columns) - middle - columns / 10 * np.cos(np.deg2rad(theta))[:, None]
    lines = _MU * 2 * np.sqrt(np.maximum(radius**2 - away**2, 0))
    counts = np.rint(_DARK + _FLAT * np.exp(-lines)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("exchange/data", (projections, rows, columns), np.uint16)
        for number, line in enumerate(counts):
            data[number] = np.broadcast_to(line, (rows, columns))
        file["exchange/data_white"] = np.full((5, rows, columns), _DARK + _FLAT, np.uint16)
        file["exchange/data_dark"] = np.full((5, rows, columns), _DARK, np.uint16)
        file["exchange/theta"] = theta


def apsber(folder: Path, *words: str) -> tuple[dict[str, Any], int]:
    """Run a command; its JSON object and the most memory that it and its workers took [byte]."""
    command = [sys.executable, "-m", "apsber_bluesky.cli", *words, "--json"]
    with (folder / "out").open("w+") as out:
        started = psutil.Popen(command, cwd=folder, stdout=out, stderr=subprocess.DEVNULL)
        most = 0
        while started.poll() is None:
            most = max(most, _memory(started))
            time.sleep(0.1)
        out.seek(0)
        value: dict[str, Any] = json.load(out)
    if started.returncode:
        raise SystemExit(value.get("error", "the command failed"))
    return value, most


def _memory(process: psutil.Process) -> int:
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def main() -> None:
    """Write, estimate, reconstruct, report."""
    options = arguments(__doc__)
    rows, columns, projections = (96, 512, 180) if options.quick else (1280, 2048, 450)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scan(folder / "scan.h5", rows, columns, projections)
        free = free_memory()
        estimate, _ = apsber(folder, "estimate", "scan.h5")
        value, most = apsber(folder, "reconstruct", "scan.h5", "-o", "volume.zarr")
        middle = open_volume(folder / "volume.zarr")[rows // 2]
    size = middle.shape[0]
    y, x = np.mgrid[:size, :size] - size // 2
    inside = (x - columns / 10) ** 2 + y**2 < (0.3 * columns) ** 2
    report(
        {
            "scan": f"{projections} x {rows} x {columns} uint16",
            "engine": value["engine"],
            "volume_gb": round(value["volume_bytes"] / 1e9, 2),
            "free_memory_gb": round(free / 1e9, 2),
            "estimated_memory_gb": round(value["plan"]["memory_bytes"] / 1e9, 2),
            "most_memory_gb": round(most / 1e9, 2),
            "estimated_s": estimate["seconds"],
            "reconstruct_s": value["seconds"],
            "volume_mb_per_s": round(value["volume_bytes"] / 1e6 / value["seconds"], 1),
            "slabs": value["plan"]["slabs"],
            "workers": value["plan"]["workers"],
            "mu_scale": round(float(middle[inside].mean()) / _MU, 5),
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
