"""Frames that ``golden_tomography`` saves: relative error after each turn, for some samples.

Run it from the repository: ``python benchmarks/golden.py``. Frames come from the simulated camera,
the numbers from what the worker does with them; nothing else is running.
"""

from __future__ import annotations

import argparse

import numpy as np

from apsber_bluesky.core import (
    ImageKey,
    LiveMetric,
    ProcessingSettings,
    SimulationSettings,
    TomographyScan,
)
from apsber_bluesky.pipeline._feedback import HalfSetError
from apsber_bluesky.processing import Normaliser
from apsber_bluesky.simulation import Detector, make_phantom

SAMPLES = [
    (phantom, counts) for counts in (40000.0, 2000.0) for phantom in ("disc", "soil", "shepp_logan")
]
ROWS, REFERENCES = 4, 20


def errors(scan: TomographyScan, phantom: str, flat_counts: float) -> list[float]:
    """Relative error after each turn but the first."""
    size = {"rows": scan.rows, "columns": scan.columns}
    detector = Detector(
        SimulationSettings(**size, flat_counts=flat_counts, dead_pixel_fraction=0.0)
    )
    body, centre = make_phantom(phantom), (scan.columns - 1) / 2

    def mean(kind: ImageKey) -> np.ndarray:
        frames = [detector.expose(kind, number) for number in range(REFERENCES)]
        return np.mean(frames, axis=0, dtype=np.float32)

    normalise = Normaliser(mean(ImageKey.DARK), mean(ImageKey.FLAT))
    sinograms = np.stack(
        [
            normalise(
                detector.expose(
                    ImageKey.PROJECTION, number, body.project(angle, **size, centre_px=centre)
                )[None]
            )[0]
            for number, angle in enumerate(scan.angles_deg)
        ]
    )
    told: list[LiveMetric] = []
    settings = ProcessingSettings(centre=centre)
    watch = HalfSetError(scan, sinograms, settings, told.append)
    turn = scan.projections_per_turn
    for stop in range(turn, scan.num_projections + 1, turn):
        watch.add(list(range(stop - turn, stop)), stop)
    return [one.value for one in told]


def main() -> None:
    """Print one line per sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--per-turn", type=int, default=60)
    parser.add_argument("--turns", type=int, default=16)
    parser.add_argument("--tolerance", type=float, default=0.1)
    wanted = parser.parse_args()
    scan = TomographyScan(
        num_projections=wanted.per_turn * wanted.turns,
        interlaced_turns=wanted.turns,
        rows=ROWS,
        columns=wanted.columns,
        dtype="<u2",
        exposure_s=0.1,
    )
    for phantom, counts in SAMPLES:
        found = errors(scan, phantom, counts)
        enough = [turn for turn, error in enumerate(found, 2) if error <= wanted.tolerance]
        stops = enough[0] if enough else wanted.turns
        values = " ".join(f"{error:.3f}" for error in found)
        print(
            f"{phantom:12} {counts:6.0f} counts: {stops:2} of {wanted.turns} turns,"
            f" {1 - stops / wanted.turns:4.0%} saved  ({values})"
        )


if __name__ == "__main__":
    main()
