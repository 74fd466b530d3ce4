"""Bragg hits on held-out simulated frames: right ones, and frames per second on one core.

``python benchmarks/hits.py [--quick] [--json]``

The finder is held against the network ``bragg-hits`` of the registry and, as plain peers, a
threshold on the brightest pixels and an opening by SciPy; each has its threshold chosen on frames
of other seeds than it is judged on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from _common import arguments, report
from scipy import ndimage

from apsber_bluesky.core import ApsberError, LearnedSettings
from apsber_bluesky.processing.hits import HitFinder
from apsber_bluesky.simulation.training import BraggFrame, simulate_bragg_frame

SHAPE, LARGE = (512, 512), (1024, 1024)
CHOOSING, HELD_OUT = 0, 10_000
GAP = np.iinfo(np.uint32).max
Score = Callable[[np.ndarray], float]


def photons(counts: np.ndarray) -> np.ndarray:
    """Photons, and 0 where a pixel does not count."""
    return np.where(counts < np.iinfo(counts.dtype).max - 1, counts, 0).astype(np.float32)


def bright_pixels(counts: np.ndarray) -> float:
    """Pixels above five standard deviations of the whole frame."""
    image = photons(counts)
    return float(np.count_nonzero(image > image.mean() + 5 * image.std()))


def scipy_peaks(counts: np.ndarray) -> float:
    """Connected parts that stand above the mean and deviation of what is around them."""
    image = photons(counts)
    # Gaps are left out of the means, or their edges would look like peaks.
    there = ndimage.uniform_filter((counts < GAP - 1).astype(np.float32), 15)
    there = np.maximum(there, np.float32(1 / 225))
    mean = ndimage.uniform_filter(image, 15) / there
    noise = np.sqrt(np.maximum(ndimage.uniform_filter(image**2, 15) / there - mean**2, mean))
    parts, number = ndimage.label(image > mean + np.maximum(4 * noise, 3), np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=number + 1)[1:]
    return float(np.count_nonzero((sizes >= 2) & (sizes <= 60)))


def network() -> Score | None:
    """Logit of a hit by the network, if it is there."""
    try:
        import torch

        from apsber_bluesky.processing.learned import find_model, load_model

        torch.set_num_threads(1)
        model = load_model(*find_model("bragg-hits"), LearnedSettings(model="bragg-hits"))
    except (ApsberError, ImportError):
        return None

    def score(counts: np.ndarray) -> float:
        blank, hit = model.apply(np.minimum(photons(counts), 1e4)[None, None])[0]
        return float(hit - blank)

    return score


def judged(scores: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[float, float]:
    """Precision and recall."""
    hits = scores >= threshold
    right = np.count_nonzero(hits & truth)
    precision = right / max(np.count_nonzero(hits), 1)
    return float(precision), float(right / max(np.count_nonzero(truth), 1))


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold of the largest F1."""

    def quality(threshold: float) -> float:
        precision, recall = judged(scores, truth, threshold)
        return 2 * precision * recall / max(precision + recall, 1e-9)

    return max(np.unique(scores).tolist(), key=quality)


def accuracy(score: Score, choosing: list[BraggFrame], held_out: list[BraggFrame],
             fixed: float | None) -> dict[str, Any]:  # fmt: skip
    """Precision and recall: of all frames, and under several conditions."""
    truths = [np.array([frame.is_hit for frame in frames]) for frames in (choosing, held_out)]
    threshold = fixed
    if threshold is None:
        threshold = best_threshold(np.array([score(f.counts) for f in choosing]), truths[0])
    scores, truth = np.array([score(frame.counts) for frame in held_out]), truths[1]
    conditions = [frame.conditions for frame in held_out]
    groups = {
        "all": np.ones(len(truth), np.bool_),
        "ice": np.array([c.ice_photons > 0 for c in conditions]),
        "hot_pixels": np.array([c.hot_pixels > 0 for c in conditions]),
        "background_below_1": np.array([c.background_photons < 1 for c in conditions]),
        "background_above_5": np.array([c.background_photons > 5 for c in conditions]),
        "weak_or_blank": np.array([c.spot_photons < 150 for c in conditions]),
    }
    found: dict[str, Any] = {"threshold": threshold}
    for name, group in groups.items():
        precision, recall = judged(scores[group], truth[group], threshold)
        found[name] = {"frames": int(group.sum()), "hits": int(truth[group].sum()),
                       "precision": round(precision, 3), "recall": round(recall, 3)}  # fmt: skip
    return found


def per_second(score: Callable[[np.ndarray], Any], frames: list[np.ndarray], rounds: int) -> float:
    """Frames per second: the best of several rounds over them all."""
    score(frames[0])
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for frame in frames:
            score(frame)
        best = min(best, time.perf_counter() - began)
    return round(len(frames) / best, 1)


def main() -> None:
    """Judge, then measure."""
    options = arguments(__doc__ or "")
    numba.set_num_threads(1)
    number, rounds = (40, 2) if options.quick else (400, 5)
    choosing = [simulate_bragg_frame(CHOOSING + k, SHAPE) for k in range(number // 2)]
    held_out = [simulate_bragg_frame(HELD_OUT + k, SHAPE) for k in range(number)]
    large = [simulate_bragg_frame(HELD_OUT + k, LARGE).counts for k in range(8)]
    finder, finder_large = HitFinder(SHAPE), HitFinder(LARGE)
    least = finder.settings.least_peaks
    figures: dict[str, Any] = {
        "finder": accuracy(lambda c: len(finder(c)), choosing, held_out, least),
        "bright_pixels": accuracy(bright_pixels, choosing, held_out, None),
        "scipy_peaks": accuracy(scipy_peaks, choosing, held_out, None),
        "finder_1mpixel_frames_per_s": per_second(finder_large, large, rounds),
        "finder_1mpixel_uint16_frames_per_s": per_second(
            finder_large, [np.minimum(frame, 65535).astype(np.uint16) for frame in large], rounds
        ),
        "scipy_peaks_1mpixel_frames_per_s": per_second(scipy_peaks, large, rounds),
    }
    if (score := network()) is not None:
        figures["bragg_hits"] = accuracy(score, choosing, held_out, 0.0)
        figures["bragg_hits_1mpixel_frames_per_s"] = per_second(score, large, rounds)
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
