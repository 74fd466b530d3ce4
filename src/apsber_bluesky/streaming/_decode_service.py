"""A decode worker: reads compressed frames from the spool and puts them into the ring."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

import xxhash

from apsber_bluesky.core import ApsberError, FrameError, begin_service
from apsber_bluesky.streaming._codecs import decode
from apsber_bluesky.streaming._decode_jobs import (
    MAXIMUM_PACKET_BYTES,
    DecodeJob,
    pack_result,
    unpack_job,
)
from apsber_bluesky.streaming._ring import FrameRing

logger = logging.getLogger(__name__)

# It may not take the processor from the receiver, but goes before reconstruction.
_NICENESS: Final = 2
_OPEN_FILES: Final = 4
_POLL_S: Final = 0.5


class _SpoolFiles:
    """The last few spools, kept open, and a buffer for what is read from them."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, int] = OrderedDict()
        self._buffer = bytearray()

    def read(self, job: DecodeJob) -> memoryview:
        """The encoded bytes of a frame; valid until the next call."""
        if len(self._buffer) < job.size:
            self._buffer = bytearray(job.size)
        encoded = memoryview(self._buffer)[: job.size]
        count = os.preadv(self._file(job.path), [encoded], job.offset)
        if count != job.size:
            raise FrameError(f"{job.path} ends {job.size - count} bytes before the frame does")
        if xxhash.xxh3_64_intdigest(encoded) != job.checksum:
            raise FrameError(f"{job.size} bytes at {job.offset} of {job.path} are another frame's")
        return encoded

    def _file(self, path: Path) -> int:
        if path not in self._files:
            self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._files) > _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(path)
        return self._files[path]

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()


def _work(packet: bytes, files: _SpoolFiles, ring: FrameRing) -> bytes:
    """Do one job; the answer."""
    job, generation = unpack_job(packet)
    try:
        pixels = decode(
            files.read(job), job.codec, rows=job.rows, columns=job.columns, dtype=job.dtype
        )
    except (FrameError, OSError) as error:
        logger.warning("frame %x cannot be decoded: %s", job.tag, error)
        ring.forget(job.tag)
        return pack_result(job.tag, decoded=False)
    # Decoded first, so that the slot is locked, and its old frame gone, as shortly as can be.
    ring.put(job.sequence, job.tag, pixels.data.cast("B"), generation=generation)
    return pack_result(job.tag, decoded=True)


def _serve(jobs: socket.socket, ring: FrameRing, stop: threading.Event) -> None:
    files = _SpoolFiles()
    jobs.settimeout(_POLL_S)
    try:
        while not stop.is_set():
            try:
                packet = jobs.recv(MAXIMUM_PACKET_BYTES)
            except TimeoutError:
                continue
            if not packet:
                return
            jobs.sendall(_work(packet, files, ring))
    except (BrokenPipeError, ConnectionResetError):
        logger.info("nobody asks for frames any more")
    finally:
        files.close()


def main() -> int:
    """Serve until SIGTERM, or until nobody can ask any more.

    Standard input holds one JSON object: ``parent_pid``, ``ring_descriptor`` and
    ``jobs_descriptor``, a socket that keeps packets apart.
    """
    settings, stop = begin_service()
    os.nice(_NICENESS)
    try:
        ring = FrameRing(settings["ring_descriptor"])
    except ApsberError as error:
        print(json.dumps({"ready": False, "error": str(error)}), flush=True)  # noqa: T201
        return 1
    try:
        ring.touch()
        with socket.socket(fileno=settings["jobs_descriptor"]) as jobs:
            print(json.dumps({"ready": True}), flush=True)  # noqa: T201
            _serve(jobs, ring, stop)
    finally:
        ring.close()
    return 0
