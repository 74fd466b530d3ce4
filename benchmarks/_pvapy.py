"""pvapy's consumer, to compare with: an NTNDArray channel, and a client that takes what comes."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

CHANNEL = "BENCHMARK:Image"
# Objects that the client may keep waiting; what comes beyond them is lost, as it is in PV Access.
QUEUE = 32
_PATIENCE_S = 30.0


def is_there() -> bool:
    """Whether pvapy is installed."""
    return importlib.util.find_spec("pvapy") is not None


def pvapy_rate(count: int, frames: list[Any]) -> float:
    """Frames per second that its client is given by its server, which posts as fast as it can."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    # Both processes find each other on this computer only, and nobody else finds them.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = spawn.Process(target=_serve, args=(there, port, frames), daemon=True)
    server.start()
    here.recv()
    ours, theirs = spawn.Pipe()
    client = spawn.Process(target=_consume, args=(theirs, port, count), daemon=True)
    client.start()
    try:
        if not ours.poll(60 + _PATIENCE_S):
            raise RuntimeError("pvapy's client got no frames")
        return float(ours.recv())
    finally:
        for process in (client, server):
            process.kill()
            process.join()


def _configure(port: str) -> None:
    os.environ |= {
        "EPICS_PVA_ADDR_LIST": "127.0.0.1",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_BROADCAST_PORT": port,
        "EPICS_PVAS_BROADCAST_PORT": port,
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_SERVER_PORT": "0",
    }


def _serve(pipe: Connection, port: str, frames: list[Any]) -> None:
    _configure(port)
    import pvaccess
    from pvapy.utility.adImageUtility import AdImageUtility

    # Made before, as its simulated areaDetector does.
    images = [AdImageUtility.generateNtNdArray2D(0, frame) for frame in frames]
    server = pvaccess.PvaServer(CHANNEL, images[0])
    pipe.send("ready")
    number = 0
    while True:
        number += 1
        image = images[number % len(images)]
        image["uniqueId"] = number
        server.update(CHANNEL, image)


def _consume(pipe: Connection, port: str, count: int) -> None:
    _configure(port)
    import pvaccess

    channel, queue = pvaccess.Channel(CHANNEL), pvaccess.PvObjectQueue(QUEUE)
    channel.qMonitor(queue, "field()")
    began, last = 0.0, -1
    for _ in range(count + 1):
        image = queue.get(_PATIENCE_S)
        # The pixels as an array, which a consumer needs at the least.
        pixels = image["value"][0]["ushortValue"]
        assert pixels.size
        began = began or time.perf_counter()
        # One that a post overwrote in the queue must not count as two.
        assert image["uniqueId"] > last
        last = image["uniqueId"]
    pipe.send(count / (time.perf_counter() - began))
