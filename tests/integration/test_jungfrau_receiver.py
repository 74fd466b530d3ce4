"""A Jungfrau of four modules, one socket each, through the receiver to disk, books and energy."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apsber_bluesky.core import FrameRange, SeriesBooks, SeriesRequest, StreamingSettings
from apsber_bluesky.processing import JungfrauConverter
from apsber_bluesky.simulation import ModuleFaults, SlsReceiver, StreamFaults, jungfrau_raw
from apsber_bluesky.streaming import (
    FrameRing,
    Receiver,
    ReceiverClient,
    RingOrFileSource,
    create_ring_memory,
)

FRAMES, GRID, MODULE = 80, (2, 2), (16, 1024)
ROWS, COLUMNS = GRID[0] * MODULE[0], GRID[1] * MODULE[1]


@dataclass
class Scan:
    """A series of frames from four modules, and what became of it."""

    detector: SlsReceiver
    client: ReceiverClient
    source: RingOrFileSource
    uri: str
    dataset: str
    uid: str

    def finish(self, timeout_s: float = 3.0) -> SeriesBooks:
        self.client.finish(self.uid, "primary", timeout_s=timeout_s)
        return self.client.close_run(self.uid).streams["primary"]

    def read(self) -> np.ndarray:
        """All frames, as a consumer gets them."""
        return self.source.read(FrameRange(self.uid, "primary", 0, FRAMES, self.uri, self.dataset))


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., Any]:
    @contextmanager
    def scan(addresses: Callable[[list[str]], list[str]] = list) -> Iterator[Scan]:
        detector = SlsReceiver(grid=GRID, module_shape=MODULE)
        address = ",".join(addresses(list(detector.addresses.values())))
        memory = create_ring_memory(1 << 20)
        ring = FrameRing(memory)
        os.close(memory)
        settings = StreamingSettings(format="jungfrau", module_grid=GRID, frame_address=address)
        receiver = Receiver(address, tmp_path, ring, settings=settings)
        stop = threading.Event()
        thread = threading.Thread(target=receiver.serve, args=(stop.is_set,))
        thread.start()
        client = ReceiverClient(receiver.control_address)
        source = RingOrFileSource(ring)
        try:
            uid = str(uuid.uuid4())
            ticket = client.arm(SeriesRequest(uid, "primary", FRAMES, ROWS, COLUMNS, "<u2"))
            yield Scan(detector, client, source, ticket.uri, ticket.dataset, uid)
        finally:
            source.close()
            client.close()
            stop.set()
            thread.join()
            receiver.close()
            ring.close()
            detector.close()

    return scan


def images(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(3000, (FRAMES, ROWS, COLUMNS)).astype("<u2")


def without(frames: np.ndarray, frame: int, place: tuple[int, int]) -> None:
    """Zero what a module saw of a frame."""
    rows, columns = MODULE
    top, left = place[0] * rows, place[1] * columns
    frames[frame, top : top + rows, left : left + columns] = 0


def test_whatever_goes_wrong_with_modules_every_frame_is_on_disk_or_named(scan):
    frames = images()
    expected = frames.copy()
    faults = StreamFaults(drop=frozenset({30}), duplicate=frozenset({31}), truncate=frozenset({32}))
    down = {(0, 1): (50, 58)}
    with scan() as run:
        run.detector.wait_for_subscribers()
        run.detector.send(
            frames,
            faults=faults,
            lost_packets={(4, 1, 1): 2, (5, 0, 0): 1},
            lost_modules=frozenset({(11, 1, 0), (12, 1, 0), (12, 0, 1), (FRAMES - 1, 1, 1)}),
            module_faults=ModuleFaults(lag={(1, 0): 9}, down=down),
        )
        books = run.finish()
        got = run.read()
    # A packet has four rows, and the last ones of a module's image were lost.
    expected[4, 24:, 1024:] = expected[5, 12:16, :1024] = 0
    for frame, place in [(11, (1, 0)), (12, (1, 0)), (12, (0, 1)), (FRAMES - 1, (1, 1))]:
        without(expected, frame, place)
    for frame in range(*down[0, 1]):
        without(expected, frame, (0, 1))
    expected[[30, 32]] = 0
    assert books.missing == [30, 32]
    assert books.incomplete == [4, 5, 11, 12, *range(50, 58), FRAMES - 1]
    assert books.written == FRAMES - 2
    assert not books.complete
    np.testing.assert_array_equal(got, expected)


def test_a_module_that_is_dead_holds_nobody_up(scan):
    frames = images()
    with scan() as run:
        run.detector.wait_for_subscribers()
        dead = ModuleFaults(down={(1, 1): (0, FRAMES)})
        run.detector.send(frames, module_faults=dead)
        books = run.finish()
        got = run.read()
    for frame in range(FRAMES):
        without(frames, frame, (1, 1))
    assert (books.written, books.missing) == (FRAMES, [])
    assert books.incomplete == list(range(FRAMES))
    np.testing.assert_array_equal(got, frames)


def test_a_lost_end_loses_no_image_that_waits_for_a_part(scan):
    frames = images()
    with scan() as run:
        run.detector.wait_for_subscribers()
        run.detector.send(
            frames,
            faults=StreamFaults(missing_end=True),
            lost_modules=frozenset({(FRAMES - 1, 0, 0)}),
        )
        books = run.finish(timeout_s=0.5)
        got = run.read()
    without(frames, FRAMES - 1, (0, 0))
    assert (books.missing, books.incomplete) == ([], [FRAMES - 1])
    np.testing.assert_array_equal(got, frames)


def test_one_slsreceiver_named_twice_is_said_and_its_pixels_are_not_mixed(scan, caplog):
    frames = images()
    with scan(lambda addresses: [*addresses[:3], addresses[0]]) as run:
        for place in [(0, 0), (0, 0), (0, 1), (1, 0)]:
            run.detector._wait_for_subscriber(place)
        run.detector.send(frames)
        books = run.finish(timeout_s=0.5)
        got = run.read()
    for frame in range(FRAMES):
        without(frames, frame, (1, 1))
    assert "both send module (0, 0); does streaming.frame_address name one" in caplog.text
    assert books.incomplete == list(range(FRAMES))
    assert books.refused == FRAMES
    np.testing.assert_array_equal(got, frames)


def test_a_receiver_that_thins_out_its_images_is_said_with_what_to_set(scan, caplog):
    with scan() as run:
        run.detector.wait_for_subscribers()
        run.detector.send(images(), every=4)
        books = run.finish(timeout_s=0.5)
    assert books.missing == [n for n in range(FRAMES) if n % 4 != 3]
    assert caplog.text.count("set rx_zmqfreq to 1 at its slsReceiver") == 1
    assert "one image in 4" in caplog.text


def test_energies_are_those_that_were_put_in_within_half_a_step_of_the_adc(scan):
    rng = np.random.default_rng(5)
    shape = (3, ROWS, COLUMNS)
    pedestal = rng.normal([[[3000]], [[14000]], [[14500]]], 50, shape).astype(np.float32)
    gain = rng.normal([[[40]], [[-1.5]], [[-0.1]]], [[[1]], [[0.05]], [[0.004]]], shape)
    gain = gain.astype(np.float32)
    energies = (
        rng.exponential(1, (FRAMES, ROWS, COLUMNS)) * rng.choice([8, 100, 5000], ROWS)[:, None]
    )
    raw = jungfrau_raw(energies, pedestal, gain)
    with scan() as run:
        run.detector.wait_for_subscribers()
        run.detector.send(raw)
        books = run.finish()
        got = run.read()
    assert books.complete
    converter = JungfrauConverter(pedestal, gain)
    found = converter(got)
    stage = np.choose(raw >> 14, [0, 1, 2, 2])
    assert set(np.unique(stage)) == {0, 1, 2}
    step = np.take_along_axis(1 / np.abs(gain), stage.reshape(-1, ROWS, COLUMNS)[:, :, :], axis=0)
    # Beside the half step there is the rounding of float32.
    assert (np.abs(found - energies) <= 0.5 * step + 1e-5 * energies + 1e-4).all()
    assert (converter.invalid_pixels, converter.uncalibrated_pixels) == (0, 0)
