"""What receiving without loss costs, against bare ZMQ, memory and disk in the same run.

``python benchmarks/streaming.py [--quick] [--json] [--folder DIR]``

Frames are 2048 x 2048 uint16 over loopback TCP, from a process of their own:

- ``receive_ratio``: receiver with checksum, spool and ring, against PUSH/PULL that drops frames;
- ``ring_ratio``: handing a frame to the ring, against copying it with NumPy;
- ``spool_ratio``: storing frames that came compressed (bslz4), against write(2) of the same bytes;
- ``pvapy_ratio``: the receiver, against pvapy's consumer where pvapy is installed; that one is
  given what PV Access did not lose, and stores nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import _pvapy
import numpy as np
import xxhash
import zmq
from _common import report

from apsber_bluesky.core import DEFAULT_PROPOSAL, SeriesRequest, StreamingSettings
from apsber_bluesky.streaming import (
    FrameRing,
    Receiver,
    ReceiverClient,
    create_ring_memory,
)
from apsber_bluesky.streaming import _wire as wire
from apsber_bluesky.streaming._codecs import encode
from apsber_bluesky.streaming._message_memory import keep_message_memory
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart
from apsber_bluesky.streaming._spool import Spool

SIDE = 2048
FRAME_BYTES = SIDE * SIDE * 2
HIGH_WATER_MARK = 8


def frames() -> list[np.ndarray]:
    """Frames of a tomography scan: about 200 counts in each pixel."""
    rng = np.random.default_rng(1)
    return [rng.poisson(200, (SIDE, SIDE)).astype("<u2") for _ in range(4)]


def push(address: Any, count: int) -> None:
    """Send frames as fast as they are taken."""
    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.sndhwm = HIGH_WATER_MARK
    address.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    source = frames()
    for number in range(count):
        socket.send(b"header", zmq.SNDMORE)
        socket.send(source[number % len(source)], copy=False)
    address.recv()


def publish(address: Any, count: int) -> None:
    """Send frames as fast as they are taken, with the suite's protocol; headers are made before."""
    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.sndhwm = HIGH_WATER_MARK
    source = [frame.data.cast("B") for frame in frames()]
    address.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    series = address.recv()
    headers = [
        wire.pack_frame_header(series, number, 0.0, None, source[number % len(source)])
        for number in range(count)
    ]
    socket.send_multipart(wire.pack_start(SeriesStart(series, count, SIDE, SIDE, "<u2")))
    for number, header in enumerate(headers):
        socket.send_multipart([header, source[number % len(source)]], copy=False)
    socket.send_multipart(wire.pack_end(SeriesEnd(series, count)))
    address.recv()


def bare_rate(count: int) -> float:
    """Frames per second through PUSH/PULL."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=push, args=(there, count))
    process.start()
    socket = zmq.Context.instance().socket(zmq.PULL)
    socket.rcvhwm = HIGH_WATER_MARK
    socket.connect(here.recv())
    socket.recv_multipart(copy=False)
    began = time.perf_counter()
    for _ in range(count - 1):
        socket.recv_multipart(copy=False)
    rate = (count - 1) / (time.perf_counter() - began)
    socket.close(0)
    here.send("done")
    process.join()
    return rate


def receiver_rate(count: int, folder: Path) -> float:
    """Frames per second through the receiver to spool and ring; every frame must be there."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=publish, args=(there, count))
    process.start()
    memory = create_ring_memory(16 * FRAME_BYTES)
    ring = FrameRing(memory)
    ring.touch()
    settings = StreamingSettings(high_water_mark=HIGH_WATER_MARK)
    times: list[float] = []
    receiver = Receiver(
        here.recv(),
        folder,
        ring,
        settings=settings,
        report=lambda *_: times.append(time.perf_counter()),
    )
    stop = threading.Event()
    thread = threading.Thread(target=receiver.serve, args=(stop.is_set,))
    thread.start()
    client = ReceiverClient(receiver.control_address, timeout_s=60)
    request = SeriesRequest(str(uuid.uuid4()), "primary", count, SIDE, SIDE, "<u2")
    warm_up(folder, count * FRAME_BYTES)
    here.send(client.arm(request).series)
    client.finish(request.run_uid, "primary", timeout_s=60)
    books = client.close_run(request.run_uid)
    assert books.complete, books
    here.send("done")
    process.join()
    stop.set()
    thread.join()
    client.close()
    receiver.close()
    ring.close()
    os.close(memory)
    shutil.rmtree(folder / DEFAULT_PROPOSAL)
    # The first report comes with the first frames on disk; they are few against all.
    return count / (times[-1] - times[0]) if len(times) > 1 else float("nan")


def ring_ratio(rounds: int) -> float:
    """Rate of `FrameRing.put` over that of a copy into memory as large."""
    memory = create_ring_memory(32 * FRAME_BYTES)
    ring = FrameRing(memory)
    ring.touch()
    ring.shape_for(FRAME_BYTES)
    source = frames()
    target = np.ones((32, SIDE, SIDE), "<u2")
    ratios = []
    for turn in range(rounds):
        began = time.perf_counter()
        for number in range(64):
            np.copyto(target[number % 32], source[number % 4])
        copied = time.perf_counter()
        for number in range(64):
            sequence = 64 * turn + number
            ring.put(sequence, sequence + 1, source[number % 4].data.cast("B"))
        ratios.append((copied - began) / (time.perf_counter() - copied))
    ring.close()
    os.close(memory)
    return statistics.median(ratios)


def spool_ratio(count: int, folder: Path) -> float:
    """Rate of storing bslz4 frames over that of write(2) of the same bytes."""
    chunks = [encode(frame, "bslz4") for frame in frames()]
    views = [memoryview(chunk) for chunk in chunks]
    sums = [xxhash.xxh3_64_intdigest(chunk) for chunk in chunks]
    ratios = []
    for _ in range(3):
        warm_up(folder, count * len(chunks[0]))
        path = folder / f"{uuid.uuid4()}.bin"
        began = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for number in range(count):
                file.write(views[number % 4])
        plain = time.perf_counter() - began
        path.unlink()
        request = SeriesRequest(str(uuid.uuid4()), "primary", count, SIDE, SIDE, "<u2")
        spool = Spool(folder / f"{request.run_uid}.h5", request, codec="bslz4")
        spool.extend("primary", count)
        warm_up(folder, count * len(chunks[0]))
        began = time.perf_counter()
        for number in range(count):
            frame = Frame(1, number, 0.0, 0.0, sums[number % 4], views[number % 4], "bslz4")
            spool.write("primary", number, frame)
            if number % 16 == 15:
                spool.flush()
        spool.flush()
        ratios.append(plain / (time.perf_counter() - began))
        spool.close()
        spool.path.unlink()
    return statistics.median(ratios)


def warm_up(folder: Path, size: int) -> None:
    """Have the page cache use as much memory as a spool will.

    The host of a virtual machine gives it memory at the first touch, at a tenth of the speed of
    any later one, and takes back what is free for some seconds; that is no property of what is
    measured.
    """
    path = folder / "warm-up"
    block = bytes(1 << 24)
    with path.open("wb", buffering=0) as file:
        for _ in range(-(-size // len(block))):
            file.write(block)
    path.unlink()


def peer_figures(peers: list[tuple[float, float]]) -> dict[str, Any]:
    """Figures of the receiver's and pvapy's rates, if there are any."""
    if not peers:
        return {}
    return {
        "pvapy_frames_per_s": round(statistics.median(p[1] for p in peers), 1),
        "pvapy_ratio": round(statistics.median(p[0] / p[1] for p in peers), 3),
    }


def main() -> None:
    """Run each pair, and report rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, default=None, help="where the spool is written")
    options = parser.parse_args()
    # As the receiver's process does; here it serves the bare socket, too.
    keep_message_memory()
    count, rounds = (60, 1) if options.quick else (150, 7)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        warm_up(folder, 2 * count * FRAME_BYTES)
        peers, pairs = [], []
        for _ in range(rounds):
            pairs.append((receiver_rate(count, folder), bare_rate(count)))
            if _pvapy.is_there():
                peers.append((pairs[-1][0], _pvapy.pvapy_rate(count, frames())))
        spool = spool_ratio(count, folder)
    report(
        {
            "frames": count,
            "receiver_frames_per_s": round(statistics.median(p[0] for p in pairs), 1),
            "bare_frames_per_s": round(statistics.median(p[1] for p in pairs), 1),
            "receive_ratio": round(statistics.median(p[0] / p[1] for p in pairs), 3),
            "ring_ratio": round(ring_ratio(3 if options.quick else 7), 3),
            "spool_ratio": round(spool, 3),
            **peer_figures(peers),
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
