"""``apsber gateway`` as a process, between real PV Access servers and clients on loopback."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import yaml

from apsber_bluesky.core import forgo_real_time

forgo_real_time()

from p4p.client.thread import Context, RemoteError  # noqa: E402
from p4p.nt import NTScalar  # noqa: E402
from p4p.server import Server, StaticProvider  # noqa: E402
from p4p.server.thread import SharedPV  # noqa: E402

from apsber_bluesky.streaming._monitor_pvs import (  # noqa: E402
    HealthPvs,
    PreviewPv,
    serve_here,
    server_port,
)

COMMAND = "from apsber_bluesky.cli import main; main()"


def free_ports():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
    ):
        stream.bind(("127.0.0.1", 0))
        datagram.bind(("127.0.0.1", 0))
        return stream.getsockname()[1], datagram.getsockname()[1]


def until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def writable(value):
    pv = SharedPV(nt=NTScalar("d"), initial=value)

    @pv.put
    def put(pv, op):
        pv.post(op.value())
        op.done()

    return pv


@pytest.fixture
def closing():
    with contextlib.ExitStack() as stack:
        yield stack


class Beamline:
    """An IOC with four PVs, and a session's health and preview at a port of their own."""

    def __init__(self, closing):
        self.prefix = f"T{uuid.uuid4().hex[:8]}:"
        provider = StaticProvider("ioc")
        # The provider alone does not keep what is behind a PV from being collected.
        self.pvs = {name: writable(2.5) for name in ("shown", "hidden", "mine", "theirs")}
        for name, pv in self.pvs.items():
            provider.add(self.prefix + name, pv)
        ioc = closing.enter_context(Server(providers=[provider], isolate=True))
        self.ioc_port = int(ioc.conf()["EPICS_PVAS_BROADCAST_PORT"])
        self.health = HealthPvs(f"{self.prefix}S:")
        self.preview = PreviewPv(f"{self.prefix}S:Preview:Image")
        session = StaticProvider("session")
        self.health.add_to(session)
        self.preview.add_to(session)
        server = serve_here(session, 0)
        closing.callback(server.stop)
        self.pva_port = server_port(server)
        self.server_port, self.broadcast_port = free_ports()

    def profile(self, root, **gateway):
        profile = root / "beamline.yaml"
        settings = {
            "name": "bench",
            "session": {
                "beamline_id": "2-BM",
                "instrument_name": "tomography",
                "data_root": str(root / "data"),
            },
            "streaming": {
                "frame_address": "tcp://127.0.0.1:9",
                "pva_port": self.pva_port,
                "health_prefix": f"{self.prefix}S:",
            },
            "gateway": {
                "server_port": self.server_port,
                "broadcast_port": self.broadcast_port,
                "upstream": ["127.0.0.1"],
                "upstream_broadcast_port": self.ioc_port,
                "pvs": [f"{self.prefix}shown", f"{self.prefix}S:Health:F*"],
                "status_prefix": f"{self.prefix}GWS:",
                **gateway,
            },
        }
        profile.write_text(yaml.safe_dump(settings))
        return profile

    def client(self):
        """A client that sees the gateway and nothing else."""
        settings = {
            "EPICS_PVA_ADDR_LIST": "127.0.0.1",
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
            "EPICS_PVA_BROADCAST_PORT": str(self.broadcast_port),
        }
        return Context("pva", conf=settings, useenv=False)


@pytest.fixture
def beamline(closing):
    return Beamline(closing)


@pytest.fixture
def gateway(tmp_path, beamline, closing):
    def start(*options, **settings):
        environment = {key: v for key, v in os.environ.items() if not key.startswith("EPICS_")}
        environment.pop("APSBER_DATA_ROOT", None)
        profile = beamline.profile(tmp_path, **settings)
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "gateway", "-p", profile, "--json", *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        closing.callback(process.communicate)
        closing.callback(process.kill)
        return process, json.loads(process.stdout.readline())

    return start


def test_what_is_listed_can_be_read_and_nothing_can_be_written(gateway, beamline, closing):
    _, answer = gateway()
    assert answer["read_only"] is True
    client = closing.enter_context(beamline.client())
    name = beamline.prefix + "shown"
    assert client.get(name, timeout=20) == 2.5
    assert client.get(f"{beamline.prefix}S:Health:FrameRate_RBV", timeout=20) == 0.0
    with pytest.raises(RemoteError, match="denied"):
        client.put(name, 7.0, timeout=20)
    assert client.get(name, timeout=20) == 2.5
    for hidden in ("hidden", "mine", "S:Health:Armed_RBV", "shown2"):
        with pytest.raises(TimeoutError):
            client.get(beamline.prefix + hidden, timeout=1)


def test_the_preview_goes_through_it_frame_by_frame(gateway, beamline, closing):
    gateway()
    client = closing.enter_context(beamline.client())
    images = np.random.default_rng(4).integers(0, 4000, (6, 64, 48)).astype("<u2")
    seen = []
    with client.monitor(beamline.preview.name, seen.append):
        until(lambda: seen)
        for number, image in enumerate(images):
            beamline.preview.show(image, number, {"Stream": "primary"})
            until(lambda number=number: seen[-1].raw.uniqueId == number)
            np.testing.assert_array_equal(seen[-1], image)
    assert seen[-1].attrib["Stream"] == "primary"
    with pytest.raises(RemoteError, match="denied"):
        client.put(beamline.preview.name, {"uniqueId": 3}, timeout=20)


def test_it_tells_how_it_is_doing(gateway, beamline, closing):
    gateway()
    client = closing.enter_context(beamline.client())
    for name in ("clients", "cache", "stats", "StatsTime", "us:bypv:rx"):
        assert client.get(f"{beamline.prefix}GWS:{name}", timeout=20) is not None


def test_only_named_accounts_may_write_and_only_what_they_are_named_for(gateway, beamline, closing):
    mine, theirs = (beamline.prefix + name for name in ("mine", "theirs"))
    gateway(writable={mine: [getpass.getuser()], theirs: ["somebody_else"]})
    client = closing.enter_context(beamline.client())
    client.put(mine, 7.0, timeout=20)
    assert client.get(mine, timeout=20) == 7.0
    for name in (theirs, beamline.prefix + "shown"):
        assert client.get(name, timeout=20) == 2.5
        with pytest.raises(RemoteError, match="denied"):
            client.put(name, 7.0, timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_ends_in_order_and_leaves_its_ports_free(gateway, beamline, number):
    for _ in range(2):
        process, answer = gateway()
        assert answer["server_port"] == beamline.server_port
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
        assert rest == ""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", beamline.server_port), timeout=5)


def test_checking_serves_nothing(gateway, beamline):
    process, answer = gateway("--check")
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert Path(answer["configuration"]).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", beamline.server_port), timeout=5)


def test_a_second_gateway_is_refused_on_one_line(gateway, beamline):
    gateway()
    second, answer = gateway()
    assert f"gateway.server_port {beamline.server_port} on 127.0.0.1 is taken" in answer["error"]
    _, errors = second.communicate(timeout=30)
    assert second.returncode == 1
    assert errors.count("\n") == 1


def test_without_a_session_or_a_port_it_says_where_to_begin(gateway, beamline):
    beamline.pva_port = 0
    process, answer = gateway()
    assert "no session works in" in answer["error"]
    assert "streaming.pva_port is 0" in answer["error"]
    process.communicate(timeout=30)
    assert process.returncode == 1
