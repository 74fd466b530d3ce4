"""The example of the protocol's reference is understood by the receiver's parser."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart
from apsber_bluesky.streaming._wire import PROTOCOL, parse


def test_the_documented_example_sends_one_series(
    documented_code: Callable[[str, str], str], tmp_path: Path
) -> None:
    code = documented_code("docs/reference/frame-protocol.md", "frames")
    assert PROTOCOL in code
    address = f"ipc://{tmp_path}/frames"
    with zmq.Context.instance().socket(zmq.PULL) as receiver:
        # A socket that binds may send only when somebody has connected.
        receiver.connect(address)
        variables: dict[str, Any] = {}
        exec(code.replace("tcp://127.0.0.1:5555", address), variables)
        received = []
        for _ in range(3):
            assert receiver.poll(20_000)
            received.append(parse(receiver.recv_multipart()))
        variables["port"].close()
    start, frame, end = received
    assert start == SeriesStart(series=1, num_frames=1, rows=2, columns=2, dtype="<u2")
    assert isinstance(frame, Frame)
    assert (frame.number, bytes(frame.pixels)) == (0, bytes(8))
    assert math.isnan(frame.angle_deg)
    assert end == SeriesEnd(series=1, num_sent=1)
