"""How much better slices become by denoising, and whether they still say what is true.

``python benchmarks/denoising.py [--quick] [--json] [--denoiser CARD] [--picture FILE]``

Phantoms that no network and no parameter has seen are scanned with 4000 photons per pixel and
projection, a quarter and a tenth of that, 400 projections of 256 columns. What is true is the
reconstruction without noise. Compared with filtered back-projection (ramp, and the smoother Hann
and Parzen windows) and with non-local means and total variation of scikit-image, in the plane and
in the volume, and BM3D, where it is installed (the package ``bm3d``, whose licence allows no
commercial use): with white noise and with the spectrum that the noise of a reconstruction has. The
parameters of these are chosen for each dose on phantoms of the training set.

- ``psnr``: of the voxels inside the object (any class but the background), in dB; the peak is the
  range of the clean slices there. The mean over the phantoms.
- ``ssim``: Z. Wang et al., IEEE Trans. Image Process. 13 (2004) 600, with their Gaussian window and
  the same range; the mean over the same voxels.
- ``shift_percent``: by how much the mean of a material moves, over voxels at least two pixels away
  from others; all phantoms together; that of pores, which may hold air, in percent of the object's
  level. ``largest_shift_percent`` is that of the phantom where it
  moves most, in percent of the object's level.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import report
from _held_out import (
    CLASSES,
    DOSES,
    JUDGED_SEED,
    SIZE,
    TUNING_SEED,
    Phantom,
    class_key,
    denoise,
    inner,
    level_of,
    make_phantoms,
    open_model,
    options,
)
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

Volume = NDArray[np.float32]
Method = Callable[[Volume, float], Volume]
"""(slices over the level, parameter) -> slices."""

WINDOWS = ("hann", "parzen")
# Slices that are judged, and those around them that methods of the volume see besides.
JUDGED, AROUND = 2, 3
# Fewer voxels of a material have too much noise left in their mean.
_ENOUGH = 400


def nlm(volume: Volume, strength: float) -> Volume:
    """Non-local means, slice by slice (A. Buades et al., CVPR 2005)."""
    return np.stack([_nlm(each, strength, 7) for each in volume])


def nlm_3d(volume: Volume, strength: float) -> Volume:
    """Non-local means of the volume."""
    return _nlm(volume, strength, 2)


def _nlm(image: Volume, strength: float, distance: int) -> Volume:
    found: Volume = denoise_nl_means(
        image, patch_size=5 if image.ndim == 2 else 3, patch_distance=distance, h=strength
    )
    return found


def tv(volume: Volume, weight: float) -> Volume:
    """Total variation, slice by slice (A. Chambolle, J. Math. Imaging Vis. 20 (2004) 89)."""
    return np.stack([denoise_tv_chambolle(each, weight=weight) for each in volume])


def tv_3d(volume: Volume, weight: float) -> Volume:
    """Total variation of the volume."""
    found: Volume = denoise_tv_chambolle(volume, weight=weight)
    return found


def bm3d_white(volume: Volume, sigma: float) -> Volume:
    """BM3D (K. Dabov et al., IEEE Trans. Image Process. 16 (2007) 2080), for white noise."""
    from bm3d import bm3d

    return np.stack([bm3d(each, sigma) for each in volume]).astype(np.float32)


def bm3d_coloured(volume: Volume, sigma: float) -> Volume:
    """BM3D for noise whose power rises as the ramp filter's (Y. Makinen et al., IEEE TIP 2020)."""
    from bm3d import bm3d

    if not hasattr(np, "trapz"):
        # Version 4 of the package calls this, which NumPy has renamed since.
        setattr(np, "trapz", np.trapezoid)  # noqa: B010 - so that it knows the name
    rows, columns = volume.shape[1:]
    radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns)[None])
    # Only angles and columns of the circle are measured; the corners hold no noise.
    power = np.where(radius <= 0.5, radius, 0.0) + 1e-3
    spectrum = power / power.mean() * sigma**2 * rows * columns
    return np.stack([bm3d(each, spectrum) for each in volume]).astype(np.float32)


# Parameters are tried as multiples of the noise of the tuning scans.
METHODS: dict[str, tuple[Method, tuple[float, ...]]] = {
    "nlm": (nlm, (0.7, 1.0, 1.4)),
    "nlm_3d": (nlm_3d, (0.5, 0.7, 1.0)),
    "tv": (tv, (0.5, 0.75, 1.0, 1.5, 2.0)),
    "tv_3d": (tv_3d, (0.35, 0.5, 0.75, 1.0, 1.5)),
    "bm3d": (bm3d_white, (1.0, 1.4, 2.0)),
    "bm3d_coloured": (bm3d_coloured, (0.85, 1.0, 1.2, 1.4)),
}


class Judge:
    """Compares slices of a phantom with what is true."""

    def __init__(self, phantom: Phantom) -> None:
        self.phantom, self._place = phantom, phantom.middle(JUDGED)
        self.clean = phantom.clean[self._place]
        self._object = phantom.labels[self._place] != 0
        inside = self.clean[self._object]
        self.peak = float(inside.max() - inside.min())
        self._materials = {
            name: inner(phantom.labels[self._place], kind)
            for kind, name in enumerate(CLASSES)
            if kind
        }
        self.level = level_of(phantom.clean)

    def psnr(self, found: Volume) -> float:
        """Of the judged slices [dB]."""
        error = float(np.mean((found - self.clean)[self._object].astype(np.float64) ** 2))
        return 10 * np.log10(self.peak**2 / error)

    def ssim(self, found: Volume) -> float:
        """Of the judged slices."""
        values = []
        for one, truth, inside in zip(found, self.clean, self._object, strict=True):
            _, local = structural_similarity(
                one,
                truth,
                data_range=self.peak,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                full=True,
            )
            values.append(local[inside].mean())
        return float(np.mean(values))

    def sums(self, found: Volume) -> dict[str, tuple[float, float, int]]:
        """Of each material: attenuation found and true, and voxels."""
        return {
            name: (
                float(found[mask].sum(dtype=np.float64)),
                float(self.clean[mask].sum(dtype=np.float64)),
                int(mask.sum()),
            )
            for name, mask in self._materials.items()
        }

    def noisy(self, dose: str, window: str = "ramp") -> Volume:
        """The judged slices as they were reconstructed."""
        scan = self.phantom
        volume = scan.scans[dose].noisy if window == "ramp" else scan.filtered[dose][window]
        return volume[self._place]

    def classical(self, dose: str, method: Method, parameter: float) -> Volume:
        """The judged slices by a method, which sees more of the volume."""
        volume = self.phantom.scans[dose].noisy
        level = level_of(volume)
        around = volume[self._place.start - AROUND : self._place.stop + AROUND] / level
        with warnings.catch_warnings():
            # Libraries of the methods warn of their own future.
            warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
            if method in (nlm_3d, tv_3d):
                found = method(around, parameter)[AROUND:-AROUND]
            else:
                found = method(around[AROUND:-AROUND], parameter)
        return found * np.float32(level)

    def learned(self, dose: str, model: Any) -> Volume:
        """The judged slices by the network."""
        return denoise(model, self.phantom.scans[dose].noisy)[self._place]


def noise_of(judges: list[Judge], dose: str) -> float:
    """RMS noise of the scans over their level."""
    return float(
        np.sqrt(np.mean([np.mean((j.noisy(dose) - j.clean) ** 2) / j.level**2 for j in judges]))
    )


def tune(judges: list[Judge], dose: str, name: str) -> float:
    """The best parameter on the training set."""
    method, multiples = METHODS[name]
    noise = noise_of(judges, dose)
    scores = {
        noise * factor: np.mean([j.psnr(j.classical(dose, method, noise * factor)) for j in judges])
        for factor in multiples
    }
    best = max(scores, key=lambda parameter: scores[parameter])
    return float(best)


def figures_of(judges: list[Judge], found: list[Volume]) -> dict[str, Any]:
    """PSNR, SSIM and the shifts of the materials."""
    pairs = list(zip(judges, found, strict=True))
    shifts, largest = {}, {}
    sums = [judge.sums(volume) for judge, volume in pairs]
    for name in CLASSES[1:]:
        each = [one[name] for one in sums]
        total, truth, count = (float(sum(column)) for column in zip(*each, strict=True))
        # Some pores hold air, of which a relative error would say nothing.
        whole = count * judges[0].level if name == "pore" else truth
        shifts[class_key(name)] = round(100 * (total - truth) / whole, 2) if count else None
        moved = [
            100 * abs(got - true) / count / judge.level
            for judge, (got, true, count) in zip(judges, each, strict=True)
            if count >= _ENOUGH
        ]
        largest[class_key(name)] = round(max(moved, default=0.0), 2)
    return {
        "psnr": round(float(np.mean([judge.psnr(volume) for judge, volume in pairs])), 2),
        "ssim": round(float(np.mean([judge.ssim(volume) for judge, volume in pairs])), 4),
        "shift_percent": shifts,
        "largest_shift_percent": largest,
    }


def compare(
    judges: list[Judge], tuning: list[Judge], dose: str, model: Any, names: list[str]
) -> tuple[dict[str, Any], dict[str, Volume]]:
    """Figures of every method at a dose, and the slices of the first phantom."""
    found = {"fbp": [judge.noisy(dose) for judge in judges]}
    for window in WINDOWS:
        found[f"fbp_{window}"] = [judge.noisy(dose, window) for judge in judges]
    parameters = {}
    for name in names:
        parameters[name] = tune(tuning, dose, name)
        found[name] = [j.classical(dose, METHODS[name][0], parameters[name]) for j in judges]
    found["network"] = [judge.learned(dose, model) for judge in judges]
    table = {name: figures_of(judges, volumes) for name, volumes in found.items()}
    for name, parameter in parameters.items():
        table[name]["parameter"] = round(parameter, 4)
    best = max((name for name in table if name != "network"), key=lambda name: table[name]["psnr"])
    table["gain_over_best_db"] = round(table["network"]["psnr"] - table[best]["psnr"], 2)
    table["best_of_the_others"] = best
    return table, {name: volumes[0] for name, volumes in found.items()}


def draw(path: Path, judge: Judge, pictures: dict[str, dict[str, Volume]]) -> None:
    """A quarter of a slice by every method, a row for each dose."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    names = ["clean", *next(iter(pictures.values()))]
    figure, axes = pyplot.subplots(
        len(pictures), len(names), figsize=(2.2 * len(names), 2.8 * len(pictures)), squeeze=False
    )
    size = judge.clean.shape[-1]
    part = slice(size // 4, 3 * size // 4)
    for row, (dose, volumes) in zip(axes, pictures.items(), strict=True):
        for axis, name in zip(row, names, strict=True):
            volume = judge.clean if name == "clean" else volumes[name]
            axis.imshow(volume[JUDGED // 2, part, part], cmap="gray", vmin=0, vmax=2 * judge.level)
            axis.set_axis_off()
            score = "" if name == "clean" else f"\n{judge.psnr(volume):.1f} dB"
            axis.set_title(f"{name}{score}", fontsize=8)
        row[0].text(-0.1, 0.5, dose, rotation=90, transform=row[0].transAxes, ha="center")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def in_lines(figures: dict[str, Any]) -> dict[str, Any]:
    """A line for each method and dose."""
    lines = {name: value for name, value in figures.items() if name not in DOSES}
    for dose in DOSES:
        for name, found in figures[dose].items():
            text = found
            if isinstance(found, dict):
                moved = ", ".join(
                    f"{kind} {value}" for kind, value in found["shift_percent"].items()
                )
                text = f"{found['psnr']:5.2f} dB   SSIM {found['ssim']:.4f}   shift [%]: {moved}"
            lines[f"{dose} {name}"] = text
    return lines


def main() -> None:
    """Measure and report."""
    chosen = options(__doc__ or "").parse_args()
    model = open_model(chosen.denoiser)
    size = 128 if chosen.quick else SIZE
    judges = [
        Judge(phantom)
        for phantom in make_phantoms(
            JUDGED_SEED, 1 if chosen.quick else 8, size=size, windows=WINDOWS
        )
    ]
    tuning = [
        Judge(phantom)
        for phantom in make_phantoms(TUNING_SEED, 1 if chosen.quick else 4, size=size)
    ]
    names = list(METHODS)
    if importlib.util.find_spec("bm3d") is None:
        names = [name for name in names if not name.startswith("bm3d")]
    elif chosen.quick:
        names = [name for name in names if name != "bm3d"]
    figures: dict[str, Any] = {"model": model.card.sha256[:19], "phantoms": len(judges)}
    pictures = {}
    for dose in DOSES:
        figures[dose], pictures[dose] = compare(judges, tuning, dose, model, names)
    if chosen.picture:
        draw(chosen.picture, judges[0], pictures)
    report(figures if chosen.json else in_lines(figures), as_json=chosen.json)


if __name__ == "__main__":
    main()
