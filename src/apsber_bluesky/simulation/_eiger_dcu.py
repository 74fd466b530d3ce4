"""An EIGER's detector control unit (DCU), as far as its stream goes, with faults on demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import zmq
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, ServiceError
from apsber_bluesky.simulation import _eiger_series as wire
from apsber_bluesky.simulation._eiger_series import EigerSeries, ImageForm

FaultKind = Literal[
    "drop",
    "duplicate",
    "reorder",
    "truncate",
    "corrupt",
    "stall",
    "restart",
    "wrong_dtype",
    "transposed",
    "missing_end",
    "trailing_garbage",
]
Frames = Sequence[NDArray[Any]]

_OTHER_DTYPE: Final = {"|u1": "<u2", "<u2": "<u4", "<u4": "<u2"}
_GARBAGE: Final = b"\x00garbage"
_BLOB_PART: Final = 2


@dataclass(frozen=True, slots=True)
class EigerFault:
    """Something that goes wrong at one image of a series.

    Attributes
    ----------
    kind : str
        ``drop``: it is never sent. ``duplicate``: it is sent twice. ``reorder``: it comes after
        the next one. ``truncate``: half of its bytes are missing. ``corrupt``: one bit of its
        pixels is flipped. ``stall``: it is late. ``restart``: in its place another series begins,
        with the next number and all images from the first on. ``wrong_dtype``: it says that it is
        of another type. ``transposed``: its sides are exchanged. ``missing_end``: the series never
        ends, wherever the image is. ``trailing_garbage``: more bytes follow.
    image_id : int
        The image.
    delay_s : float
        How late a stalled image is [s].
    """

    kind: FaultKind
    image_id: int = 0
    delay_s: float = 0.5


class EigerDcu:
    """The stream of an EIGER: a ZMQ PUSH socket that binds, as a DCU does.

    Parameters
    ----------
    version : {1, 2}
        Stream V2 (CBOR) or the legacy stream (multipart JSON).
    address : str
        Where to bind; any free port by default. A DCU has 31001 (V2) or 9999 (legacy).
    high_water_mark : int
        Messages that may wait for the receiver.
    timeout_s : float
        How long a message may wait for a receiver [s].

    Attributes
    ----------
    address : str
        The bound address.
    waits : int
        Messages that nobody took at once; a real DCU drops images when its memory is full of them.
    waited_s : float
        How long they waited, all together [s].

    Raises
    ------
    ServiceError
        If the address cannot be bound.
    """

    def __init__(
        self,
        version: Literal[1, 2] = 2,
        *,
        address: str = "tcp://127.0.0.1:*",
        high_water_mark: int = 1000,
        timeout_s: float = 30.0,
    ) -> None:
        self._version: Literal[1, 2] = version
        self._timeout_s = timeout_s
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.sndhwm = high_water_mark
        self._socket.sndtimeo = int(timeout_s * 1000)
        self._socket.linger = int(timeout_s * 1000)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close()
            self._context.term()
            raise ServiceError(
                f"cannot bind the stream port {address}: {error.strerror}; choose another port"
            ) from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.waits = 0
        self.waited_s = 0.0

    def send_series(
        self,
        series: EigerSeries,
        images: Sequence[Frames],
        faults: Sequence[EigerFault] = (),
        *,
        before_each: Callable[[int], None] | None = None,
    ) -> int:
        """Send a whole series.

        Parameters
        ----------
        series : EigerSeries
            What the header says.
        images : sequence of sequences of ndarray, shape (rows, columns)
            For each image one array for each channel.
        faults : sequence of EigerFault
            What goes wrong.
        before_each : callable, optional
            Called with the number of messages so far, to hold them back.

        Returns
        -------
        int
            Messages sent.

        Raises
        ------
        InputError
            If the images do not fit the series.
        ServiceError
            If nobody takes a message in time.
        """
        sent = 0
        for delay_s, parts in eiger_messages(self._version, series, images, faults):
            time.sleep(delay_s)
            if before_each is not None:
                before_each(sent)
            try:
                self._send(parts)
            except zmq.Again as error:
                raise ServiceError(
                    f"nobody took message {sent} of series {series.series_id} within"
                    f" {self._timeout_s:g} s; connect a receiver to {self.address}"
                ) from error
            sent += 1
        return sent

    def offer(self, parts: list[bytes], *, timeout_s: float) -> bool:
        """Send one message; False if nobody took it within a time [s]."""
        if not self._socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
            return False
        self._socket.send_multipart(parts, copy=False)
        return True

    def _send(self, parts: list[bytes]) -> None:
        try:
            self._socket.send_multipart(parts, flags=zmq.DONTWAIT, copy=False)
        except zmq.Again:
            began = time.monotonic()
            self._socket.send_multipart(parts, copy=False)
            self.waits += 1
            self.waited_s += time.monotonic() - began

    def close(self, linger_s: float | None = None) -> None:
        """Close the socket when what was sent has gone out, or waited too long.

        Parameters
        ----------
        linger_s : float, optional
            How long it may wait [s]; as long as a message may by default.
        """
        self._socket.close(None if linger_s is None else int(linger_s * 1000))
        self._context.term()


def eiger_messages(
    version: Literal[1, 2],
    series: EigerSeries,
    images: Sequence[Frames],
    faults: Sequence[EigerFault] = (),
) -> Iterator[tuple[float, list[bytes]]]:
    """The messages of a series, each with how long to wait before it [s].

    Raises
    ------
    InputError
        If the images do not fit the series.
    """
    _check_images(version, series, images)
    start, image, end = _WRITERS[version]
    at_image = {fault.image_id: fault for fault in faults if fault.kind != "missing_end"}
    yield 0.0, start(series)
    held: list[tuple[float, list[bytes]]] = []
    for image_id, arrays in enumerate(images):
        fault = at_image.get(image_id)
        kind = fault.kind if fault else None
        if kind == "restart":
            rest = [f for f in faults if f.kind != "restart"]
            again = replace(series, series_id=series.series_id + 1)
            yield from eiger_messages(version, again, images, rest)
            return
        if kind == "drop":
            continue
        form = ImageForm(
            dtype=_OTHER_DTYPE[series.dtype] if kind == "wrong_dtype" else series.dtype,
            transposed=kind == "transposed",
        )
        parts = image(series, image_id, arrays, form)
        if kind in _DAMAGE:
            parts = _damaged(parts, _DAMAGE[kind])
        message = (fault.delay_s if fault and kind == "stall" else 0.0, parts)
        if kind == "reorder":
            held.append(message)
            continue
        yield message
        if kind == "duplicate":
            yield message
        yield from held
        held.clear()
    yield from held
    if not any(fault.kind == "missing_end" for fault in faults):
        yield 0.0, end(series)


def _check_images(version: int, series: EigerSeries, images: Sequence[Frames]) -> None:
    if version == 1 and len(series.channels) != 1:
        raise InputError(f"the legacy stream has one channel, not {len(series.channels)}")
    if len(images) > series.num_images:
        raise InputError(f"{len(images)} images for a series of {series.num_images}")
    shape, dtype = (series.rows, series.columns), np.dtype(series.dtype)
    for image_id, arrays in enumerate(images):
        if len(arrays) != len(series.channels):
            raise InputError(f"image {image_id} has {len(arrays)} channels")
        for array in arrays:
            if array.shape != shape or array.dtype != dtype:
                raise InputError(
                    f"image {image_id} is {array.dtype.str} {array.shape}, its series is"
                    f" {dtype.str} {shape}"
                )


def _damaged(parts: list[bytes], damage: Callable[[bytes], bytes]) -> list[bytes]:
    """Damage the part with the pixels."""
    place = min(_BLOB_PART, len(parts) - 1)
    return [*parts[:place], damage(parts[place]), *parts[place + 1 :]]


def _flip(content: bytes) -> bytes:
    # The pixels are the last and by far the largest thing in a message.
    place = len(content) * 3 // 4
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


_DAMAGE: Final[dict[str | None, Callable[[bytes], bytes]]] = {
    "truncate": lambda content: content[: len(content) // 2],
    "corrupt": _flip,
    "trailing_garbage": lambda content: content + _GARBAGE,
}
_WRITERS: Final = {
    1: (wire.start_message1, wire.image_message1, wire.end_message1),
    2: (wire.start_message2, wire.image_message2, wire.end_message2),
}
