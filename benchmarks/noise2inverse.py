"""Denoise a tooth with a network that was trained on the same scan alone.

``python benchmarks/noise2inverse.py [--quick] [--json] [--start MODEL] [--picture FILE]``

The tooth of the test data has 181 projections, few for its width. ``apsber train denoiser --run``
is told to begin with a model (``--start``, by default the one that comes with the suite), and then
to begin with chance and 2 parts, as the paper has it. For each, and for the model that was begun
with, it reports

- ``noise``: standard deviation in uniform boxes of air, dentine and enamel, in units of the level;
- ``mean_shift_percent``: how far the mean of the two materials has moved;
- ``edge_px``: width from 10 to 90 % of the outer edge of the enamel, averaged over some rows;
- ``crack``: depth of a fine crack in the dentine, averaged along it, over its depth without
  denoising;
- ``frc_cutoff``: frequency to which two halves of the projections agree [cycles/pixel], when each
  half is denoised by itself. Networks are the same for both, so that what they invent alike in both
  counts as agreement: it is an upper limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import report
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.special import erf

from apsber_bluesky.analysis import fourier_ring_correlation
from apsber_bluesky.core import DenoiseSettings
from apsber_bluesky.processing.learned import Denoiser, find_model, load_model, object_level
from apsber_bluesky.storage import open_volume

TOOTH = Path(__file__).parents[1] / "tests" / "data" / "tooth.h5"
PROJECTIONS = 181
BOXES = {
    "air": np.s_[:, 300:340, 30:70],
    "dentine": np.s_[:, 330:360, 370:400],
    "enamel": np.s_[:, 270:300, 235:265],
}
EDGE = np.s_[:, 255:265, 210:240]
CRACK = np.s_[:, 288:309, 372:388]
WINDOWS = (np.s_[150:470, 210:470], np.s_[260:380, 290:410])
# 10 to 90 % of an error function, in standard deviations.
_WIDTH = 2.5631

Slices = NDArray[np.float32]


def apsber(*words: str) -> dict[str, Any]:
    """Run a command; its JSON summary."""
    command = [sys.executable, "-m", "apsber_bluesky.cli", *words, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def reconstruct(folder: Path, name: str, centre: str, *, step: int, first: int) -> Slices:
    """The slices from every so-many-th projection [1/pixel]."""
    path = folder / f"{name}.zarr"
    left_out = sorted(set(range(PROJECTIONS)) - set(range(first, PROJECTIONS, step)))
    options = ["--leave-out", ",".join(map(str, left_out))] if left_out else []
    apsber("reconstruct", str(TOOTH), "-o", str(path), "--centre", centre, *options)
    slices: Slices = np.asarray(open_volume(path)[:])
    return slices


def denoise(card: str, slices: Slices, level: float) -> Slices:
    """What a model makes of slices."""
    settings = DenoiseSettings(model=card, device="cpu")
    stream = Denoiser(load_model(*find_model(card), settings)).slabs(slices.shape, level)
    return np.concatenate([part for _, part in [*stream.push(slices), *stream.finish()]])


def edge_width(slices: Slices) -> float:
    """Width of the edge of the enamel [pixel]."""
    profile = slices[EDGE].mean(axis=(0, 1))
    x = np.arange(len(profile))

    def step(at: Any, place: float, width: float, low: float, high: float) -> Any:
        return low + (high - low) * (1 + erf((at - place) / (np.sqrt(2) * width))) / 2

    guess = (len(profile) / 2, 1.0, float(profile[0]), float(profile[-1]))
    fitted, _ = curve_fit(step, x, profile, guess)
    return float(_WIDTH * abs(fitted[1]))


def crack_depth(slices: Slices) -> float:
    """How deep the crack is, in the unit of the slices."""
    profile = slices[CRACK].mean(axis=(0, 2))
    return float(np.median(profile) - profile.min())


def judge(slices: Slices, raw: Slices, level: float, halves: list[Slices]) -> dict[str, Any]:
    """The figures of some slices."""
    shifts = [100 * (slices[BOXES[m]].mean() / raw[BOXES[m]].mean() - 1) for m in list(BOXES)[1:]]
    return {
        "noise": {name: round(float(slices[box].std()) / level, 4) for name, box in BOXES.items()},
        "mean_shift_percent": [round(float(shift), 2) for shift in shifts],
        "edge_px": round(edge_width(slices), 2),
        "crack": round(crack_depth(slices) / crack_depth(raw), 3),
        "frc_cutoff": round(fourier_ring_correlation(*halves).cutoff, 4),
    }


def draw(pictures: dict[str, Slices], level: float, path: Path) -> None:
    """A slice of each, whole and in part."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(pictures), figsize=(5 * len(pictures), 10.4))
    for column, (name, slices) in zip(axes.T, pictures.items(), strict=True):
        for axis, window in zip(
            column, (np.s_[150:470, 210:470], np.s_[260:380, 290:410]), strict=True
        ):
            axis.imshow(slices[0][window] / level, cmap="gray", vmin=-0.2, vmax=1.7)
            axis.set_axis_off()
        column[0].set_title(name)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


def options() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, for a first look")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--start", default="denoiser", help="model to begin with")
    parser.add_argument("--picture", type=Path, help="picture to draw")
    return parser.parse_args()


def main() -> None:
    """Train, denoise, report."""
    asked = options()
    size = ["--batch", "4", "--patch", "96"]
    trainings = {
        "begun_with_model": ["--start", asked.start, "--steps", "20" if asked.quick else "500"],
        "begun_with_chance": [
            *("--start", "none", "--splits", "2", "--steps", "20" if asked.quick else "1500")
        ],
    }
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        summary = apsber("reconstruct", str(TOOTH), "-o", str(folder / "first.zarr"))
        centre = str(summary["centre_px"])
        whole = reconstruct(folder, "whole", centre, step=1, first=0)
        halves = [reconstruct(folder, f"half{n}", centre, step=2, first=n) for n in (0, 1)]
        level = object_level(whole)
        figures["fbp"] = judge(whole, whole, level, halves)
        cards, pictures = {"model_begun_with": asked.start}, {"fbp": whole}
        for name, words in trainings.items():
            began = time.monotonic()
            made = apsber(
                *("train", "denoiser", "--run", str(TOOTH), "-o", str(folder / name)),
                *("--centre", centre, "--checkpoint-steps", "500", *size, *words),
            )
            cards[name] = made["card"]
            figures[name] = {"seconds": round(time.monotonic() - began, 1), **made["figures"]}
        for name, card in cards.items():
            own = [denoise(card, half, level) for half in halves]
            pictures[name] = denoise(card, whole, level)
            found = judge(pictures[name], whole, level, own)
            figures[name] = {**figures.get(name, {}), **found}
        if asked.picture is not None:
            draw(pictures, level, asked.picture)
    report(figures, as_json=asked.json)


if __name__ == "__main__":
    main()
