"""The wire formats that a receiver can be told to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import zmq

from apsber_bluesky.core import ConfigurationError, SeriesRequest, StreamingSettings
from apsber_bluesky.streaming._eiger_header1 import Expectation
from apsber_bluesky.streaming._eiger_stream1 import EigerStream1Reader
from apsber_bluesky.streaming._eiger_stream2 import EigerStream2Reader
from apsber_bluesky.streaming._jungfrau import JungfrauReader
from apsber_bluesky.streaming._series_messages import FrameReader, Message, SeriesStart
from apsber_bluesky.streaming._wire import parse

MakeReader = Callable[[SeriesRequest, StreamingSettings], FrameReader]


class SuiteReader:
    """Read the suite's own protocol, which repeats the number that the receiver gave the series."""

    warnings: tuple[str, ...] = ()

    def read(self, parts: Sequence[bytes | memoryview], source: int = 0) -> list[Message]:
        """Read one message.

        Raises
        ------
        FrameError
            If it is no such message.
        """
        return [parse(parts)]

    def finish(self) -> list[Message]:
        """Nothing is held."""
        return []


@dataclass(frozen=True, slots=True)
class WireFormat:
    """How one kind of detector sends frames.

    Attributes
    ----------
    make_reader : callable
        Makes the reader of one series from what the plan asked for and the settings.
    socket_type : int
        ZMQ socket that receives: PULL, or SUB where the detector publishes.
    repeats_number : bool
        Whether messages carry the receiver's own number of the series; a detector that was not
        told it counts its series itself.
    """

    make_reader: MakeReader
    socket_type: int = zmq.PULL
    repeats_number: bool = False


def _eiger1(request: SeriesRequest, settings: StreamingSettings) -> FrameReader:
    # The header may be configured to say nothing, so the plan's word stands in for it.
    return EigerStream1Reader(
        Expectation(
            num_frames=request.num_frames,
            rows=request.rows,
            columns=request.columns,
            dtype=request.dtype,
        )
    )


def _jungfrau(request: SeriesRequest, settings: StreamingSettings) -> FrameReader:
    wanted = SeriesStart(0, request.num_frames, request.rows, request.columns, request.dtype)
    sources = len(settings.frame_address.split(","))
    return JungfrauReader(wanted, grid=settings.module_grid, sources=sources)


_FORMATS: Final[dict[str, WireFormat]] = {
    "apsber": WireFormat(lambda request, settings: SuiteReader(), repeats_number=True),
    "eiger1": WireFormat(_eiger1),
    "eiger2": WireFormat(lambda request, settings: EigerStream2Reader()),
    "jungfrau": WireFormat(_jungfrau, socket_type=zmq.SUB),
}


def wire_format(name: str) -> WireFormat:
    """The wire format of that name.

    Raises
    ------
    ConfigurationError
        If there is no such format.
    """
    if name not in _FORMATS:
        raise ConfigurationError(
            f"streaming.format is {name!r}; give one of {', '.join(sorted(_FORMATS))}"
        )
    return _FORMATS[name]
