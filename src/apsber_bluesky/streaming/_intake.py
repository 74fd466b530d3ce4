"""The receiver's sockets to the detector, one for each address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from apsber_bluesky.core import ConfigurationError
from apsber_bluesky.streaming._formats import WireFormat
from apsber_bluesky.streaming._series_messages import MAXIMUM_FRAME_BYTES
from apsber_bluesky.streaming._wire import MAXIMUM_HEADER_BYTES

_LARGEST_MESSAGE: Final = MAXIMUM_FRAME_BYTES + MAXIMUM_HEADER_BYTES
# Modules of a detector are read in turns of this many messages.
_TURN: Final = 4


@dataclass(frozen=True, slots=True)
class _Source:
    address: str
    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]


class Intake:
    """Sockets that receive what the detector sends.

    Parameters
    ----------
    context : zmq.Context
        Where the sockets live; the caller ends it after `close`.
    addresses : str
        ZMQ addresses, separated by commas.
    wire_format : WireFormat
        What the detector speaks.
    high_water_mark : int
        Messages that may wait in each socket.
    largest_message : int
        ZMQ drops the connection that a larger message comes from [byte].

    Raises
    ------
    ConfigurationError
        If one of the addresses is none.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        addresses: str,
        wire_format: WireFormat,
        *,
        high_water_mark: int,
        largest_message: int = _LARGEST_MESSAGE,
    ) -> None:
        self._largest_message = largest_message
        self._sources: list[_Source] = []
        try:
            for address in addresses.split(","):
                socket = context.socket(wire_format.socket_type)
                monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                self._sources.append(_Source(address.strip(), socket, monitor))
                socket.rcvhwm = high_water_mark
                socket.maxmsgsize = largest_message
                if wire_format.socket_type == zmq.SUB:
                    socket.subscribe(b"")
                socket.connect(address.strip())
        except zmq.ZMQError as error:
            self.close()
            raise ConfigurationError(
                f"streaming.frame_address is {addresses!r}: {error.strerror}; give one like"
                " 'tcp://detector:5555'"
            ) from error

    def watch(self, poller: zmq.Poller, *, frames: bool) -> None:
        """Let a poller wake up for messages, or leave them in their sockets."""
        for source in self._sources:
            poller.register(source.socket, zmq.POLLIN if frames else 0)

    def receive(self, limit: int) -> Iterator[tuple[int, list[memoryview]]]:
        """Messages that have come, at most so many, with the number of the source of each.

        Their bytes stay where ZMQ has them for as long as they are referred to.
        """
        waiting = list(enumerate(self._sources))
        while waiting and limit > 0:
            for number, source in list(waiting):
                for _ in range(min(_TURN, limit)):
                    try:
                        parts: Sequence[zmq.Frame] = source.socket.recv_multipart(
                            zmq.DONTWAIT, copy=False
                        )
                    except zmq.Again:
                        waiting.remove((number, source))
                        break
                    limit -= 1
                    yield number, [part.buffer for part in parts]

    def lost_connections(self) -> list[str]:
        """What to tell of connections that have ended since the last call."""
        told = []
        for source in self._sources:
            with contextlib.suppress(zmq.Again):
                while True:
                    recv_monitor_message(source.monitor, zmq.DONTWAIT)
                    told.append(
                        f"the source at {source.address} closed the connection: it has ended, or"
                        f" it sent a message larger than {self._largest_message} bytes"
                    )
        return told

    def close(self) -> None:
        """Close the sockets; messages that wait in them are dropped."""
        for source in self._sources:
            source.socket.disable_monitor()
            source.monitor.close(0)
            source.socket.close(0)
        self._sources = []
