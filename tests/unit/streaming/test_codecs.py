"""Codecs: pixels come back bit for bit, from memory and from a file, or are refused."""

from __future__ import annotations

import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.streaming._codecs import (
    CODECS,
    check_encoded,
    decode,
    encode,
    frame_lz4_block,
    hdf5_filter,
)
from apsber_bluesky.streaming._series_messages import DTYPES

COMPRESSED = ["bslz4", "lz4"]
READ_WHILE_WRITTEN = """
import sys, h5py, hdf5plugin
with h5py.File(sys.argv[1], "r", swmr=True) as raw:
    sys.stdout.buffer.write(raw["data"][()].tobytes())
"""


def image(rows: int, columns: int, dtype: str, *, seed: int = 0, flat: bool = False):
    rng = np.random.default_rng(seed)
    if flat:
        return np.full((rows, columns), 3, dtype)
    return rng.integers(0, 100, (rows, columns)).astype(dtype)


def noise(rows: int, columns: int, dtype: str = "<u2"):
    content = np.random.default_rng(1).bytes(rows * columns * np.dtype(dtype).itemsize)
    return np.frombuffer(content, dtype).reshape(rows, columns)


def decoded(pixels, codec, like, **options):
    rows, columns = like.shape
    return decode(pixels, codec, rows=rows, columns=columns, dtype=like.dtype.str, **options)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (64, 64), (129, 131), (600, 301)])
def test_pixels_come_back_bit_for_bit(codec, dtype, shape):
    array = image(*shape, dtype)
    result = decoded(encode(array, codec), codec, array)
    assert result.dtype == array.dtype
    assert result.tobytes() == array.tobytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("array", [noise(50, 40), image(50, 40, "<u4", flat=True)], ids=str)
def test_pixels_that_hardly_or_wholly_compress_come_back(codec, array):
    assert decoded(encode(array, codec), codec, array).tobytes() == array.tobytes()


@pytest.mark.parametrize("codec", CODECS)
def test_pixels_are_decoded_into_the_array_that_is_given(codec):
    array = image(40, 30, "<u2")
    ring = np.zeros((3, 40, 30), "<u2")
    assert decoded(encode(array, codec), codec, array, out=ring[1]) is not None
    assert (ring[1] == array).all()
    assert not ring[0].any()
    assert not ring[2].any()


@pytest.mark.parametrize(
    "out",
    [np.zeros((4, 5), "<u2"), np.zeros((5, 4), "<u4"), np.zeros((4, 5), "<u2").T],
    ids=["shape", "dtype", "order"],
)
def test_an_array_that_does_not_fit_is_refused(out):
    array = image(5, 4, "<u2")
    with pytest.raises(InputError, match="out is"):
        decoded(encode(array, "bslz4"), "bslz4", array, out=out)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(41, 30), (20, 30), (40, 31)])
def test_a_frame_of_another_size_is_refused(codec, size):
    pixels = encode(image(40, 30, "<u2"), codec)
    with pytest.raises(FrameError, match=r"data: .* bytes"):
        decode(pixels, codec, rows=size[0], columns=size[1], dtype="<u2")


@pytest.mark.parametrize("codec", CODECS)
def test_every_cut_of_a_frame_is_refused(codec):
    array = noise(50, 51)
    pixels = encode(array, codec)
    for length in range(len(pixels)):
        with pytest.raises(FrameError, match="data: "):
            check_encoded(memoryview(pixels)[:length], codec, frame_bytes=5100, itemsize=2)


@pytest.mark.parametrize("codec", CODECS)
def test_bytes_after_a_frame_are_refused(codec):
    array = image(50, 50, "<u2")
    with pytest.raises(FrameError, match="data: "):
        decoded(encode(array, codec) + b"\0", codec, array)


@pytest.mark.parametrize(
    ("codec", "header", "named"),
    [
        ("bslz4", (5000, 0), "block size 0"),
        ("bslz4", (5000, 24), "not a multiple of 16"),
        ("lz4", (5000, 0), "block size is 0"),
        ("lz4", (5000, 1), "too few for 5000 blocks"),
        ("bslz4", (4 << 40, 8192), "header says 4398046511104"),
        ("lz4", (3 << 30, 8192), "header says 3221225472"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(codec, header, named):
    array = image(50, 50, "<u2", flat=True)
    pixels = struct.pack(">QI", *header) + encode(array, codec)[12:]
    with pytest.raises(FrameError, match=named):
        decoded(pixels, codec, array)


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_block_that_says_it_is_empty_is_refused(codec):
    array = image(50, 50, "<u2")
    pixels = bytearray(encode(array, codec))
    pixels[12:16] = bytes(4)
    with pytest.raises(FrameError, match="block 0 of 1 is empty"):
        decoded(pixels, codec, array)


@pytest.mark.parametrize("codec", COMPRESSED)
def test_a_block_that_reaches_past_the_end_is_refused(codec):
    pixels = struct.pack(">QII", 5008, 2504 if codec == "lz4" else 2512, 9000) + bytes(2000)
    with pytest.raises(FrameError, match="block 1 of 2 is cut short"):
        decode(pixels, codec, rows=1, columns=2504, dtype="<u2")


@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (-1, -5), (1 << 20, 1 << 20)])
def test_a_frame_of_no_size_or_too_large_is_refused(rows, columns):
    with pytest.raises(FrameError, match=f"frame of {rows} x {columns}"):
        decode(b"", "bslz4", rows=rows, columns=columns, dtype="<u2")


@given(st.sampled_from(COMPRESSED), st.data())
def test_flipped_bits_give_pixels_of_the_right_size_or_are_refused(codec, data):
    array = image(30, 30, "<u2")
    pixels = bytearray(encode(array, codec))
    for _ in range(data.draw(st.integers(1, 4))):
        pixels[data.draw(st.integers(0, len(pixels) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        result = decoded(pixels, codec, array)
    except FrameError:
        return
    assert (result.shape, result.dtype) == (array.shape, array.dtype)


def literal_block(content: bytes) -> bytes:
    """An LZ4 block that repeats nothing, for up to 269 bytes."""
    return bytes([0xF0, len(content) - 15]) + content


# 9 bytes in 7, then 40 literals in 42: as long as what it decodes to.
SAME_LENGTH = bytes([0x41]) + b"abcd" + b"\x01\x00" + literal_block(bytes(range(40)))


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (literal_block(bytes(range(200))), bytes(range(200))),
        (b"\x4aabcd\x01\x00\x50vwxyz", b"abcd" + 14 * b"d" + b"vwxyz"),
        (SAME_LENGTH, b"abcd" + b"ddddd" + bytes(range(40))),
    ],
    ids=["longer than its content", "shorter", "as long as its content"],
)
def test_a_raw_lz4_block_is_put_into_the_framing_of_hdf5(block, content):
    pixels = frame_lz4_block(memoryview(block), len(content))
    result = decode(pixels, "lz4", rows=1, columns=len(content), dtype="|u1")
    assert result.tobytes() == content
    with h5py.File("x", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset(
            "x", (1, len(content)), "u1", chunks=(1, len(content)), **hdf5_filter("lz4", "|u1")
        )
        dataset.id.write_direct_chunk((0, 0), pixels)
        assert dataset[()].tobytes() == content


def test_the_block_of_the_last_case_is_really_as_long_as_its_content():
    assert len(SAME_LENGTH) == 4 + 5 + 40


def test_a_raw_lz4_block_of_another_size_is_refused_when_it_is_decoded():
    pixels = frame_lz4_block(memoryview(literal_block(bytes(100))), 120)
    with pytest.raises(FrameError, match="cannot be decoded"):
        decode(pixels, "lz4", rows=1, columns=120, dtype="|u1")
    with pytest.raises(FrameError, match="empty"):
        frame_lz4_block(memoryview(b""), 120)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<u4", "<f4"])
def test_chunks_written_as_they_came_are_read_by_another_process_while_the_file_grows(
    codec, dtype, tmp_path
):
    file, count = tmp_path / "raw.h5", 4
    frames = [image(70, 90, dtype, seed=seed) for seed in range(count)]
    with h5py.File(file, "w", libver="latest") as raw:
        dataset = raw.create_dataset(
            "data", (0, 70, 90), dtype, maxshape=(None, 70, 90), chunks=(1, 70, 90),
            **hdf5_filter(codec, dtype),
        )  # fmt: skip
        raw.swmr_mode = True
        for index, frame in enumerate(frames):
            dataset.resize(index + 1, axis=0)
            dataset.id.write_direct_chunk((index, 0, 0), encode(frame, codec))
            dataset.flush()
        read = subprocess.run(
            [
                sys.executable,
                "-c",
                READ_WHILE_WRITTEN,
                file,
            ],
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert read.returncode == 0, read.stderr
    assert read.stdout == np.stack(frames).tobytes()


@pytest.mark.parametrize(
    ("codec", "dtype", "named"),
    [("zstd", "<u2", "codec 'zstd'"), ("bslz4", ">u2", "big-endian")],
)
def test_a_filter_that_cannot_be_had_is_refused(codec, dtype, named):
    with pytest.raises(InputError, match=named):
        hdf5_filter(codec, dtype)
