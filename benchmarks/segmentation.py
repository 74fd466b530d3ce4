"""How well the shipped segmenter tells the materials of a soil core apart.

``python benchmarks/segmentation.py [--quick] [--json] [--denoiser CARD] [--segmenter CARD]
[--picture FILE]``

Phantoms that no network has seen are scanned as ``denoising.py`` says. They are segmented as they
were reconstructed, and denoised. Compared with thresholds from multi-Otsu (scikit-image; P.-S. Liao
et al., J. Inf. Sci. Eng. 17 (2001) 713) between as many grey values as there are classes; each grey
value is given the class that makes the mean Dice coefficient of the phantom best, which uses the
truth that the network is not told.

- ``dice``: twice what is common over both together, of each class, voxels of all phantoms together;
  ``dice_mean``: the mean over the classes, and ``dice_mean_inside`` without the background.
- ``calibration_error``: how far confidence and accuracy lie apart (15 bins), of probabilities as
  they come out of the network (``raw``) and with the card's temperature.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from _common import report
from _held_out import (
    CLASSES,
    DOSES,
    JUDGED_SEED,
    SIZE,
    Phantom,
    class_key,
    denoise,
    level_of,
    make_phantoms,
    open_model,
    options,
)
from numpy.typing import NDArray
from skimage.filters import threshold_multiotsu

from apsber_bluesky.processing.learned import (
    Model,
    Segmenter,
    calibration_error,
    count_labels,
    dice_coefficients,
)

Volume = NDArray[np.float32]
Labels = NDArray[np.uint8]

JUDGED = 6
_BINS = 128
# Calibration is measured on every so many voxels in each direction.
_STRIDE = 2


def segment(model: Model, volume: Volume) -> tuple[Labels, Volume]:
    """Labels, and the logarithm of the probabilities, classes first."""
    slices, rows, columns = volume.shape
    stream = Segmenter(model).slabs(
        (slices, rows, columns), level_of(volume), uncertainty=False, probabilities=True
    )
    found = [answer for _, answer in stream.run(volume)]
    probabilities = np.concatenate([each.probabilities for each in found], axis=1)
    logits = np.log(np.maximum(probabilities.astype(np.float32), 1e-7))
    return np.concatenate([each.labels for each in found]), logits


def multi_otsu(volume: Volume, truth: Labels) -> NDArray[np.int64]:
    """Voxels by what they are and what they were found to be, with the best use of thresholds."""
    count = len(CLASSES)
    thresholds = threshold_multiotsu(volume, classes=count, nbins=_BINS)
    table = count_labels(truth, np.digitize(volume, thresholds), count)

    def used(labels: tuple[int, ...]) -> NDArray[np.int64]:
        merged = np.zeros_like(table)
        for grey, label in enumerate(labels):
            merged[:, label] += table[:, grey]
        return merged

    choices = itertools.product(range(count), repeat=count)
    return max(map(used, choices), key=lambda merged: np.nanmean(dice_coefficients(merged)))


def dice_figures(table: NDArray[np.int64]) -> dict[str, Any]:
    """Dice coefficients of all phantoms together."""
    dice = dice_coefficients(table)
    return {
        "dice": {class_key(n): round(float(v), 4) for n, v in zip(CLASSES, dice, strict=True)},
        "dice_mean": round(float(np.mean(dice)), 4),
        "dice_mean_inside": round(float(np.mean(dice[1:])), 4),
    }


class Collected:
    """What was found in all phantoms."""

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
        self._otsu = self._table.copy()
        self._logits: list[Volume] = []
        self._labels: list[Labels] = []

    def add(self, model: Model, volume: Volume, phantom: Phantom) -> Labels:
        """Segment a volume in both ways; gives the network's labels of the judged slices."""
        place = phantom.middle(JUDGED)
        truth = phantom.labels[place]
        labels, logits = segment(model, volume)
        self._table += count_labels(truth, labels[place], len(CLASSES))
        self._otsu += multi_otsu(volume[place], truth)
        few = (..., slice(None, None, _STRIDE), slice(None, None, _STRIDE))
        self._logits.append(logits[:, place][few].reshape(len(CLASSES), -1).T)
        self._labels.append(truth[few].ravel())
        return labels[place]

    def figures(self) -> dict[str, Any]:
        """Dice coefficients and calibration."""
        # Probabilities have the temperature in them already.
        logits, labels = np.concatenate(self._logits), np.concatenate(self._labels)
        return {
            "network": {
                **dice_figures(self._table),
                "calibration_error_raw": round(
                    calibration_error(logits, labels, 1 / self._temperature), 5
                ),
                "calibration_error": round(calibration_error(logits, labels, 1.0), 5),
            },
            "multi_otsu": dice_figures(self._otsu),
        }


def draw(path: Path, phantom: Phantom, found: dict[str, tuple[Volume, Labels]]) -> None:
    """A slice, what is in it, and what was found, for each of the inputs."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap

    colours = ListedColormap(["black", "lightsteelblue", "peru", "forestgreen", "crimson"])
    place, middle = phantom.middle(JUDGED), JUDGED // 2
    figure, axes = pyplot.subplots(
        len(found), 4, figsize=(11, 2.8 * len(found)), squeeze=False, layout="tight"
    )
    truth = phantom.labels[place][middle]
    for row, (name, (volume, labels)) in zip(axes, found.items(), strict=True):
        wrong = np.where(labels[middle] == truth, 0.0, 1.0)
        grey = {"cmap": "gray", "vmin": 0, "vmax": 2 * level_of(phantom.clean)}
        named = {"cmap": colours, "vmin": 0, "vmax": len(CLASSES) - 1, "interpolation": "nearest"}
        for axis, image, how, title in (
            (row[0], volume[place][middle], grey, name),
            (row[1], truth, named, "truth"),
            (row[2], labels[middle], named, "network"),
            (row[3], wrong, {"cmap": "gray"}, f"wrong: {100 * wrong.mean():.1f} %"),
        ):
            axis.imshow(image, **how)
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    figure.savefig(path, dpi=100)


def parsed() -> argparse.Namespace:
    """Read the options."""
    parser = options(__doc__ or "")
    parser.add_argument(
        "--segmenter", default="soil-segmenter", help="name of a model, or its card"
    )
    return parser.parse_args()


def in_lines(figures: dict[str, Any]) -> dict[str, Any]:
    """A line for each dose, input and method."""
    lines = {name: value for name, value in figures.items() if name not in DOSES}
    for dose in DOSES:
        for taken, methods in figures[dose].items():
            for name, found in methods.items():
                each = ", ".join(f"{kind} {value:.3f}" for kind, value in found["dice"].items())
                text = f"mean Dice {found['dice_mean']:.4f} ({each})"
                if "calibration_error" in found:
                    raw, error = found["calibration_error_raw"], found["calibration_error"]
                    text += f"   ECE {raw:.4f}, calibrated {error:.4f}"
                lines[f"{dose} {taken} {name}"] = text
    return lines


def main() -> None:
    """Measure and report."""
    chosen = parsed()
    denoiser, segmenter = open_model(chosen.denoiser), open_model(chosen.segmenter)
    phantoms = make_phantoms(
        JUDGED_SEED, 2 if chosen.quick else 8, size=128 if chosen.quick else SIZE
    )
    figures: dict[str, Any] = {"model": segmenter.card.sha256[:19], "phantoms": len(phantoms)}
    pictures: dict[str, tuple[Volume, Labels]] = {}
    for dose in DOSES:
        raw, clean = (Collected(segmenter.card.temperature) for _ in range(2))
        for phantom in phantoms:
            noisy = phantom.scans[dose].noisy
            denoised = denoise(denoiser, noisy)
            labels = raw.add(segmenter, noisy, phantom), clean.add(segmenter, denoised, phantom)
            if phantom is phantoms[0]:
                pictures[f"{dose} dose"] = noisy, labels[0]
                pictures[f"{dose} dose, denoised"] = denoised, labels[1]
        figures[dose] = {"as_reconstructed": raw.figures(), "denoised": clean.figures()}
    if chosen.picture:
        draw(chosen.picture, phantoms[0], pictures)
    report(figures if chosen.json else in_lines(figures), as_json=chosen.json)


if __name__ == "__main__":
    main()
