"""Ten thousand images of a Jungfrau of four modules, one socket each: none lost, none twice.

``python benchmarks/jungfrau.py [--quick] [--json]``
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from multiprocessing.connection import Connection

import numpy as np
import xxhash
import zmq
from _common import arguments, report

from apsber_bluesky.processing import JungfrauConverter
from apsber_bluesky.simulation import ModuleFaults, SlsReceiver, StreamFaults
from apsber_bluesky.streaming import Frame, JungfrauReader, SeriesEnd, SeriesStart

GRID, MODULE = (2, 2), (32, 128)
SHAPE = (GRID[0] * MODULE[0], GRID[1] * MODULE[1])
BATCH = 500


def images(first: int, count: int) -> np.ndarray:
    """Raw images, each unlike all others."""
    numbers = np.arange(first, first + count, dtype=np.uint32)[:, None, None]
    pixels = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint32).reshape(SHAPE)
    return ((numbers * 2654435761 + pixels * 40503) >> 7).astype("<u2")


def emulate(frames: int, parent: Connection) -> None:
    """The four slsReceivers, in a process of their own; one lags behind the others."""
    # Nothing is dropped at either end; what waits is bounded by the images of the run.
    source = SlsReceiver(grid=GRID, module_shape=MODULE, high_water_mark=0)
    parent.send(list(source.addresses.values()))
    source.wait_for_subscribers()
    for first in range(0, frames, BATCH):
        source.send(
            images(first, min(BATCH, frames - first)),
            first_frame=first + 1,
            faults=StreamFaults(missing_end=True),
            module_faults=ModuleFaults(lag={(1, 0): 20}),
            header_changes={"fileIndex": "1"},
        )
    source.send_end()
    parent.recv()
    source.close()


def receive(frames: int) -> dict[str, object]:
    """Read the stream of another process, and count what came."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=emulate, args=(frames, theirs))
    process.start()
    context, poller, sockets = zmq.Context(), zmq.Poller(), []
    for address in ours.recv():
        socket = context.socket(zmq.SUB)
        socket.rcvhwm = 0
        socket.subscribe(b"")
        socket.connect(address)
        poller.register(socket, zmq.POLLIN)
        sockets.append(socket)
    reader = JungfrauReader(SeriesStart(1, frames, *SHAPE, "<u2"), grid=GRID, sources=len(sockets))
    checksums, twice, ended, began = {}, 0, False, 0.0
    while not ended:
        for socket, _ in poller.poll():
            for message in reader.read(
                [part.buffer for part in socket.recv_multipart(copy=False)], sockets.index(socket)
            ):
                began = began or time.perf_counter()
                ended = ended or isinstance(message, SeriesEnd)
                if isinstance(message, Frame):
                    twice += message.number in checksums
                    checksums[message.number] = message.checksum
    seconds = time.perf_counter() - began
    ours.send("over")
    process.join()
    context.destroy(0)
    wrong = sum(
        checksums.get(first + k) not in (None, xxhash.xxh3_64_intdigest(image.tobytes()))
        for first in range(0, frames, BATCH)
        for k, image in enumerate(images(first, min(BATCH, frames - first)))
    )
    return {
        "frames": frames,
        "modules": len(sockets),
        "lost": frames - len(checksums),
        "incomplete": len(reader.incomplete),
        "duplicated": twice,
        "with_wrong_pixels": wrong,
        "refused_parts": reader.counts.total(),
        "frames_per_second": round(frames / seconds),
        "parts_per_second": round(frames * len(sockets) / seconds),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def convert_ms(switched: float, repeats: int) -> float:
    """Best time to convert one module of 512 x 1024 pixels to energy [ms], in chunks of 32."""
    rng = np.random.default_rng(1)
    shape = (3, 512, 1024)
    pedestal = rng.normal([[[3000]], [[14000]], [[14500]]], 50, shape).astype(np.float32)
    gain = rng.normal([[[40]], [[-1.5]], [[-0.1]]], 0.01, shape).astype(np.float32)
    raw = rng.normal(3500, 100, (32, *shape[1:])).astype("<u2")
    raw[rng.random(raw.shape) < switched] = 13000 | 1 << 14
    converter, best = JungfrauConverter(pedestal, gain), float("inf")
    out = np.zeros(raw.shape, np.float32)
    for _ in range(repeats):
        began = time.perf_counter()
        converter(raw, out)
        best = min(best, time.perf_counter() - began)
    return round(best / len(raw) * 1e3, 3)


def main() -> None:
    """Receive, then convert."""
    options = arguments(__doc__ or "")
    figures = receive(1000 if options.quick else 10_000)
    repeats = 3 if options.quick else 10
    for per_mille in (0, 1, 20):
        key = f"energy_ms_per_module_{per_mille}_per_mille_switched"
        figures[key] = convert_ms(per_mille / 1000, repeats)
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
