"""Each detector's stream, as an emulator speaks it, through the receiver to spool and books."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    DEFAULT_PROPOSAL,
    FrameRange,
    RunFolder,
    SeriesBooks,
    SeriesRequest,
    SeriesTicket,
    StreamingSettings,
)
from apsber_bluesky.simulation import EigerDcu, EigerFault, EigerSeries, SlsReceiver, StreamFaults
from apsber_bluesky.streaming import (
    FrameRing,
    Receiver,
    ReceiverClient,
    RingOrFileSource,
    create_ring_memory,
)

ROWS, COLUMNS, FRAMES = 32, 48, 60


def images(seed: int = 1, count: int = FRAMES, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).poisson(40, (count, rows, COLUMNS)).astype("<u2")


@dataclass
class Reception:
    """A receiver at work, and what became of its one series."""

    client: ReceiverClient
    data_root: Path
    request: SeriesRequest
    ticket: SeriesTicket

    def finish(self, timeout_s: float = 2.0) -> SeriesBooks:
        self.client.finish(self.request.run_uid, "primary", timeout_s=timeout_s)
        return self.client.close_run(self.request.run_uid).streams["primary"]

    @property
    def raw(self) -> Path:
        return RunFolder.of(self.data_root, DEFAULT_PROPOSAL, self.request.run_uid).raw

    def read(self) -> np.ndarray:
        """All frames, as a consumer gets them."""
        source = RingOrFileSource()
        uri, dataset = self.ticket.uri, self.ticket.dataset
        try:
            return source.read(FrameRange(self.request.run_uid, "primary", 0, FRAMES, uri, dataset))
        finally:
            source.close()


@pytest.fixture
def receive(tmp_path: Path) -> Callable[..., Any]:
    @contextmanager
    def reception(address: str, rows: int = ROWS, **settings: Any) -> Iterator[Reception]:
        memory = create_ring_memory(1 << 20)
        ring = FrameRing(memory)
        os.close(memory)
        receiver = Receiver(address, tmp_path, ring, settings=StreamingSettings(**settings))
        stop = threading.Event()
        thread = threading.Thread(target=receiver.serve, args=(stop.is_set,))
        thread.start()
        client = ReceiverClient(receiver.control_address)
        request = SeriesRequest(str(uuid.uuid4()), "primary", FRAMES, rows, COLUMNS, "<u2")
        try:
            yield Reception(client, tmp_path, request, client.arm(request))
        finally:
            client.close()
            stop.set()
            thread.join()
            receiver.close()
            ring.close()

    return reception


@pytest.fixture(params=[2, 1], ids=["stream V2", "stream V1"])
def dcu(request: pytest.FixtureRequest) -> Iterator[tuple[EigerDcu, str]]:
    dcu = EigerDcu(request.param)
    yield dcu, f"eiger{request.param}"
    dcu.close()


@pytest.mark.parametrize("codec", ["none", "bslz4", "lz4"])
def test_an_eiger_is_stored_as_it_compressed_and_read_as_it_saw(receive, dcu, codec):
    detector, name = dcu
    frames = images()
    series = EigerSeries(7, FRAMES, ROWS, COLUMNS, codec=codec)
    with receive(detector.address, format=name, codec=codec) as reception:
        detector.send_series(series, [[frame] for frame in frames])
        books = reception.finish()
        np.testing.assert_array_equal(reception.read(), frames)
    assert (books.expected, books.written, books.refused, books.missing) == (FRAMES, FRAMES, 0, [])
    with h5py.File(reception.raw) as file:
        stored = file["entry/primary/data"].id.get_storage_size()
    assert (stored < frames.nbytes) is (codec != "none")


def test_both_thresholds_of_an_eiger_are_kept_apart(receive):
    low, high = images(1), images(2)
    series = EigerSeries(3, FRAMES, ROWS, COLUMNS, channels=("threshold_1", "threshold_2"))
    dcu = EigerDcu(2)
    with receive(dcu.address, format="eiger2", codec="bslz4", channels=2) as reception:
        dcu.send_series(series, list(zip(low, high, strict=True)))
        books = reception.finish()
    dcu.close()
    assert (books.written, books.missing) == (FRAMES, [])
    with h5py.File(reception.raw) as file:
        np.testing.assert_array_equal(file["entry/primary/data"][:], low)
        np.testing.assert_array_equal(file["entry/primary/data_2"][:], high)


@pytest.mark.parametrize(
    ("kind", "missing", "refused", "duplicated"),
    [
        ("drop", [20], 0, 0),
        ("duplicate", [], 0, 1),
        ("reorder", [], 0, 0),
        ("truncate", [20], 1, 0),
        ("wrong_dtype", [20], 1, 0),
        ("transposed", [20], 1, 0),
        ("missing_end", [], 0, 0),
    ],
)
def test_what_goes_wrong_at_an_eiger_is_in_the_books(
    receive, dcu, kind, missing, refused, duplicated
):
    detector, name = dcu
    frames = images()
    fault = EigerFault(kind, 20)
    with receive(detector.address, format=name, codec="bslz4") as reception:
        detector.send_series(
            EigerSeries(7, FRAMES, ROWS, COLUMNS), [[frame] for frame in frames], [fault]
        )
        books = reception.finish()
        got = reception.read()
    assert books.missing == missing
    assert (books.refused, books.duplicated) == (refused, duplicated)
    kept = [n for n in range(FRAMES) if n not in missing]
    np.testing.assert_array_equal(got[kept], frames[kept])


def test_an_eiger_that_compresses_otherwise_than_configured_is_refused(receive):
    dcu = EigerDcu(2)
    with receive(dcu.address, format="eiger2", codec="lz4") as reception:
        dcu.send_series(EigerSeries(7, FRAMES, ROWS, COLUMNS), [[frame] for frame in images()])
        books = reception.finish()
    dcu.close()
    assert (books.written, books.refused) == (0, FRAMES)


def test_a_jungfrau_of_two_modules_is_joined_by_frame_number(receive):
    frames = images(rows=2 * ROWS)
    detector = SlsReceiver(grid=(2, 1), module_shape=(ROWS, COLUMNS))
    addresses = ",".join(detector.addresses.values())
    lost = frozenset({(11, 1, 0)})
    with receive(addresses, rows=2 * ROWS, format="jungfrau", module_grid=(2, 1)) as reception:
        detector.wait_for_subscribers()
        detector.send(frames, faults=StreamFaults(drop=frozenset({30})), lost_modules=lost)
        books = reception.finish()
        got = reception.read()
    detector.close()
    assert (books.missing, books.incomplete) == ([30], [11])
    kept = [n for n in range(FRAMES) if n not in (11, 30)]
    np.testing.assert_array_equal(got[kept], frames[kept])
    np.testing.assert_array_equal(got[11, :ROWS], frames[11, :ROWS])
    assert not got[11, ROWS:].any()
