"""The fan-out against bare ZMQ: frames of 2048 x 2048 uint16 to a consumer in another process.

``python benchmarks/fan_out.py [--quick] [--json]``
"""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from _common import arguments, report

from apsber_bluesky.core import FrameRange, RunDescription, TomographyScan
from apsber_bluesky.streaming._authenticator import CurveAuthenticator
from apsber_bluesky.streaming._fan_out import FanOut
from apsber_bluesky.streaming._fan_out_client import ClientKeys, FanOutClient
from apsber_bluesky.streaming._keys import KeyPair, allow_key, allowed_folder, create_keys

SIDE = 2048
CREDIT = 8


def sources() -> list[np.ndarray]:
    """A few frames that are sent in turn, shape (1, SIDE, SIDE)."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 4000, (1, SIDE, SIDE), dtype="<u2") for _ in range(4)]


def pull(pipe: Connection, frames: int, address: str, keys: tuple[KeyPair, KeyPair] | None) -> None:
    """Receive as bare ZMQ can at best: straight into an array; tells the rate [frame/s]."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.rcvhwm = CREDIT
        if keys:
            socket.curve_serverkey = keys[1].public
            socket.curve_publickey, socket.curve_secretkey = keys[0].public, keys[0].secret
        socket.connect(address)
        slots = np.full((2, SIDE, SIDE), 0, "<u2")
        views = [memoryview(slot.reshape(-1).view(np.uint8)) for slot in slots]
        pipe.send("ready")
        began = 0.0
        for index in range(frames):
            socket.recv()
            socket.recv_into(views[index % 2])
            began = began or time.perf_counter()
        pipe.send((frames - 1) / (time.perf_counter() - began))


def consume(
    pipe: Connection, frames: int, address: str, keys: tuple[KeyPair, KeyPair] | None
) -> None:
    """Receive from a fan-out; tells the rate [frame/s]."""
    client_keys = ClientKeys(keys[0], keys[1].public) if keys else None
    with FanOutClient(address, "run", credit=CREDIT, keys=client_keys) as client:
        pipe.send("ready")
        began, count = 0.0, 0
        for _ in client:
            began = began or time.perf_counter()
            count += 1
        if count != frames:
            raise RuntimeError(f"{count} of {frames} frames came")
        pipe.send((frames - 1) / (time.perf_counter() - began))


@contextlib.contextmanager
def process(target: Callable[..., None], *words: Any) -> Iterator[Connection]:
    """A process that says when it is ready."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=target, args=(theirs, *words))
    child.start()
    try:
        ours.recv()
        yield ours
    finally:
        child.join(60)


def bare(frames: int, keys: tuple[KeyPair, KeyPair] | None) -> float:
    """Rate of PUSH/PULL [frame/s]."""
    data = sources()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        socket.sndhwm = CREDIT
        if keys:
            # A plain measurement on loopback; the suite itself has no CURVE without an allow list.
            socket.curve_server, socket.curve_secretkey = True, keys[1].secret
        socket.bind("tcp://127.0.0.1:*")
        address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        with process(pull, frames, address, keys) as child:
            for index in range(frames):
                socket.send(b"%d" % index, zmq.SNDMORE)
                socket.send(data[index % 4], copy=False)
            return float(child.recv())


def fan_out(frames: int, folder: Path, keys: tuple[KeyPair, KeyPair] | None) -> float:
    """Rate of `FanOut` to `FanOutClient` [frame/s]."""
    data = sources()
    scan = TomographyScan(
        num_projections=frames, rows=SIDE, columns=SIDE, dtype="<u2", exposure_s=0.01
    )
    with contextlib.ExitStack() as stack:
        authenticator = None
        if keys:
            authenticator = CurveAuthenticator(keys[1], allowed_folder(folder))
            stack.callback(authenticator.close)
        server = FanOut(
            lambda wanted: data[wanted.start % 4],
            missing=lambda _: [],
            authenticator=authenticator,
        )
        stack.callback(server.close)
        server.begin_run(RunDescription(uid="run", scan=scan))
        with process(consume, frames, server.address, keys) as child:
            server.frames(FrameRange("run", "primary", 0, frames, "file:///memory", "data"))
            server.end_run("run", "success", "")
            return float(child.recv())


def main() -> None:
    """Interleave the four, so that each pair saw the same machine."""
    options = arguments(__doc__ or "")
    frames, rounds = (60, 3) if options.quick else (200, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "keys"
        pairs = (create_keys(folder, "client"), create_keys(folder, "server"))
        allow_key(folder, folder / "client.key")
        plain, offered, plain_curve, offered_curve = zip(
            *(
                (
                    bare(frames, None),
                    fan_out(frames, folder, None),
                    bare(frames, pairs),
                    fan_out(frames, folder, pairs),
                )
                for _ in range(rounds)
            ),
            strict=True,
        )

    def ratio(upper: tuple[float, ...], lower: tuple[float, ...]) -> float:
        return round(statistics.median(a / b for a, b in zip(upper, lower, strict=True)), 3)

    report(
        {
            "frames": frames,
            "rounds": rounds,
            "push_pull_fps_median": round(statistics.median(plain), 1),
            "fan_out_fps_median": round(statistics.median(offered), 1),
            "push_pull_curve_fps_median": round(statistics.median(plain_curve), 1),
            "fan_out_curve_fps_median": round(statistics.median(offered_curve), 1),
            "fan_out_to_push_pull": ratio(offered, plain),
            "curve_cost_of_push_pull": ratio(plain, plain_curve),
            "curve_cost_of_fan_out": ratio(offered, offered_curve),
            "fan_out_to_push_pull_curve": ratio(offered_curve, plain_curve),
        },
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
