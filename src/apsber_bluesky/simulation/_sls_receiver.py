"""A Jungfrau behind slsReceiver, byte for byte: one PUB socket per module."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import zmq
from numpy.typing import NDArray

from apsber_bluesky.core import ServiceError

_PACKET_BYTES: Final = 8192
_JSON_VERSION: Final = 5
_BIND_TIMEOUT_S: Final = 5.0
_LINGER_MS: Final = 5000

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class StreamFaults:
    """What goes wrong with a simulated stream; frames are named by their index in the series.

    Attributes
    ----------
    drop, duplicate, swap_with_next, truncate, corrupt, wrong_dtype : frozenset of int
        Frames that are not sent, sent twice, sent after the next one, cut short, sent with a
        broken message, and sent as another type.
    stall_s : mapping of int to float
        Pause before a frame [s].
    restart_before : int, optional
        The source begins anew before this frame.
    missing_end : bool
        Whether the end of the series is not sent.
    """

    drop: frozenset[int] = frozenset()
    duplicate: frozenset[int] = frozenset()
    swap_with_next: frozenset[int] = frozenset()
    truncate: frozenset[int] = frozenset()
    corrupt: frozenset[int] = frozenset()
    wrong_dtype: frozenset[int] = frozenset()
    stall_s: Mapping[int, float] = field(default_factory=dict)
    restart_before: int | None = None
    missing_end: bool = False

    def order(self, num_frames: int) -> Iterator[int]:
        """Frames as they are sent; pauses where one is due."""
        order = list(range(num_frames))
        for index in sorted(self.swap_with_next):
            if index + 1 < num_frames:
                order[index], order[index + 1] = order[index + 1], order[index]
        for index in order:
            if index in self.stall_s:
                time.sleep(self.stall_s[index])
            if index not in self.drop:
                yield index
            if index in self.duplicate:
                yield index


@dataclass(frozen=True, slots=True)
class ModuleFaults:
    """What goes wrong with single modules, each named by its row and column.

    Attributes
    ----------
    lag : mapping of (int, int) to int
        How many frames a module's parts come behind those of the others.
    down : mapping of (int, int) to (int, int)
        The first frame that a module's slsReceiver misses and the one before which it is back;
        it is dead to the end if that is none of the series.
    """

    lag: Mapping[Place, int] = field(default_factory=dict)
    down: Mapping[Place, tuple[int, int]] = field(default_factory=dict)


class SlsReceiver:
    """Stream raw images as slsReceiver does.

    Parameters
    ----------
    grid : (int, int)
        Rows and columns of modules.
    module_shape : (int, int)
        Rows and columns of pixels of a module.
    high_water_mark : int
        Messages that may wait for each subscriber; beyond it they are lost, as PUB does.

    Attributes
    ----------
    addresses : dict of (int, int) to str
        Where the socket of each module is bound.
    """

    def __init__(
        self,
        *,
        grid: tuple[int, int] = (1, 1),
        module_shape: tuple[int, int] = (512, 1024),
        high_water_mark: int = 1000,
    ) -> None:
        self._grid = grid
        self._module_shape = module_shape
        self._file_index = 0
        self._context = zmq.Context()
        self._sockets: dict[Place, zmq.Socket[bytes]] = {}
        self.addresses: dict[Place, str] = {}
        self._high_water_mark = high_water_mark
        for row, column in np.ndindex(grid):
            self._open((row, column), "tcp://127.0.0.1:*")

    def _open(self, place: Place, address: str) -> None:
        # XPUB is PUB that also tells who has subscribed; the wire is the same.
        socket = self._context.socket(zmq.XPUB)
        socket.xpub_verbose = 1
        socket.sndhwm = self._high_water_mark
        socket.linger = 0
        _bind(socket, address)
        self._sockets[place] = socket
        self.addresses[place] = socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def wait_for_subscribers(self, timeout_s: float = 10.0) -> None:
        """Wait until each module's socket has a subscriber.

        Raises
        ------
        ServiceError
            If one has none in time.
        """
        for place in self._sockets:
            self._wait_for_subscriber(place, timeout_s)

    def _wait_for_subscriber(self, place: Place, timeout_s: float = 10.0) -> None:
        socket = self._sockets[place]
        if not socket.poll(int(timeout_s * 1000)):
            raise ServiceError(f"nobody subscribed to module {place} within {timeout_s} s")
        socket.recv()

    def send(
        self,
        images: NDArray[np.uint16],
        *,
        first_frame: int = 1,
        every: int = 1,
        faults: StreamFaults | None = None,
        lost_packets: Mapping[tuple[int, int, int], int] | None = None,
        lost_modules: frozenset[tuple[int, int, int]] = frozenset(),
        module_faults: ModuleFaults | None = None,
        header_changes: Mapping[str, str] | None = None,
    ) -> None:
        """Stream one acquisition.

        Parameters
        ----------
        images : ndarray of uint16
            Raw images of the whole detector, shape ``(n, rows, columns)``.
        first_frame : int
            The detector's number of the first.
        every : int
            Which images are sent, as ``rx_zmqfreq`` says.
        faults : StreamFaults, optional
            What goes wrong; corrupting breaks the header, for nothing guards the pixels.
        lost_packets : mapping of (frame, row, column) to int, optional
            How many packets of a module's image did not reach the receiver.
        lost_modules : frozenset of (frame, row, column)
            Parts that are not sent.
        module_faults : ModuleFaults, optional
            What goes wrong with one module and not with others.
        header_changes : mapping of str to str, optional
            Fields, as JSON, that every header holds instead of the true ones.
        """
        faults, alone = faults or StreamFaults(), module_faults or ModuleFaults()
        self._file_index += 1
        lost, changes = lost_packets or {}, header_changes or {}
        for place, index in self._schedule(faults, alone, len(images)):
            if (index + 1) % every or (index, *place) in lost_modules or place not in self._sockets:
                continue
            began = faults.restart_before
            began = began if began is not None and index >= began else 0
            fields = self._fields(place, index - began + first_frame, index - began)
            fields["fileIndex"] = str(self._file_index + (began > 0))
            pixels = self._module(images[index], place).tobytes()
            missed = lost.get((index, *place), 0)
            parts = self._spoil(fields, pixels, index, missed, faults, changes)
            self._sockets[place].send_multipart(parts)
        self._file_index += faults.restart_before is not None
        if not faults.missing_end:
            self.send_end()

    def begin(self) -> None:
        """Begin an acquisition whose images `send_image` sends; `send_end` ends it."""
        self._file_index += 1

    def send_image(
        self,
        image: NDArray[np.uint16],
        *,
        number: int,
        index: int,
        fields: Mapping[str, str] | None = None,
        silent: frozenset[Place] = frozenset(),
    ) -> None:
        """Send one image as it is taken.

        Parameters
        ----------
        image : ndarray of uint16, shape (rows, columns)
            Raw image of the whole detector.
        number, index : int
            The detector's number of the image, and its place in the acquisition, from 0.
        fields : mapping of str to str, optional
            Fields, as JSON, that the headers hold instead of the usual ones.
        silent : frozenset of (int, int)
            Modules that send nothing.
        """
        for place, socket in self._sockets.items():
            if place not in silent:
                header = {**self._fields(place, number, index), **(fields or {})}
                socket.send_multipart([encode_header(header), self._module(image, place).tobytes()])

    def _schedule(
        self, faults: StreamFaults, alone: ModuleFaults, num_frames: int
    ) -> Iterator[tuple[Place, int]]:
        """Modules and frames in the order in which they are sent; modules end and begin anew."""
        places = list(self.addresses)
        behind = max((alone.lag.get(place, 0) for place in places), default=0)
        sent: list[int | None] = []
        for latest in itertools.chain(faults.order(num_frames), itertools.repeat(None, behind)):
            sent.append(latest)
            for place in places:
                at = len(sent) - 1 - alone.lag.get(place, 0)
                index = sent[at] if at >= 0 else None
                if index is not None:
                    self._restart(place, index, alone)
                    yield place, index

    def _restart(self, place: Place, index: int, alone: ModuleFaults) -> None:
        down, up = alone.down.get(place, (-1, -1))
        if down <= index < up and place in self._sockets:
            # What it has sent arrives: only what it was to send from here on is lost.
            self._sockets.pop(place).close(_LINGER_MS)
        if index >= up and place not in self._sockets:
            self._open(place, self.addresses[place])
            self._wait_for_subscriber(place)

    def send_end(self, silent: frozenset[Place] = frozenset()) -> None:
        """Send the header without data that ends an acquisition, from every module but `silent`."""
        for place, socket in self._sockets.items():
            if place not in silent:
                socket.send(encode_header(_END))

    def _module(self, image: NDArray[np.uint16], place: tuple[int, int]) -> NDArray[np.uint16]:
        rows, columns = self._module_shape
        top, left = place[0] * rows, place[1] * columns
        return image[top : top + rows, left : left + columns]

    def _spoil(
        self,
        fields: dict[str, str],
        pixels: bytes,
        index: int,
        lost: int,
        faults: StreamFaults,
        changes: Mapping[str, str],
    ) -> list[bytes]:
        if lost:
            # The receiver fills what it did not get with 0xFF.
            keep = max(0, len(pixels) - lost * _PACKET_BYTES)
            pixels = pixels[:keep] + b"\xff" * (len(pixels) - keep)
            fields["completeImage"] = "0"
            fields["packetNumber"] = str(max(0, int(fields["packetNumber"]) - lost))
        if index in faults.truncate:
            pixels = pixels[: len(pixels) // 2]
        if index in faults.wrong_dtype:
            fields["bitmode"], fields["size"] = "32", str(2 * len(pixels))
            pixels = pixels + pixels
        if index in faults.corrupt:
            # Nothing in the header is escaped.
            fields["fname"] = '"/data/a "new" run"'
        return [encode_header({**fields, **changes}), pixels]

    def _fields(self, place: tuple[int, int], number: int, index: int) -> dict[str, str]:
        rows, columns = self._module_shape
        size = rows * columns * 2
        return {
            "jsonversion": str(_JSON_VERSION),
            "bitmode": "16",
            "fileIndex": str(self._file_index),
            "detshape": f"[{self._grid[1]}, {self._grid[0]}]",
            "shape": f"[{columns}, {rows}]",
            "size": str(size),
            "acqIndex": str(index),
            "frameIndex": str(index),
            "progress": "0.5",
            "fname": '"/tmp/run"',
            "data": "1",
            "completeImage": "1",
            "frameNumber": str(number),
            "expLength": "100",
            "packetNumber": str(-(-size // _PACKET_BYTES)),
            "detSpec1": "0",
            "timestamp": str(10_000 * number),
            "modId": str(place[0] * self._grid[1] + place[1]),
            "row": str(place[0]),
            "column": str(place[1]),
            "detSpec2": "0",
            "detSpec3": "0",
            "detSpec4": "0",
            "detType": "3",
            "version": "2",
            "flipRows": "0",
            "quad": "0",
            "rx_roi": "[-1, -1, -1, -1]",
        }

    def close(self) -> None:
        """Close the sockets."""
        for socket in self._sockets.values():
            socket.close(0)
        self._context.term()


# Nothing but its version says what it is; all the rest is zero.
_END: Final[dict[str, str]] = {
    "jsonversion": str(_JSON_VERSION),
    **dict.fromkeys(("bitmode", "fileIndex"), "0"),
    "detshape": "[0, 0]",
    "shape": "[0, 0]",
    **dict.fromkeys(("size", "acqIndex", "frameIndex", "progress"), "0"),
    "fname": '""',
    **dict.fromkeys(("data", "completeImage", "frameNumber", "expLength", "packetNumber"), "0"),
    **dict.fromkeys(("detSpec1", "timestamp", "modId", "row", "column", "detSpec2"), "0"),
    **dict.fromkeys(("detSpec3", "detSpec4", "detType", "version", "flipRows", "quad"), "0"),
    "rx_roi": "[0, 0, 0, 0]",
}


def encode_header(fields: Mapping[str, Any]) -> bytes:
    """The header as slsReceiver writes it, of fields that are JSON already."""
    return ("{" + ", ".join(f'"{key}":{value}' for key, value in fields.items()) + "}\n").encode()


def _bind(socket: zmq.Socket[bytes], address: str) -> None:
    """Bind, also where the socket that had the address is still being closed."""
    deadline = time.monotonic() + _BIND_TIMEOUT_S
    while True:
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                raise ServiceError(f"cannot bind {address}: {error.strerror}") from error
            time.sleep(0.01)
        else:
            return
