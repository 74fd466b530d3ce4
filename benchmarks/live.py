"""What live slices cost, and how soon they are seen.

``python benchmarks/live.py [--quick] [--json]``

1. Adding a projection to three slices on one core: processor time, against the same three slices
   by NumPy and SciPy (the same filter and interpolation, two lines each), in turn.
2. The sliding window: the same with sectors, and the one long step of each turn.
3. The whole way at a pace of its own: chunks of 32 projections into `LiveSlices`, over ZMQ to
   PV Access, to a p4p client's callback; how long after the last projection the client has the
   slices that hold it, and how many views a second it gets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from _common import arguments, report

from apsber_bluesky.core import ProcessingSettings, RunDescription, TomographyScan, forgo_real_time
from apsber_bluesky.pipeline import LiveSlices
from apsber_bluesky.processing import OrthoSlices, SlidingOrthoSlices
from apsber_bluesky.streaming import SlicePublisher

CHUNK = 32


def processor_ms(work: Callable[[], object]) -> float:
    """Processor time of one call [ms]."""
    began = time.process_time()
    work()
    return 1e3 * (time.process_time() - began)


class Peer:
    """Three slices by NumPy and SciPy: linear interpolation of rows sampled twice as finely."""

    def __init__(self, rows: int, columns: int) -> None:
        self.half, self.padded = columns // 2, 2 * columns
        self.filter = np.abs(scipy.fft.rfftfreq(self.padded)).astype(np.float32)
        self.x = np.arange(columns) - self.half
        self.planes = [np.zeros((columns, columns), np.float32)]
        self.planes += [np.zeros((rows, columns), np.float32) for _ in range(2)]

    def add(self, projection: np.ndarray, angle: float) -> None:
        """Add a projection."""
        spectrum = scipy.fft.rfft(projection, self.padded) * self.filter
        fine = scipy.fft.irfft(spectrum, 2 * self.padded)[:, : self.padded].astype(np.float32)
        cosine, sine = np.cos(angle), np.sin(angle)
        across = self.x[None, :] * cosine + self.x[:, None] * sine
        middle = len(projection) // 2
        self.planes[0] += self.between(fine[middle], across)
        self.planes[1] += self.between(fine, self.x * cosine)
        self.planes[2] += self.between(fine, self.x * sine)

    def between(self, lines: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Values of finely sampled lines at places."""
        place = np.clip(2 * (place + self.half), 0, lines.shape[-1] - 2).astype(np.float32)
        low = place.astype(np.intp)
        part = place - low
        return lines[..., low] * (1 - part) + lines[..., low + 1] * part


def cost_of_a_projection(side: int, repeats: int) -> dict[str, Any]:
    """Adding projections on one core, in turn with the peer."""
    rng = np.random.default_rng(0)
    projections = rng.standard_normal((CHUNK, side, side)).astype(np.float32)
    angles = np.arange(1500) * 0.12
    own = OrthoSlices(side, side, angles, centre=side / 2)
    peer = Peer(side, side)
    own.add(projections[:1], 1499)
    pairs = []
    for number in range(repeats):
        mine = processor_ms(lambda n=number: own.add(projections, n * CHUNK)) / CHUNK
        theirs = processor_ms(lambda n=number: peer.add(projections[0], n))
        pairs.append((mine, theirs, theirs / mine))
    mine, theirs, ratio = np.median(pairs, axis=0)
    return {
        "ms_per_projection": round(float(mine), 2),
        "ms_per_projection_numpy": round(float(theirs), 1),
        "numpy_over_own": round(float(ratio), 1),
        "projections_per_s_on_one_core": round(1e3 / float(mine)),
        "snapshot_ms": round(processor_ms(own.snapshot), 1),
    }


def cost_of_the_window(side: int, turns: int) -> dict[str, Any]:
    """The same with a window: all of it, and the longest step."""
    rng = np.random.default_rng(0)
    projections = rng.standard_normal((8, side, side)).astype(np.float32)
    window = SlidingOrthoSlices(side, side, centre=side / 2)
    steps, per_turn = [], 360
    for first in range(0, turns * per_turn + 8, 8):
        angles = (first + np.arange(8)) * (180 / per_turn)
        steps.append(processor_ms(lambda a=angles: window.add(projections, a)) / 8)
    settled = steps[per_turn // 8 :]
    return {
        "window_ms_per_projection": round(float(np.mean(settled)), 2),
        "window_longest_step_ms": round(8 * max(settled), 1),
        "window_snapshot_ms": round(processor_ms(window.snapshot), 1),
        "window_megabytes": round(SlidingOrthoSlices.required_bytes(side, side) / 1e6),
    }


class Told:
    """Nobody is told."""

    def stage(self, *_: Any) -> None:
        """Not used."""

    def message(self, *_: Any) -> None:
        """Not needed."""


def the_whole_way(side: int, frames_per_s: float, chunks: int) -> dict[str, Any]:
    """Chunks at a pace into the slices, and views out at a PV Access client."""
    forgo_real_time()
    from p4p.client.thread import Context
    from p4p.server import StaticProvider

    from apsber_bluesky.streaming._live_slices_pvs import LiveSlicePvs
    from apsber_bluesky.streaming._monitor_pvs import serve_here, server_port

    scan = TomographyScan(
        num_projections=chunks * CHUNK,
        rows=side,
        columns=side,
        dtype="<u2",
        exposure_s=1 / frames_per_s,
    )
    settings = ProcessingSettings.model_validate({"live_slices": {"hz": 20}})
    publisher = SlicePublisher()
    live = LiveSlices(settings, publisher.show, Told())
    pvs, provider = LiveSlicePvs("B:", publisher.address), StaticProvider("live")
    pvs.add_to(provider)
    server = serve_here(provider, 0)
    pvs.start()
    seen: list[tuple[float, int, int, int]] = []
    complete = threading.Event()

    def look(image: Any) -> None:
        now, used = time.monotonic(), int(image.raw.uniqueId)
        binning = int(image.attrib.get("Binning", 0))
        seen.append((now, used, binning, int(image.attrib.get("Dropped", 0))))
        if used + seen[-1][3] == scan.num_projections:
            complete.set()

    conf = {
        "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{server_port(server)}",
        "EPICS_PVA_ADDR_LIST": "",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }
    projections = np.random.default_rng(0).random((CHUNK, side, side), dtype=np.float32)
    with Context("pva", conf=conf, useenv=False) as client:
        # YZ is posted last of the three.
        client.monitor("B:Live:YZ", look)
        live.begin_run(RunDescription(uid="benchmark", scan=scan))
        began = time.monotonic()
        for number in range(chunks):
            due = began + (number + 1) * CHUNK / frames_per_s
            time.sleep(max(0.0, due - time.monotonic()))
            last = time.monotonic()
            live.add("benchmark", projections, number * CHUNK)
        live.frames_over("benchmark")
        complete.wait(60)
    live.close()
    pvs.close()
    server.stop()
    publisher.close()
    if not complete.is_set():
        raise RuntimeError("the client never saw the last projection")
    views = [view for view in seen if view[1] > 0]
    span = views[-1][0] - views[0][0]
    return {
        "frames_per_s": frames_per_s,
        "binning": views[-1][2],
        "left_out": views[-1][3],
        "last_projection_to_client_s": round(views[-1][0] - last, 3),
        "views_per_s": round((len(views) - 1) / span, 1) if span else 0.0,
    }


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "")
    side, repeats, turns, chunks = (256, 5, 2, 8) if options.quick else (1024, 9, 2, 24)
    figures: dict[str, Any] = {"side": side, **cost_of_a_projection(side, repeats)}
    figures |= cost_of_the_window(min(side, 512), turns)
    figures |= {f"at_pace_{k}": v for k, v in the_whole_way(side, 50.0, chunks).items()}
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
