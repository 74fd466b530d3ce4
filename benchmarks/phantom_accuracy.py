"""How true the volume of the default demonstration is to its phantom.

``python benchmarks/phantom_accuracy.py [--quick] [--json]``

It runs ``apsber demo`` and compares the volume with the phantom's ground truth, area-averaged on
the same grid: PSNR over the field of view, and the scale of attenuation in flat regions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _common import arguments, report
from scipy import ndimage

from apsber_bluesky.simulation import make_phantom
from apsber_bluesky.storage import open_volume, read_volume_info


def run_demo(data_root: Path, *options: str) -> dict[str, Any]:
    """Run the demonstration; its JSON summary."""
    command = [sys.executable, "-m", "apsber_bluesky.cli", "demo", "--json"]
    command += ["--data-root", str(data_root), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def compare(folder: Path, phantom_name: str) -> dict[str, float]:
    """PSNR [dB] and scale of the volume against the phantom."""
    info = read_volume_info(folder / "volume.zarr")
    volume = np.asarray(open_volume(folder / "volume.zarr")[:], dtype=np.float64)
    if info.voxel_size_um is not None:
        volume *= info.voxel_size_um * 1e-6  # 1/m -> 1/pixel
    slices, size, _ = volume.shape
    truth = make_phantom(phantom_name).volume(slices, size).astype(np.float64)
    y, x = np.mgrid[:size, :size] - size // 2
    field = np.broadcast_to(x**2 + y**2 <= (0.45 * size) ** 2, volume.shape)
    error = (volume - truth)[field]
    psnr = 20 * np.log10(truth.max() / np.sqrt(np.mean(error**2)))
    flat = ndimage.maximum_filter(truth, 7) - ndimage.minimum_filter(truth, 7) < 1e-6
    body = flat & field & (truth > 0)
    levels = np.unique(truth[body].round(6))
    main_level = levels[np.argmax([np.sum(np.abs(truth[body] - v) < 1e-6) for v in levels])]
    main = body & (np.abs(truth - main_level) < 1e-6)
    return {
        "psnr_db": round(float(psnr), 2),
        "mu_scale_main_material": round(float(volume[main].mean() / truth[main].mean()), 5),
        "mu_scale_all_flat": round(float(volume[body].sum() / truth[body].sum()), 5),
    }


def main() -> None:
    """Run, compare, report."""
    options = arguments(__doc__ or "")
    size = ("--size", "128") if options.quick else ()
    with tempfile.TemporaryDirectory() as folder:
        summary = run_demo(Path(folder), *size)
        figures = compare(Path(summary["folder"]), "shepp_logan")
    report(
        {
            "volume_shape": summary["volume_shape"],
            "centre_px": summary["centre_px"],
            "seconds_total": summary["seconds"]["total"],
            **figures,
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
