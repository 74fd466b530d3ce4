"""Live slices from their publisher to PVs: real sockets, a real PV Access server and client."""

from __future__ import annotations

import contextlib
import time
import uuid

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError, LiveView, forgo_real_time
from apsber_bluesky.streaming import SlicePublisher, SliceSubscriber
from apsber_bluesky.streaming._live_slices import PROTOCOL, parse_slices

forgo_real_time()

from p4p.client.thread import Context, RemoteError  # noqa: E402
from p4p.server import StaticProvider  # noqa: E402

from apsber_bluesky.streaming._live_slices_pvs import LiveSlicePvs  # noqa: E402
from apsber_bluesky.streaming._monitor_pvs import serve_here, server_port  # noqa: E402

ROWS, COLUMNS = 3, 5


def view_of(used=7, **changes):
    pixels = np.arange(100, dtype=np.float32) + used
    values = {
        "run_uid": "run-1",
        "planes": {
            "xy": pixels[:25].reshape(5, 5),
            "xz": pixels[25:40].reshape(3, 5),
            "yz": pixels[40:55].reshape(3, 5),
        },
        "used": used,
        "dropped": 0,
        "total": 90,
        "centre_px": 2.25,
        "centre_from": "last run",
        "binning": 2,
        "window_deg": 0.0,
        "latency_s": 0.125,
    }
    return LiveView(**{**values, **changes})


@pytest.fixture
def closing():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def publisher(closing):
    made = SlicePublisher()
    closing.callback(made.close)
    return made


def test_the_newest_slices_come_together_with_what_is_known_of_them(publisher, closing):
    subscriber = SliceSubscriber(publisher.address)
    closing.callback(subscriber.close)
    deadline = time.monotonic() + 20
    while subscriber.latest(0.02) is None:
        publisher.show(view_of(1))
        assert time.monotonic() < deadline
    for used in range(2, 60):
        publisher.show(view_of(used))
    seen = []
    while (view := subscriber.latest(0.5)) is not None:
        seen.append(view)
    assert len(seen) < 30
    last, sent = seen[-1], view_of(59)
    assert last.details() == sent.details()
    assert last.run_uid == "run-1"
    for name, plane in sent.planes.items():
        np.testing.assert_array_equal(last.planes[name], plane)


def message_of(header=None, body=None, **changes):
    good = {
        "protocol": PROTOCOL,
        "rows": ROWS,
        "columns": COLUMNS,
        "used": 1,
        "dropped": 0,
        "total": 2,
        "binning": 1,
        "centre_px": 1.0,
        "window_deg": 0.0,
        "latency_s": 0.0,
        "run_uid": "r",
        "centre_from": "profile",
    }
    packed = msgpack.packb({**good, **changes}) if header is None else header
    body = bytes(4 * (25 + 15 + 15)) if body is None else body
    return len(packed).to_bytes(4, "little") + packed + body


def test_a_message_that_is_right_is_taken():
    assert parse_slices(message_of()).planes["yz"].shape == (ROWS, COLUMNS)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"", "header of 0 bytes"),
        (b"\xff\xff\xff\xff", "header of 4294967295 bytes"),
        (message_of(header=b"\xc1"), "not msgpack"),
        (message_of(protocol="apsber-preview/1"), "no message of apsber-live-slices/1"),
        (message_of(rows=0), "not allowed"),
        (message_of(columns=1 << 40), "not allowed"),
        (message_of(rows=True), "not allowed"),
        (message_of(used=-1), "not allowed"),
        (message_of(centre_px=float("nan")), "not allowed"),
        (message_of(latency_s=None), "not allowed"),
        (message_of(run_uid=3), "not allowed"),
        (message_of(body=bytes(10)), "10 bytes are no slices of 3 rows, 5 columns"),
        (message_of(columns=6), "are no slices"),
    ],
)
def test_anything_else_is_refused(message, complaint):
    with pytest.raises(FrameError, match=complaint):
        parse_slices(message)


@given(st.binary(max_size=300))
def test_no_bytes_do_any_harm(noise):
    with contextlib.suppress(FrameError):
        parse_slices(noise)
    with contextlib.suppress(FrameError):
        parse_slices(message_of(header=noise))


@pytest.fixture
def served(publisher, closing):
    """The PVs on a server, and a client."""
    prefix = f"T{uuid.uuid4().hex[:8]}:"
    pvs = LiveSlicePvs(prefix, publisher.address)
    closing.callback(pvs.close)
    provider = StaticProvider("test")
    pvs.add_to(provider)
    server = serve_here(provider, 0)
    closing.callback(server.stop)
    settings = {
        "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{server_port(server)}",
        "EPICS_PVA_ADDR_LIST": "",
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
    }
    client = closing.enter_context(Context("pva", conf=settings, useenv=False))
    return prefix, pvs, client


def test_each_slice_is_an_image_with_the_number_of_its_projections(served, publisher):
    prefix, pvs, client = served
    assert client.get(f"{prefix}Live:XY", timeout=20).raw.uniqueId == -1
    pvs.start()
    deadline = time.monotonic() + 20
    while client.get(f"{prefix}Live:YZ").raw.uniqueId != 9:
        publisher.show(view_of(9))
        assert time.monotonic() < deadline
    for name, plane in view_of(9).planes.items():
        image = client.get(f"{prefix}Live:{name.upper()}")
        np.testing.assert_array_equal(image, plane)
        assert (image.dtype, image.raw.uniqueId, image.severity) == (np.float32, 9, 0)
        assert abs(image.timestamp - time.time()) < 60
        assert image.attrib == {
            "ColorMode": 0,
            "Plane": name.upper(),
            "RunUid": "run-1",
            "Total": 90,
            "Dropped": 0,
            "Centre": 2.25,
            "CentreFrom": "last run",
            "Binning": 2,
            "Window": 0.0,
            "Latency": 0.125,
        }


def test_slices_that_lack_projections_are_in_alarm_until_a_run_lacks_none(served):
    prefix, pvs, client = served
    pvs.show(view_of(9, dropped=30))
    image = client.get(f"{prefix}Live:XZ", timeout=20)
    assert (image.severity, image.raw.alarm.message) == (
        1,
        "30 projections were left out to keep pace",
    )
    pvs.show(view_of(3))
    assert client.get(f"{prefix}Live:XZ").severity == 0


def test_nobody_can_write_to_them(served):
    prefix, _, client = served
    with pytest.raises(RemoteError, match="Put not supported"):
        client.put(f"{prefix}Live:XY", {"uniqueId": 3}, timeout=20)


def test_what_is_no_message_is_left_out(served, publisher):
    prefix, pvs, client = served
    pvs.start()
    deadline = time.monotonic() + 20
    while client.get(f"{prefix}Live:XY", timeout=20).raw.uniqueId != 4:
        publisher.send({"protocol": "something else"})
        publisher.show(view_of(4))
        assert time.monotonic() < deadline
