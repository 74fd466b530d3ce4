"""How fast the shipped models are, beside the reconstruction of the same slices.

``python benchmarks/models.py [--quick] [--json]``

Slices of a noisy cylinder are reconstructed by the engine that ``auto`` takes, from 1.5 projections
for each column, and go through each model as they do in the pipeline: in slabs of 16, with their
values checked, on the processor in float32 and bfloat16, and on a GPU where there is one, in
bfloat16. Reconstruction and models take turns in one run, and the best of their turns counts;
``_of_reconstruction`` is the model's time over that of the reconstruction of as many slices, its
projections' share included. Both have all processors. Models that classify frames are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import arguments, report
from numpy.typing import NDArray

from apsber_bluesky.core import LearnedSettings, ModelCard
from apsber_bluesky.processing import create_engine, engine_names
from apsber_bluesky.processing.learned import (
    Denoiser,
    Segmenter,
    Transformer,
    list_models,
    load_model,
)

_MU, _NOISE, _SLAB, _CHUNK = 0.005, 0.02, 16, 32
_KINDS = {"denoise": Denoiser, "segment": Segmenter, "transform": Transformer}


def cylinder(rows: int, columns: int) -> NDArray[np.float32]:
    """Noisy projections of a cylinder on the axis, (projections, rows, columns)."""
    u = np.arange(columns) - (columns - 1) / 2
    lines = 2 * _MU * np.sqrt(np.maximum(0, (0.4 * columns) ** 2 - u**2))
    random = np.random.default_rng(0)
    noise = random.standard_normal((3 * columns // 2, rows, columns), np.float32)
    return np.asarray(lines + _NOISE * lines.mean() * noise, np.float32)


def reconstruct(projections: NDArray[np.float32]) -> NDArray[np.float32]:
    """All slices, chunk by chunk as they come."""
    count, rows, columns = projections.shape
    angles = np.arange(count) * 180 / count
    engine = create_engine(rows=rows, columns=columns, angles_deg=angles)
    for first in range(0, count, _CHUNK):
        engine.accumulate(projections[first : first + _CHUNK], first)
    return engine.finish(slice(None), (columns - 1) / 2)


def run(card: ModelCard, folder: Path, device: str, precision: Any) -> Callable[[Any], None]:
    """A model that is ready to work on volumes."""
    settings = LearnedSettings(model=card.name, device=device, precision=precision)
    worker = _KINDS[card.task](load_model(card, folder, settings))

    def work(volume: NDArray[np.float32]) -> None:
        stream = worker.slabs(volume.shape, _MU, pixel_size_um=_usual_pixel(card))
        for _ in stream.run(volume, _SLAB):
            pass

    return work


def _usual_pixel(card: ModelCard) -> float:
    return float(np.mean(card.input.pixel_size_um or 1.0))


def places() -> list[tuple[str, str]]:
    """Devices and precisions that are tried."""
    found = [("cpu", "float32"), ("cpu", "bfloat16")]
    return [*found, ("cuda", "bfloat16")] if torch.cuda.is_available() else found


def measure(columns: int, rows: int, turns: int) -> dict[str, Any]:
    """Slices per second at one size."""
    projections = cylinder(rows, columns)
    volume = reconstruct(projections)
    tasks: dict[str, Callable[[], Any]] = {"reconstruct": lambda: reconstruct(projections)}
    for listed in list_models():
        card = listed.card
        if card is None or card.task not in _KINDS or card.input.unit == "counts":
            continue
        for device, precision in places():
            if card.format == "onnx" and precision != "float32":
                continue
            work = run(card, listed.path.parent, device, precision)
            work(volume[: card.input.slices])  # what is compiled or chosen at first is not counted
            tasks[f"{card.name}_{device}_{precision}"] = lambda work=work: work(volume)
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(turns):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            best[name] = min(best[name], time.perf_counter() - began)
    figures: dict[str, Any] = {}
    for name, seconds in best.items():
        figures[f"{name}_{columns}_slices_per_s"] = round(rows / seconds, 3)
        if name != "reconstruct":
            fraction = seconds / best["reconstruct"]
            figures[f"{name}_{columns}_of_reconstruction"] = round(fraction, 3)
    return figures


def main() -> None:
    """Measure at each size, report."""
    options = arguments(__doc__)
    sizes = [256] if options.quick else [512, 1024]
    if torch.cuda.is_available() and not options.quick:
        sizes.append(2048)
    rows, turns = (4, 1) if options.quick else (_SLAB, 3)
    figures: dict[str, Any] = {
        "engine": engine_names()[0],
        "slices": rows,
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    for columns in sizes:
        figures |= measure(columns, rows, turns)
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
