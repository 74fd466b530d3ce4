"""Ports of a simulated beamline: chosen before EPICS is imported, and nobody else's until used."""

from __future__ import annotations

import json

PORTS = """
import json, socket

from apsber_bluesky.core import load_profile
from apsber_bluesky.session import prepare_epics
from apsber_bluesky.session._epics import beamline_ports
from apsber_bluesky.simulation._ports import reserve_server_port

prepare_epics(load_profile("simulated"))
first = beamline_ports()
prepare_epics(load_profile("simulated"))
found = {"same": beamline_ports() == first}
with socket.socket() as other:
    try:
        other.bind(("127.0.0.1", first["ca_port"]))
        found["other"] = "has it"
    except OSError:
        found["other"] = "refused"
for number in range(2):
    stream, datagram = reserve_server_port(first["ca_port"])
    with socket.create_connection(stream.getsockname(), timeout=5):
        found[f"beamline {number}"] = "listens"
    stream.close()
    datagram.close()
print(json.dumps(found))
"""


def test_the_port_is_kept_for_the_beamlines_that_this_process_starts(run_python):
    done = run_python(PORTS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "same": True,
        "other": "refused",
        "beamline 0": "listens",
        "beamline 1": "listens",
    }
