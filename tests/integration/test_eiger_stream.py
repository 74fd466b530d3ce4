"""From a simulated DCU over a socket to decoded pixels, with every fault on the way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import h5py
import numpy as np
import pytest
import zmq

from apsber_bluesky.core import FrameError
from apsber_bluesky.simulation._eiger_dcu import EigerDcu, EigerFault
from apsber_bluesky.simulation._eiger_series import EigerSeries
from apsber_bluesky.streaming._codecs import decode, hdf5_filter
from apsber_bluesky.streaming._eiger_header1 import Expectation
from apsber_bluesky.streaming._eiger_stream1 import EigerStream1Reader
from apsber_bluesky.streaming._eiger_stream2 import EigerStream2Reader
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart

BEGAN = datetime(2023, 2, 10, 14, 49, 5, 281_000, tzinfo=UTC)
THRESHOLDS = ("threshold_1", "threshold_2", "difference")


def series(**changes: Any) -> EigerSeries:
    size = {"series_id": 7, "num_images": 5, "rows": 62, "columns": 84, "began": BEGAN}
    return EigerSeries(**{**size, **changes})


def images_of(like: EigerSeries) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shape = (like.num_images, len(like.channels), like.rows, like.columns)
    return [list(channels) for channels in rng.poisson(40, shape).astype(like.dtype)]


def received(
    version: int, sent: EigerSeries, *faults: EigerFault, reader: Any = None
) -> tuple[list[Any], list[str]]:
    """Everything that a reader makes of a series, and what it refuses."""
    reader = reader or {1: EigerStream1Reader, 2: EigerStream2Reader}[version]()
    accepted: list[Any] = []
    refused = []
    dcu = EigerDcu(version)
    with zmq.Context() as context, context.socket(zmq.PULL) as receiver:
        receiver.connect(dcu.address)
        count = dcu.send_series(sent, images_of(sent), faults)
        for _ in range(count):
            assert receiver.poll(20_000)
            parts = receiver.recv_multipart(copy=False)
            try:
                accepted += reader.read([part.buffer for part in parts])
            except FrameError as error:
                refused.append(str(error))
        dcu.close()
    return accepted, refused


def check_pixels(accepted: list[Any], sent: EigerSeries, wanted: list[int]) -> None:
    """The frames of these images came, in this order, with all channels and bit for bit."""
    images = images_of(sent)
    frames = [message for message in accepted if isinstance(message, Frame)]
    channels = range(len(sent.channels))
    assert [(f.number, f.channel) for f in frames] == [(n, c) for n in wanted for c in channels]
    for frame in frames:
        pixels = decode(
            frame.pixels, frame.codec, rows=sent.rows, columns=sent.columns, dtype=sent.dtype
        )
        assert pixels.tobytes() == images[frame.number][frame.channel].tobytes()
        assert frame.timestamp_s == pytest.approx(BEGAN.timestamp() + 0.01 * frame.number, abs=1e-5)


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<u4"])
@pytest.mark.parametrize("codec", ["none", "bslz4", "lz4"])
@pytest.mark.parametrize(
    ("version", "channels"), [(1, ("",)), (2, ("threshold_1",)), (2, THRESHOLDS)]
)
def test_every_image_arrives_bit_for_bit(version, channels, codec, dtype):
    sent = series(dtype=dtype, codec=codec, channels=channels)
    accepted, refused = received(version, sent)
    assert refused == []
    assert accepted[0] == SeriesStart(7, 5, 62, 84, dtype, channels)
    assert accepted[-1] == SeriesEnd(7, -1)
    check_pixels(accepted, sent, [0, 1, 2, 3, 4])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("codec", ["none", "bslz4", "lz4"])
def test_images_stored_as_they_came_are_read_from_their_file(version, codec, tmp_path):
    sent = series(codec=codec)
    accepted, _ = received(version, sent)
    with h5py.File(tmp_path / "raw.h5", "w", libver="latest") as raw:
        data = raw.create_dataset(
            "data", (5, 62, 84), "<u2", chunks=(1, 62, 84), **hdf5_filter(codec, "<u2")
        )
        raw.swmr_mode = True
        for frame in accepted[1:-1]:
            data.id.write_direct_chunk((frame.number, 0, 0), frame.pixels)
        data.flush()
    with h5py.File(tmp_path / "raw.h5") as raw:
        wanted = np.stack([image for (image,) in images_of(sent)])
        assert raw["data"][()].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("detail", ["none", "basic", "all"])
@pytest.mark.parametrize("appendix", [None, {"sample": ["leaf", 3, None]}])
def test_headers_of_any_detail_and_appendices_are_understood(version, detail, appendix):
    sent = series(header_detail=detail, header_appendix=appendix, image_appendix=appendix)
    reader = None
    if version == 1 and detail == "none":
        reader = EigerStream1Reader(Expectation(num_frames=5, rows=62, columns=84, dtype="<u2"))
    accepted, refused = received(version, sent, reader=reader)
    assert refused == []
    assert len(accepted) == 7


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("drop", [0, 1, 3, 4]),
        ("duplicate", [0, 1, 2, 2, 3, 4]),
        ("reorder", [0, 1, 3, 2, 4]),
        ("stall", [0, 1, 2, 3, 4]),
    ],
)
def test_images_in_another_order_keep_their_numbers(version, kind, numbers):
    sent = series()
    accepted, refused = received(version, sent, EigerFault(kind, 2, delay_s=0.05))
    assert refused == []
    check_pixels(accepted, sent, numbers)


REFUSED = [
    (2, "truncate", "cut short"),
    (2, "trailing_garbage", "trailing garbage"),
    (2, "wrong_dtype", "image 2, channel 'threshold_1': data: tag 70, dtype <u4"),
    (2, "transposed", "image 2, channel 'threshold_1': data: dimensions [84, 62] are not [62, 84]"),
    (1, "truncate", "frame 2: size = "),
    (1, "trailing_garbage", "frame 2: size = "),
    (1, "wrong_dtype", "frame 2: type = 'uint32' is not <u2"),
    (1, "transposed", "frame 2: shape = [62, 84] is not [84, 62]"),
    (1, "corrupt", "frame 2: hash = "),
]


@pytest.mark.parametrize("codec", ["none", "bslz4", "lz4"])
@pytest.mark.parametrize(("version", "kind", "named"), REFUSED)
def test_a_damaged_image_is_refused_by_name_and_the_others_are_kept(version, kind, named, codec):
    sent = series(codec=codec)
    accepted, (reason,) = received(version, sent, EigerFault(kind, 2))
    assert named in reason
    check_pixels(accepted, sent, [0, 1, 3, 4])
    assert accepted[-1] == SeriesEnd(7, -1)


@pytest.mark.parametrize("version", [1, 2])
def test_a_restart_is_another_series(version):
    sent = series()
    accepted, refused = received(version, sent, EigerFault("restart", 2))
    assert refused == []
    assert [m.series for m in accepted] == [7] * 3 + [8] * 7
    check_pixels(accepted, sent, [0, 1, 0, 1, 2, 3, 4])


@pytest.mark.parametrize("version", [1, 2])
def test_a_missing_end_takes_nothing_but_the_end(version):
    sent = series()
    accepted, refused = received(version, sent, EigerFault("missing_end"))
    assert refused == []
    check_pixels(accepted, sent, [0, 1, 2, 3, 4])
    assert not any(isinstance(message, SeriesEnd) for message in accepted)


@pytest.mark.parametrize("codec", ["none", "bslz4", "lz4"])
def test_stream_v2_cannot_tell_a_flipped_bit_but_keeps_the_size(codec):
    sent = series(codec=codec)
    accepted, refused = received(2, sent, EigerFault("corrupt", 2))
    assert refused == []
    damaged = next(m for m in accepted if isinstance(m, Frame) and m.number == 2)
    size = {"rows": 62, "columns": 84, "dtype": "<u2"}
    if codec == "lz4":
        # The bit is in the length of a sequence here, so that the block does not come out even.
        with pytest.raises(FrameError, match="cannot be decoded"):
            decode(damaged.pixels, codec, **size)
    else:
        pixels = decode(damaged.pixels, codec, **size)
        assert pixels.shape == (62, 84)
        assert (pixels != images_of(sent)[2][0]).any()
