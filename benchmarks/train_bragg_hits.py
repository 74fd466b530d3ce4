"""Train the small network ``bragg-hits``, the example of a model for frames.

``python benchmarks/train_bragg_hits.py FOLDER [--frames N] [--epochs N]`` writes
``bragg-hits.onnx`` and its card. Frames are simulated with seeds from 100 000 on; the benchmark
``hits.py`` judges it on others.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, cross_entropy, max_pool2d

from apsber_bluesky.core import ModelCard, file_checksum
from apsber_bluesky.simulation.training import simulate_bragg_frame

FIRST_SEED = 100_000
# Those of the benchmark hits.py.
JUDGED_SEED, JUDGED_FRAMES = 10_000, 400
LARGEST_COUNT = 10_000.0
BATCH = 16


class HitNetwork(nn.Module):
    """Counts, shape (n, 1, rows, columns), to logits of blank and hit."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.third = nn.Conv2d(16, 24, 3, padding=1)
        self.last = nn.Linear(48, 2)

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        """Logits, shape (n, 2)."""
        image = torch.log1p(counts.clamp(0, LARGEST_COUNT))
        image = max_pool2d(torch.relu(self.first(image)), 2)
        image = max_pool2d(torch.relu(self.second(image)), 2)
        image = torch.relu(self.third(image))
        both = [adaptive_avg_pool2d(image, 1), adaptive_max_pool2d(image, 1)]
        return self.last(torch.cat(both, 1).flatten(1))


def photons(counts: np.ndarray) -> np.ndarray:
    """What the network is given of a frame: photons, and 0 where a pixel does not count."""
    return np.where(counts < np.iinfo(counts.dtype).max - 1, counts, 0).astype(np.float32)


def examples(first_seed: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames and whether they are hits."""
    frames = [simulate_bragg_frame(first_seed + k) for k in range(number)]
    counts = np.minimum(np.stack([photons(f.counts) for f in frames]), LARGEST_COUNT)
    hits = np.array([f.is_hit for f in frames])
    return torch.from_numpy(counts.astype(np.float16))[:, None], torch.from_numpy(hits).long()


def turned(images: torch.Tensor, way: int) -> torch.Tensor:
    """One of the eight ways to lay a square frame."""
    images = images.flip(3) if way >= 4 else images
    return torch.rot90(images, way % 4, (2, 3))


def train(number: int, epochs: int) -> HitNetwork:
    """Train on `number` frames."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    counts, hits = examples(FIRST_SEED, number)
    network = HitNetwork().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    steps = epochs * (number // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        order, losses = rng.permutation(number), []
        for batch in order[: number // BATCH * BATCH].reshape(-1, BATCH):
            images = turned(counts[batch].float(), int(rng.integers(8)))
            loss = cross_entropy(network(images.contiguous()), hits[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)
    return network.eval()


@torch.no_grad()
def judged(network: HitNetwork) -> dict[str, float]:
    """Precision and recall on frames that it was not trained on."""
    counts, hits = examples(JUDGED_SEED, JUDGED_FRAMES)
    said = torch.cat([network(part.float()).argmax(1) for part in counts.split(BATCH)])
    right = float((said & hits).sum())
    return {
        "precision": round(right / max(float(said.sum()), 1), 3),
        "recall": round(right / max(float(hits.sum()), 1), 3),
    }


def write(network: HitNetwork, folder: Path, number: int, epochs: int, seconds: float) -> ModelCard:
    """Write the network and its card."""
    path = folder / "bragg-hits.onnx"
    free = {axis: {0: "n", 2: "rows", 3: "columns"} for axis in ("counts",)}
    torch.onnx.export(
        network, (torch.zeros(1, 1, 512, 512),), str(path), dynamo=False, opset_version=17,
        input_names=["counts"], output_names=["logits"],
        dynamic_axes={**free, "logits": {0: "n"}},
    )  # fmt: skip
    card = ModelCard.model_validate({
        "name": "bragg-hits",
        "version": "1",
        "description": "Whether a diffraction frame shows Bragg spots. An example of a model for "
        "frames: the finder of peaks (analysis.hits) is better at it.",
        "task": "classify",
        "file": path.name,
        "sha256": file_checksum(path),
        "format": "onnx",
        "input": {"unit": "counts", "minimum": 0.0, "maximum": LARGEST_COUNT},
        "classes": ["blank", "hit"],
        "training": {
            "data": f"{number} simulated frames of 512 x 512 pixels, seeds from {FIRST_SEED}",
            "command": f"python benchmarks/train_bragg_hits.py FOLDER --frames {number}"
            f" --epochs {epochs}",
            "seed": 1,
            "seconds": round(seconds),
        },
        "figures": judged(network),
    })  # fmt: skip
    plain = yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False, width=100)
    (folder / "bragg-hits.yaml").write_text(plain, encoding="utf-8")
    return card


def main() -> None:
    """Simulate, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    network = train(options.frames, options.epochs)
    seconds = time.monotonic() - began
    card = write(network, options.folder, options.frames, options.epochs, seconds)
    print(f"{card.name}: {sum(p.numel() for p in network.parameters())} weights, {seconds:.0f} s")


if __name__ == "__main__":
    main()
