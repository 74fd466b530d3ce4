"""Ten thousand frames of each source, to disk and to a consumer: none lost, none twice, none wrong.

``python benchmarks/lossless.py [--source NAME] [--frames N] [--quick] [--json] [--folder DIR]``

Emulator, relay (of PV Access), receiver and consumer are processes of their own. The consumer reads
every frame from ring or file while it comes and compares it with what was sent; then it reads all
of them from the file. ``slow-consumer`` reads at a third of the source's rate from a ring of 16
frames. The exit status is 1 if a frame was lost, came twice or differs, or if a source that must
not wait had to.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any

import numpy as np
from _common import report
from _detectors import (
    GRID,
    Detector,
    Vortex,
    emulate_eiger,
    emulate_jungfrau,
    emulate_pva,
    emulate_suite,
)

from apsber_bluesky.core import FrameRange, SeriesBooks, SeriesRequest, StreamingSettings
from apsber_bluesky.session import ServiceProcess
from apsber_bluesky.streaming import (
    FrameRing,
    Inbox,
    ReceiverClient,
    RingOrFileSource,
    audit_spool,
    create_ring_memory,
    path_of_uri,
)

CHUNK = 16
SILENCE_S = 30.0
SLOW_FRAMES = 3000
PVA_QUEUE = 1024


@dataclass(frozen=True)
class Trial:
    """A detector, and how its frames are read.

    Attributes
    ----------
    detector : Detector
        The source.
    ring_frames : int
        Frames that the ring holds; with those of 64 KiB, a quarter of the usual one.
    consumer_hz : float or None
        Frames per second that the consumer takes; None takes them as they come.
    """

    detector: Detector
    ring_frames: int = 512
    consumer_hz: float | None = None


def _eiger(version: int, codec: str) -> Detector:
    return Detector(emulate_eiger, {"format": f"eiger{version}", "codec": codec}, rate_hz=500)


SOURCES = {
    "eiger2-bslz4": Trial(_eiger(2, "bslz4")),
    "eiger2-lz4": Trial(_eiger(2, "lz4")),
    "eiger1-bslz4": Trial(_eiger(1, "bslz4")),
    "eiger1-lz4": Trial(_eiger(1, "lz4")),
    "jungfrau": Trial(
        Detector(emulate_jungfrau, {"format": "jungfrau", "module_grid": GRID}, rate_hz=500)
    ),
    "pva": Trial(Detector(emulate_pva, rate_hz=400, channel="LOSSLESS:Image", first_id=78)),
    "xspress3": Trial(
        Vortex(emulate_pva, {}, 2, 4096, "<u4", rate_hz=400, channel="LOSSLESS:Spectra")
    ),
    "apsber": Trial(Detector(emulate_suite, rows=256, columns=512)),
    "slow-consumer": Trial(
        Detector(emulate_suite, rows=256, columns=512, rate_hz=300), 16, consumer_hz=100
    ),
    "slow-consumer-eiger2": Trial(replace(_eiger(2, "bslz4"), rate_hz=300), 16, consumer_hz=100),
}


# -- processes


@contextlib.contextmanager
def process(target: Callable[..., None], *words: Any) -> Iterator[Connection]:
    """A process that ends when it is told that it is over."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=target, args=(theirs, *words), daemon=True)
    child.start()
    # Else nobody would notice that it has ended.
    theirs.close()
    try:
        yield ours
        ours.send("over")
        child.join(60)
    finally:
        child.kill()
        child.join()


def relay(pipe: Connection, detector: Detector, count: int, configuration: dict[str, str]) -> None:
    """Send what comes over PV Access on as the suite's frames."""
    from apsber_bluesky.streaming import NtndarrayReader, Relay

    running = Relay(
        detector.channel,
        "tcp://127.0.0.1:*",
        reader=NtndarrayReader(1, count, first_id=detector.first_id),
        num_frames=count,
        queue_size=PVA_QUEUE,
        configuration=configuration,
    )
    pipe.send(running.address)
    books = running.run(lambda: False, on_ready=lambda: pipe.send("ready"))
    pipe.send(books.to_dict())
    pipe.recv()
    running.close()


def consume(
    pipe: Connection, trial: Trial, request: SeriesRequest, control: str, uri: str, dataset: str
) -> None:
    """Read every frame when it is there, at most so many per second, and compare it."""
    memory = recv_handle(pipe)
    ring = FrameRing(memory)
    os.close(memory)
    client = ReceiverClient(control, timeout_s=60)
    source, count = RingOrFileSource(ring), request.num_frames
    wanted = trial.detector.frames(count)
    wrong: list[int] = []
    pipe.send("ready")
    done, began = 0, 0.0
    while done < count:
        stop = min(client.written(request.run_uid, "primary"), done + CHUNK, count)
        if stop <= done:
            time.sleep(2e-3)
            continue
        began = began or time.perf_counter()
        frames = FrameRange(request.run_uid, "primary", done, stop, uri, dataset)
        with source.borrow(frames) as got:
            wrong += _different(got, wanted, done)
        done = stop
        if trial.consumer_hz is not None:
            time.sleep(max(0.0, began + done / trial.consumer_hz - time.perf_counter()))
    seconds = time.perf_counter() - began
    pipe.send((wrong, source.from_ring, source.from_file, seconds))
    pipe.recv()
    source.close()
    pipe.send(_read_disk(request, wanted, uri, dataset))
    pipe.recv()
    client.close()
    ring.close()


def _different(got: np.ndarray, wanted: Any, first: int) -> list[int]:
    """Frames that are not those of these numbers; integers that are equal have equal bytes."""
    assert got.dtype == wanted[first].dtype, got.dtype
    return [
        first + k for k, frame in enumerate(got) if not np.array_equal(frame, wanted[first + k])
    ]


def _read_disk(
    request: SeriesRequest, wanted: Any, uri: str, dataset: str
) -> tuple[list[int], list[int]]:
    """Frames that the file does not hold, and those that are not in it as they were sent."""
    whole = audit_spool(path_of_uri(uri))["primary"]
    source, different = RingOrFileSource(), []
    for first in range(0, request.num_frames, CHUNK):
        stop = min(first + CHUNK, request.num_frames)
        frames = FrameRange(request.run_uid, "primary", first, stop, uri, dataset)
        different += _different(source.read(frames), wanted, first)
    source.close()
    return np.flatnonzero(~whole[: request.num_frames]).tolist(), different


class Memory:
    """What a process has in memory [MB]; ``own`` is without what is shared: ring and libraries."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._over = threading.Event()
        self.start, self.start_own = self._read("VmRSS"), self._read("RssAnon")
        self.peak_own, self.peak, self.end = self.start_own, self.start, self.start
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _read(self, key: str) -> int:
        for line in self._status.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return round(int(line.split()[1]) / 1e3)
        raise ValueError(f"no {key} in {self._status}")

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.peak_own = max(self.peak_own, self._read("RssAnon"))

    def close(self) -> None:
        """Ask no more."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self.peak, self.end = self._read("VmHWM"), self._read("VmRSS")

    def figures(self) -> dict[str, int]:
        """The figures of a process that is over."""
        return {
            "receiver_mb_start": self.start,
            "receiver_mb_peak": self.peak,
            "receiver_mb_end": self.end,
            "receiver_own_mb_start": self.start_own,
            "receiver_own_mb_peak": self.peak_own,
        }


# -- one trial


def try_one(trial: Trial, count: int, folder: Path) -> dict[str, Any]:
    """Send frames all the way, and tell what became of them."""
    detector = trial.detector
    request = SeriesRequest(
        str(uuid.uuid4()), "primary", count, detector.rows, detector.columns, detector.dtype
    )
    with contextlib.ExitStack() as stack:
        emulator = stack.enter_context(process(detector.emulate, detector, count))
        address, relayed = emulator.recv(), None
        if detector.channel:
            relayed = stack.enter_context(process(relay, detector, count, address))
            address = relayed.recv()
        ring = create_ring_memory(trial.ring_frames * request.frame_bytes)
        stack.callback(os.close, ring)
        receiver, control = _start_receiver(stack, detector, address, ring, folder)
        client = ReceiverClient(control, timeout_s=60)
        stack.callback(client.close)
        ticket = client.arm(request)
        consumer = stack.enter_context(
            process(consume, trial, request, control, ticket.uri, ticket.dataset)
        )
        send_handle(consumer, ring, 0)
        for other in (consumer, relayed):
            if other is not None:
                other.recv()
        memory = Memory(receiver.pid)
        stack.callback(memory.close)
        began = time.perf_counter()
        emulator.send(ticket.series)
        client.finish(request.run_uid, "primary", timeout_s=SILENCE_S)
        written_s = time.perf_counter() - began
        books = client.close_run(request.run_uid).streams["primary"]
        sent = emulator.recv()
        passed_on = relayed.recv() if relayed is not None else None
        read = consumer.recv()
        memory.close()
        consumer.send("closed")
        on_disk = consumer.recv()
    return _figures(count, sent, passed_on, books, read, on_disk) | {
        "frames_per_s": round(count / written_s, 1),
        "source_frames_per_s": round(count / sent["seconds"], 1),
        "consumer_frames_per_s": round(count / read[-1], 1),
        **memory.figures(),
    }


def _start_receiver(
    stack: contextlib.ExitStack, detector: Detector, address: str, ring: int, folder: Path
) -> tuple[ServiceProcess, str]:
    board = Inbox()
    stack.callback(board.close)
    settings = StreamingSettings(frame_address=address, **detector.settings)
    receiver = ServiceProcess(
        "receiver", ["apsber_bluesky.streaming"], folder / "receiver.log", [ring]
    )
    stack.callback(receiver.stop)
    receiver.configure(
        {
            "status_address": board.address,
            "frame_address": address,
            "data_root": str(folder / "data"),
            "ring_descriptor": ring,
            "streaming": settings.model_dump(mode="json"),
            "state_file": str(folder / "receiver.state"),
        }
    )
    return receiver, receiver.wait_ready(60)["control_address"]


def _figures(
    count: int,
    sent: dict[str, Any],
    passed_on: dict[str, Any] | None,
    books: SeriesBooks,
    read: tuple[list[int], int, int, float],
    on_disk: tuple[list[int], list[int]],
) -> dict[str, Any]:
    wrong, from_ring, from_file, _ = read
    (not_there, wrong_on_disk), named = on_disk, set(books.missing)
    figures = {
        "sent": sent["sent"],
        "written": books.written,
        "decoded_into_ring": books.decoded,
        "read_from_ring": from_ring,
        "read_from_file": from_file,
        "lost": count - books.written,
        "misnamed": len(named ^ set(not_there)),
        "duplicated": books.duplicated,
        "refused": books.refused,
        "wrong": len(set(wrong) - named),
        "wrong_on_disk": len(set(wrong_on_disk) - named),
        "source_waits": sent["waits"],
        "source_waited_s": round(sent["waited_s"], 3),
    }
    if passed_on is not None:
        figures["pva_lost"] = len(passed_on["missing"])
        figures["pva_dropped"] = passed_on["dropped"]
        figures["misnamed"] += len(set(passed_on["missing"]) - named)
    return figures


def is_lossless(trial: Trial, count: int, figures: dict[str, Any]) -> bool:
    """Whether every frame that was sent is everywhere once, and the source did not wait."""
    faults = ("lost", "misnamed", "duplicated", "refused", "wrong", "wrong_on_disk")
    may_wait = trial.consumer_hz is None
    return (
        figures["sent"] == figures["written"] == count
        and figures["read_from_ring"] + figures["read_from_file"] == count
        and not any(figures[fault] for fault in faults)
        and (may_wait or not figures["source_waits"])
    )


def main() -> int:
    """Try one source after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", choices=SOURCES, help="only this one")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="1000 frames, for a first look")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--folder", type=Path, default=None, help="where the spool is written")
    options = parser.parse_args()
    frames = 1000 if options.quick else options.frames
    figures, good = {}, True
    for name in [options.source] if options.source else SOURCES:
        trial = SOURCES[name]
        count = frames if trial.consumer_hz is None else min(frames, SLOW_FRAMES)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures[name] = try_one(trial, count, Path(folder))
        good = good and is_lossless(trial, count, figures[name])
        if not options.json:
            print(name, *(f"{key}={value}" for key, value in figures[name].items()), flush=True)
    report(
        {"lossless": good} | ({"sources": figures} if options.json else {}), as_json=options.json
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
