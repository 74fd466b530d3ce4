"""The preview: the newest frame, binned, and nothing waits for it."""

from __future__ import annotations

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import ConfigurationError, FrameError, InputError
from apsber_bluesky.streaming._preview import (
    PROTOCOL,
    PreviewPublisher,
    PreviewSubscriber,
    bin_frame,
    parse_preview,
)

FRAME = np.arange(12, dtype="<u2").reshape(3, 4)


@pytest.fixture
def linked():
    """A publisher, and a subscriber that has begun to see."""
    with contextlib.ExitStack() as stack:

        def link(**options):
            publisher = PreviewPublisher(**options)
            stack.callback(publisher.close)
            subscriber = PreviewSubscriber(publisher.address)
            stack.callback(subscriber.close)
            for _ in range(200):
                publisher.show("run", "primary", 0, FRAME)
                if subscriber.latest(0.05):
                    return publisher, subscriber
            raise AssertionError("nothing was shown")

        yield link


def test_who_looks_late_sees_the_newest_frame(linked):
    publisher, subscriber = linked()
    seen = []
    for index in range(1, 301):
        publisher.show("run", "flats", index, FRAME + index)
        if index == 300:
            while (preview := subscriber.latest(1)) is not None:
                seen.append(preview)
    assert seen[-1].index == 300
    assert (seen[-1].run_uid, seen[-1].stream) == ("run", "flats")
    np.testing.assert_array_equal(seen[-1].pixels, FRAME + 300)
    assert len(seen) < 50


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<i4", "<f4"])
def test_the_preview_is_binned_and_keeps_its_dtype(linked, dtype):
    publisher, subscriber = linked(binning=2)
    publisher.show("run", "primary", 5, FRAME.astype(dtype))
    while (preview := subscriber.latest(5)) is not None and preview.index != 5:
        pass
    # Means of 2 x 2 pixels, the odd row left out: 2.5 and 4.5, which round to even.
    expected = [[2.5, 4.5]] if dtype == "<f4" else [[2, 4]]
    np.testing.assert_array_equal(preview.pixels, expected)
    assert preview.pixels.dtype == np.dtype(dtype)


def test_bins_do_not_overflow_and_are_no_larger_than_the_frame():
    bright = np.full((4, 6), 65535, "<u2")
    np.testing.assert_array_equal(bin_frame(bright, 2), np.full((2, 3), 65535))
    np.testing.assert_array_equal(bin_frame(bright, 100), [[65535]])
    np.testing.assert_array_equal(bin_frame(bright[:, ::2], 1), bright[:, ::2])


def test_showing_to_nobody_and_bad_settings():
    with pytest.raises(InputError, match="binning of the preview is 0"):
        PreviewPublisher(binning=0)
    with pytest.raises(ConfigurationError, match="anybody who reaches"):
        PreviewPublisher("tcp://*:*")
    with pytest.raises(ConfigurationError, match="cannot show frames at 'nowhere'"):
        PreviewPublisher("nowhere", allow_plain=True)
    with pytest.raises(ConfigurationError, match="cannot connect to 'nowhere'"):
        PreviewSubscriber("nowhere")
    publisher = PreviewPublisher()
    publisher.show("run", "primary", 0, FRAME)
    publisher.close()


HEADER = {"protocol": PROTOCOL, "run_uid": "run", "stream": "primary", "index": 1} | {
    "dtype": "<u2",
    "rows": 3,
    "columns": 4,
}


PIXELS = FRAME.tobytes()


def message(pixels=PIXELS, **changes):
    header = msgpack.packb(HEADER | changes)
    return len(header).to_bytes(4, "little") + header + pixels


def test_a_good_message_is_read():
    preview = parse_preview(message())
    np.testing.assert_array_equal(preview.pixels, FRAME)
    assert (preview.run_uid, preview.stream, preview.index) == ("run", "primary", 1)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\x01",
        b"\xff\xff\xff\xff" + bytes(10),
        message(b""),
        message(PIXELS + b"\x00"),
        message(rows=2**30),
        message(rows=True),
        message(dtype="|O"),
        message(dtype=["<u2"]),
        message(index=-1),
        message(run_uid=None),
        message(protocol="apsber-preview/2"),
        b"\x01\x00\x00\x00\xc1",
        b"\x01\x00\x00\x00\x80",
    ],
)
def test_what_is_no_preview_is_refused(bad):
    with pytest.raises(FrameError, match="preview"):
        parse_preview(bad)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(FrameError):
        parse_preview(data)
