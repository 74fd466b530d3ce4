"""Which ports a queue server takes."""

from __future__ import annotations

import socket

import pytest

from apsber_bluesky.core import InputError, load_profile
from apsber_bluesky.session import _queue_server
from apsber_bluesky.session._queue_server import QueueServer


@pytest.fixture
def server(tmp_path):
    profile = load_profile("simulated", {"session": {"data_root": str(tmp_path)}})
    return lambda **options: QueueServer("simulated", profile, **options)


@pytest.fixture
def usual(monkeypatch):
    """A port that is free, as is the one ten higher, in place of the usual one."""
    while True:
        port = _queue_server._free_port()
        if _queue_server._is_free(port + 10):
            monkeypatch.setattr(_queue_server, "QUEUE_PORT", port)
            return port


def test_the_usual_port_and_its_companion_are_taken_if_they_are_free(server, usual):
    assert server()._ports() == (usual, usual + 10)
    assert server(port=usual)._ports() == (usual, usual + 10)


@pytest.mark.parametrize("offset", [0, 10])
def test_any_are_taken_if_one_of_them_is_not(server, usual, offset):
    with socket.create_server(("127.0.0.1", usual + offset)):
        ports = server()._ports()
        # Whoever asks for a port gets it, or is told by the manager that it is taken.
        assert server(port=usual)._ports() == (usual, usual + 10)
    assert not {usual, usual + 10} & set(ports)
    assert len(set(ports)) == 2


@pytest.mark.parametrize("port", [-1, 65530])
def test_a_port_that_cannot_be_is_refused(server, port):
    with pytest.raises(InputError, match=f"port is {port}"):
        server(port=port)
