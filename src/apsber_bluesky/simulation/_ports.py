"""Sockets of the embedded IOC: loopback only, on ports that nobody else has."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from typing import Any

import caproto
from caproto.asyncio.server import Context
from caproto.asyncio.utils import _DatagramProtocol, _UdpTransportWrapper

from apsber_bluesky.core import ServiceError

LOOPBACK = "127.0.0.1"
_ATTEMPTS = 50
_HEADER = struct.Struct(">HHHHII")
_REPEATER_CONFIRM, _REPEATER_REGISTER, _BEACON = 17, 24, 13

log = logging.getLogger(__name__)


def reserve_server_port(port: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Bind a TCP and a UDP socket to one loopback port, as Channel Access wants them.

    Parameters
    ----------
    port : int, optional
        The port; any free one if not given.

    Raises
    ------
    ServiceError
        If the port is in use, or no free one is found.
    """
    for _ in range(_ATTEMPTS if port is None else 1):
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        stream.setblocking(False)
        # Connections of a server that has just gone must not keep the port from the next.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(port is not None))
        try:
            stream.bind((LOOPBACK, port or 0))
        except OSError as error:
            stream.close()
            raise ServiceError(
                f"Channel Access port {port} is in use ({error.strerror}); choose another"
            ) from error
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.setblocking(False)
        try:
            datagram.bind((LOOPBACK, stream.getsockname()[1]))
        except OSError:
            stream.close()
            datagram.close()
            continue
        stream.listen(64)
        return stream, datagram
    raise ServiceError(
        f"no free port for Channel Access on {LOOPBACK}"
        + (f" in {_ATTEMPTS} attempts; close programs" if port is None else f": {port} is in use")
    )


class LoopbackContext(Context):  # type: ignore[misc]
    """A Channel Access server on sockets that are bound already, so no port can be lost."""

    def __init__(
        self,
        channels: dict[str, Any],
        stream: socket.socket,
        datagram: socket.socket,
        beacon_port: int,
    ) -> None:
        # caproto takes the destination of its beacons from the environment alone.
        os.environ["EPICS_CAS_BEACON_ADDR_LIST"] = LOOPBACK
        os.environ["EPICS_CAS_AUTO_BEACON_ADDR_LIST"] = "NO"
        os.environ["EPICS_CAS_BEACON_PORT"] = str(beacon_port)
        super().__init__(channels, [LOOPBACK])
        self._stream, self._datagram = stream, datagram
        self.ca_server_port = stream.getsockname()[1]
        self.serving = asyncio.Event()

    async def _bind_tcp_sockets_with_consistent_port_number(
        self, make_socket: Any
    ) -> tuple[int, dict[str, socket.socket]]:
        return self.ca_server_port, {LOOPBACK: self._stream}

    async def _create_broadcaster_transport(self, interface: str) -> None:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _DatagramProtocol(
                parent=self, identifier=interface, queue=self.broadcaster_datagram_queue
            ),
            sock=self._datagram,
        )
        self.udp_socks[interface] = _UdpTransportWrapper(transport)
        self.serving.set()


class Repeater(asyncio.DatagramProtocol):
    """The CA repeater of this IOC: forwards its beacons to the clients that register.

    Without one, every client would start a repeater process of its own, and every beacon would be
    refused. Protocol: EPICS Channel Access specification, "CA Repeater".
    """

    def __init__(self) -> None:
        self._clients: set[tuple[str, int]] = set()
        self._transport: Any = None

    @classmethod
    async def start(cls, port: int | None = None) -> int:
        """Bind a loopback port, any free one if none is given, and serve; the port."""
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_datagram_endpoint(
                cls, local_addr=(LOOPBACK, port or 0)
            )
        except OSError as error:
            raise ServiceError(
                f"CA repeater port {port} is in use ({error.strerror}); choose another"
            ) from error
        return int(transport.get_extra_info("sockname")[1])

    def connection_made(self, transport: Any) -> None:
        """Keep the socket."""
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Register a client, or forward a beacon."""
        command = _HEADER.unpack_from(data)[0] if len(data) >= _HEADER.size else None
        if command == _BEACON:
            for client in self._clients:
                self._transport.sendto(data, client)
        elif command in (None, _REPEATER_REGISTER):
            self._clients.add(address)
            confirm = _HEADER.pack(_REPEATER_CONFIRM, 0, 0, 0, 0, caproto.ipv4_to_int32(LOOPBACK))
            self._transport.sendto(confirm, address)

    def error_received(self, error: Exception) -> None:
        """Note that a client has gone; the next beacon tries again, which is harmless."""
        log.debug("a Channel Access client has gone: %s", error)
