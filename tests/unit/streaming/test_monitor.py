"""Health and preview as PVs: a real receiver, a real PV Access server and client."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import numpy as np
import pytest

from apsber_bluesky.core import (
    ConfigurationError,
    SeriesRequest,
    StreamingLimits,
    StreamingSettings,
    forgo_real_time,
)
from apsber_bluesky.streaming import (
    FramePublisher,
    FrameRing,
    Inbox,
    Receiver,
    ReceiverClient,
    ReceiverHealth,
    create_ring_memory,
    find_warnings,
)

forgo_real_time()

from p4p.client.thread import Context, RemoteError  # noqa: E402
from p4p.server import StaticProvider  # noqa: E402

from apsber_bluesky.streaming._monitor import Monitor  # noqa: E402
from apsber_bluesky.streaming._monitor_pvs import (  # noqa: E402
    HEALTH_PVS,
    WARNINGS_SUFFIX,
    HealthPvs,
    PreviewPv,
    binning_for,
    serve_here,
    server_port,
)

ROWS, COLUMNS = 12, 17


def client_of(name_server):
    settings = {
        "EPICS_PVA_NAME_SERVERS": name_server,
        "EPICS_PVA_ADDR_LIST": "",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }
    return Context("pva", conf=settings, useenv=False)


def until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def prefix():
    return f"T{uuid.uuid4().hex[:8]}:"


@pytest.fixture
def closing():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def served(prefix, closing):
    """Health and preview on a server, and a client."""
    health, preview = HealthPvs(prefix), PreviewPv(f"{prefix}Preview:Image")
    provider = StaticProvider("test")
    health.add_to(provider)
    preview.add_to(provider)
    server = serve_here(provider, 0)
    closing.callback(server.stop)
    client = closing.enter_context(client_of(f"127.0.0.1:{server_port(server)}"))
    return health, preview, client


def test_every_number_of_the_health_is_a_pv_with_its_unit(served, prefix):
    health, _, client = served
    shown = ReceiverHealth(
        run_uid="run-1", stream="flats", armed=True, received=7, frame_rate_hz=12.5, newest=6
    )
    health.show(shown, [])
    for pv in HEALTH_PVS:
        value = client.get(f"{prefix}Health:{pv.suffix}", timeout=20)
        expected = getattr(shown, pv.field)
        assert value.raw.value == (float("inf") if expected is None else expected)
        assert (value.severity, value.raw.display.units) == (0, pv.units)
        assert value.raw.display.description
        assert abs(value.timestamp - time.time()) < 60
    shown_fields = {pv.field for pv in HEALTH_PVS}
    left_out = set(ReceiverHealth().to_dict()) - shown_fields
    assert left_out == {"newest", "rows", "columns", "dtype"}


def test_a_warning_puts_its_pv_into_alarm_and_clears_it_again(served, prefix):
    health, _, client = served
    behind = ReceiverHealth(ring_fill=0.9, spool_size_gb=10.0, spool_free_gb=9.0, failure="gone")
    health.show(behind, find_warnings(behind, StreamingLimits()))
    ring = client.get(f"{prefix}Health:RingFill_RBV", timeout=20)
    assert (float(ring), ring.severity) == (0.9, 1)
    assert "served from the spool" in ring.raw.alarm.message
    assert client.get(f"{prefix}Health:Failure_RBV").severity == 2
    assert client.get(f"{prefix}Health:SpoolFree_RBV").severity == 0
    said = client.get(f"{prefix}Health:{WARNINGS_SUFFIX}")
    assert (said[0], len(said), said.severity) == ("gone", 2, 2)
    health.show(ReceiverHealth(), [])
    assert client.get(f"{prefix}Health:RingFill_RBV").severity == 0
    assert client.get(f"{prefix}Health:{WARNINGS_SUFFIX}") == []


def test_values_of_a_receiver_that_is_lost_are_marked_invalid_and_kept(served, prefix):
    health, _, client = served
    before = client.get(f"{prefix}Health:Received_RBV", timeout=20)
    assert (before.severity, before.raw.alarm.message) == (3, "the receiver has not answered yet")
    health.show(ReceiverHealth(received=8), [])
    health.lost("no answer")
    value = client.get(f"{prefix}Health:Received_RBV")
    assert (int(value), value.severity, value.raw.alarm.message) == (8, 3, "no answer")


def test_nobody_can_write(served, prefix):
    client = served[2]
    for name, value in (
        ("Health:Received_RBV", 3),
        ("Health:Warnings_RBV", ["all is well"]),
        ("Preview:Image", {"uniqueId": 3}),
    ):
        with pytest.raises(RemoteError, match="Put not supported"):
            client.put(prefix + name, value, timeout=20)


def test_what_has_not_changed_is_not_sent_again(served, prefix):
    health, _, client = served
    health.show(ReceiverHealth(received=1), [])
    seen = []
    with client.monitor(f"{prefix}Health:Received_RBV", seen.append):
        until(lambda: seen)
        for received in (1, 1, 1, 2):
            health.show(ReceiverHealth(received=received), [])
        until(lambda: int(seen[-1]) == 2)
    assert [int(value) for value in seen] == [1, 2]


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<f4", "<f8"])
def test_a_preview_is_an_image_with_the_frames_number(served, prefix, dtype):
    _, preview, client = served
    before = client.get(preview.name, timeout=20)
    assert (before.shape, before.raw.uniqueId) == ((1, 1), -1)
    pixels = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype(dtype)
    preview.show(pixels, 41, {"RunUid": "run-1", "Stream": "flats"})
    image = client.get(preview.name)
    np.testing.assert_array_equal(image, pixels)
    assert (image.dtype, image.raw.uniqueId) == (pixels.dtype, 41)
    assert image.attrib == {"ColorMode": 0, "RunUid": "run-1", "Stream": "flats"}


def test_a_large_frame_is_binned_and_says_so(served):
    _, preview, client = served
    pixels = np.arange(1300 * 2000, dtype="<u4").reshape(1300, 2000)
    preview.show(pixels, 0, {})
    image = client.get(preview.name, timeout=20)
    assert image.shape == (650, 1000)
    assert image[0, 0] == round((0 + 1 + 2000 + 2001) / 4)
    across, down = image.raw.dimension
    assert (across.size, across.fullSize, across.binning) == (1000, 2000, 2)
    assert (down.size, down.fullSize, down.binning) == (650, 1300, 2)


@pytest.mark.parametrize(
    ("shape", "binning"), [((1, 1), 1), ((1024, 1024), 1), ((2048, 2048), 2), ((4096, 4200), 5)]
)
def test_previews_stay_below_a_megapixel(shape, binning):
    assert binning_for(shape) == binning
    assert shape[0] // binning * (shape[1] // binning) <= 1 << 20


def test_a_port_of_ones_own_serves_again_and_again_and_is_refused_when_taken(prefix):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        provider = StaticProvider("test")
        HealthPvs(prefix).add_to(provider)
        server = serve_here(provider, port)
        with client_of(f"127.0.0.1:{port}") as client:
            client.get(f"{prefix}Health:Armed_RBV", timeout=20)
        with pytest.raises(ConfigurationError, match=f"streaming.pva_port {port} is taken"):
            serve_here(provider, port)
        server.stop()


class Source:
    """A publisher and a receiver of it, with its ring."""

    def __init__(self, root, closing):
        self.publisher = FramePublisher()
        closing.callback(self.publisher.close)
        self.descriptor = create_ring_memory(8 * ROWS * COLUMNS * 2)
        closing.callback(os.close, self.descriptor)
        self.ring = FrameRing(self.descriptor)
        closing.callback(self.ring.close)
        self._receiver = Receiver(self.publisher.address, root, self.ring)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._receiver.serve, args=(self._stop.is_set,))
        self._thread.start()
        closing.callback(self.stop)
        self.address = self._receiver.control_address
        self.client = ReceiverClient(self.address)
        closing.callback(self.client.close)
        self.images = np.random.default_rng(3).integers(0, 999, (20, ROWS, COLUMNS)).astype("<u2")
        self.run_uid = str(uuid.uuid4())

    def stop(self):
        if self._thread.is_alive():
            self._stop.set()
            self._thread.join()
            self._receiver.close()

    def begin(self):
        ticket = self.client.arm(SeriesRequest(self.run_uid, "primary", 20, ROWS, COLUMNS, "<u2"))
        self.publisher.start_series(
            ticket.series, num_frames=20, rows=ROWS, columns=COLUMNS, dtype="<u2"
        )

    def send(self, *numbers):
        for number in numbers:
            until(
                lambda number=number: self.publisher.send(
                    self.images[number], number=number, timestamp_s=1.0
                )
            )

    def written(self, count):
        until(lambda: self.client.health().written == count)


@pytest.fixture
def source(tmp_path, closing):
    return Source(tmp_path, closing)


@pytest.fixture
def start_monitor(source, prefix, closing):
    """The monitor in this process, and what it reports."""

    def start(**settings):
        reports = []
        client = ReceiverClient(source.address, timeout_s=0.3)
        closing.callback(client.close)
        monitor = Monitor(
            client,
            source.ring,
            StreamingSettings(health_prefix=prefix, **settings),
            reports.append,
        )
        closing.callback(monitor.close)
        return monitor, closing.enter_context(client_of(monitor.name_server)), reports

    return start


def test_the_monitor_shows_a_series_as_it_comes(source, start_monitor, prefix):
    monitor, client, reports = start_monitor()
    monitor.look()
    armed = client.get(f"{prefix}Health:Armed_RBV", timeout=20)
    assert (bool(armed), armed.severity) == (False, 0)
    source.begin()
    source.send(0, 1, 2, 5)
    source.written(4)
    monitor.look()
    values = {pv.suffix: client.get(f"{prefix}Health:{pv.suffix}") for pv in HEALTH_PVS}
    assert values["RunUid_RBV"] == source.run_uid
    assert bool(values["Armed_RBV"])
    counts = [int(values[f"{key}_RBV"]) for key in ("Expected", "Received", "Written", "Missing")]
    assert counts == [20, 4, 4, 2]
    assert values["FrameRate_RBV"] > 0
    assert values["SpoolSize_RBV"] > values["SpoolFree_RBV"] > 0
    assert int(values["RingSlots_RBV"]) == source.ring.slots > 0
    image = client.get(f"{prefix}Preview:Image")
    np.testing.assert_array_equal(image, source.images[5])
    assert image.raw.uniqueId == 5
    assert image.attrib["RunUid"] == source.run_uid
    assert reports == []


def test_looking_on_is_not_taken_for_consuming(source, start_monitor):
    monitor, _, _ = start_monitor()
    source.begin()
    source.send(*range(4))
    source.written(4)
    fill = source.ring.fill
    assert fill > 0
    monitor.look()
    assert source.ring.fill == fill


def test_a_preview_is_shown_once_and_not_at_all_when_it_is_not_wanted(
    source, start_monitor, prefix
):
    monitor, client, _ = start_monitor()
    source.begin()
    source.send(0, 1)
    source.written(2)
    seen = []
    with client.monitor(f"{prefix}Preview:Image", seen.append):
        until(lambda: seen)
        for _ in range(3):
            monitor.look()
        source.send(2)
        source.written(3)
        monitor.look()
        until(lambda: seen[-1].raw.uniqueId == 2)
    assert [image.raw.uniqueId for image in seen] == [-1, 1, 2]
    _, blind, _ = start_monitor(preview_hz=0)
    with pytest.raises(TimeoutError):
        blind.get(f"{prefix}Preview:Image", timeout=0.5)


def test_warnings_are_said_once_when_they_come_and_once_when_they_go(source, start_monitor):
    monitor, _, reports = start_monitor(limits={"spool_free_percent": 100})
    for _ in range(3):
        monitor.look()
    assert [(r["type"], r["kind"], r["active"]) for r in reports] == [("health", "disk", True)]
    assert "of the disk are free" in reports[0]["message"]
    monitor._settings = StreamingSettings(limits={"spool_free_percent": 0})
    for _ in range(3):
        monitor.look()
    assert [r["active"] for r in reports] == [True, False]


def test_a_receiver_that_stops_is_said_to_be_lost_once(source, start_monitor, prefix):
    monitor, client, reports = start_monitor()
    monitor.look()
    source.stop()
    monitor.look()
    monitor.look()
    assert [(r["kind"], r["active"]) for r in reports] == [("receiver", True)]
    assert "did not answer" in reports[0]["message"]
    assert client.get(f"{prefix}Health:Received_RBV", timeout=20).severity == 3


@pytest.fixture
def start_service(source, prefix, closing):
    inbox = Inbox()
    closing.callback(inbox.close)

    def start(**streaming):
        process = subprocess.Popen(
            [sys.executable, "-m", "apsber_bluesky.streaming", "monitor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[source.descriptor],
        )
        closing.callback(process.communicate)
        closing.callback(process.kill)
        settings = {
            "parent_pid": os.getpid(),
            "control_address": source.address,
            "ring_descriptor": source.descriptor,
            "status_address": inbox.address,
            "streaming": {"health_prefix": prefix, "preview_hz": 10, **streaming},
        }
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        return process, json.loads(process.stdout.readline()), inbox

    return start


def test_the_process_shows_frames_tells_of_warnings_and_ends_in_order(
    source, start_service, prefix, closing
):
    process, ready, inbox = start_service(limits={"spool_free_percent": 100})
    assert ready["ready"] is True
    client = closing.enter_context(client_of(ready["name_server"]))
    report = inbox.receive(timeout_s=20)
    assert (report["type"], report["kind"], report["active"]) == ("health", "disk", True)
    source.begin()
    seen = []
    with client.monitor(f"{prefix}Preview:Image", seen.append):
        for number in (0, 3, 7):
            source.send(number)
            until(lambda number=number: seen and seen[-1].raw.uniqueId == number)
            np.testing.assert_array_equal(seen[-1], source.images[number])
    process.send_signal(signal.SIGINT)
    assert int(client.get(f"{prefix}Health:Missing_RBV", timeout=20)) == 5
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


def test_a_port_that_is_taken_is_said_by_the_process(start_service):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process, answer, _ = start_service(pva_port=port)
    assert answer["ready"] is False
    assert f"streaming.pva_port {port} is taken" in answer["error"]
    process.communicate(timeout=30)
    assert process.returncode == 1


def test_the_reference_lists_every_pv_with_its_unit(repository):
    text = (repository / "docs" / "reference" / "health-pvs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `\$\(P\)Health:(\w+)` \| ([^|]*) \| .+ \|$", text, re.MULTILINE)
    listed = {name: unit.strip() for name, unit in rows}
    assert listed == {pv.suffix: pv.units for pv in HEALTH_PVS} | {WARNINGS_SUFFIX: ""}
    assert "`$(P)Preview:Image`" in text
