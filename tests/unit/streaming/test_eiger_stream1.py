"""EIGER legacy stream: what a DCU of that time sends is read, and every fault is named."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._codecs import CODECS, decode, encode
from apsber_bluesky.streaming._eiger_header1 import MAXIMUM_JSON_BYTES, Expectation
from apsber_bluesky.streaming._eiger_stream1 import EigerStream1Reader
from apsber_bluesky.streaming._series_messages import SeriesEnd, SeriesStart

ROWS, COLUMNS, IMAGES = 6, 10, 4
WHOLE = Expectation(num_frames=IMAGES, rows=ROWS, columns=COLUMNS, dtype="<u2")
START = SeriesStart(7, IMAGES, ROWS, COLUMNS, "<u2")
APPENDIX = b"anything, not even JSON"


def part(**content: Any) -> bytes:
    return json.dumps(content).encode()


def configuration(**changes: Any) -> dict[str, Any]:
    return {
        "bit_depth_image": 16,
        "data_collection_date": "2023-02-10T15:49:05.281+01:00",
        "nimages": 2,
        "ntrigger": 2,
        "x_pixels_in_detector": COLUMNS,
        "y_pixels_in_detector": ROWS,
        **changes,
    }


def header(detail: Any = "basic", **changes: Any) -> list[bytes]:
    parts = [part(htype="dheader-1.0", series=7, header_detail=detail)]
    if detail in ("basic", "all"):
        parts.append(part(**configuration(**changes)))
    if detail == "all":
        for htype, dtype in (("dflatfield", "float32"), ("dpixelmask", "uint32")):
            parts.append(part(htype=f"{htype}-1.0", shape=[COLUMNS, ROWS], type=dtype))
            parts.append(bytes(4 * ROWS * COLUMNS))
        parts.append(part(htype="dcountrate_table-1.0", shape=[2, 1000], type="float32"))
        parts.append(bytes(8000))
    return parts


def pixels_of(dtype: str = "<u2") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, (ROWS, COLUMNS)).astype(dtype)


def raw_lz4(content: bytes) -> bytes:
    """The pixels as one LZ4 block of literals only."""
    full, rest = divmod(len(content) - 15, 255)
    return b"\xf0" + b"\xff" * full + bytes([rest]) + content


def blob_of(pixels: np.ndarray, codec: str) -> tuple[bytes, str]:
    """The third part of an image, and how its encoding is called."""
    if codec == "lz4":
        return raw_lz4(pixels.tobytes()), "lz4<"
    return encode(pixels, codec), "<" if codec == "none" else f"bs{8 * pixels.itemsize}-lz4<"


def image(
    codec: str = "bslz4", dtype: str = "<u2", *, blob: bytes | None = None, **changes: Any
) -> list[bytes]:
    pixels = pixels_of(dtype)
    content, encoding = blob_of(pixels, codec)
    blob = content if blob is None else blob
    first = {"htype": "dimage-1.0", "series": 7, "frame": 2}
    first["hash"] = hashlib.md5(blob).hexdigest()
    second = {"htype": "dimage_d-1.0", "shape": [COLUMNS, ROWS], "type": pixels.dtype.name}
    second |= {"encoding": encoding, "size": len(blob)}
    fourth = {"htype": "dconfig-1.0", "start_time": 500_000_000, "stop_time": 600_000_000}
    fourth |= {"real_time": 100_000_000}
    for key, value in changes.items():
        for content_of_part in (first, second, fourth):
            if key in content_of_part:
                content_of_part[key] = value
    return [part(**first), part(**second), blob, part(**fourth)]


END = [part(htype="dseries_end-1.0", series=7)]


@pytest.fixture
def reader() -> EigerStream1Reader:
    """A reader that knows what is to come."""
    opened = EigerStream1Reader()
    opened.read(header())
    return opened


@pytest.mark.parametrize("detail", ["basic", "all"])
@pytest.mark.parametrize("appendix", [[], [APPENDIX]], ids=["plain", "appendix"])
def test_a_header_of_any_detail_becomes_the_start_of_a_series(detail, appendix):
    assert EigerStream1Reader().read(header(detail) + appendix) == [START]


@pytest.mark.parametrize("appendix", [[], [APPENDIX]], ids=["plain", "appendix"])
def test_a_header_without_detail_needs_to_be_told_what_to_expect(appendix):
    assert EigerStream1Reader(WHOLE).read(header("none") + appendix) == [START]
    with pytest.raises(FrameError, match="does not say rows, columns, dtype, num_frames; set it"):
        EigerStream1Reader().read(header("none") + appendix)
    with pytest.raises(FrameError, match="does not say num_frames; set it"):
        EigerStream1Reader(Expectation(rows=1, columns=1, dtype="<u2")).read(header("none"))


def test_what_is_expected_overrides_the_header():
    reader = EigerStream1Reader(Expectation(num_frames=9, rows=3))
    assert reader.read(header()) == [SeriesStart(7, 9, 3, COLUMNS, "<u2")]


def test_the_end_becomes_the_end_of_a_series_of_unknown_length(reader):
    assert reader.read(END) == [SeriesEnd(7, -1)]


@pytest.mark.parametrize(("dtype", "bits"), [("|u1", 8), ("<u2", 16), ("<u4", 32)])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("appendix", [[], [APPENDIX]], ids=["plain", "appendix"])
def test_pixels_of_every_type_and_codec_come_through(codec, dtype, bits, appendix):
    reader = EigerStream1Reader()
    (series,) = reader.read(header(bit_depth_image=bits))
    parts = image(codec, dtype)
    (frame,) = reader.read(parts + appendix)
    assert (frame.series, frame.number, frame.channel, frame.codec) == (7, 2, 0, codec)
    # A raw LZ4 block is only put into a frame; everything else is untouched.
    framing = struct.pack(">QII", series.frame_bytes, series.frame_bytes, len(parts[2]))
    assert bytes(frame.pixels) == (framing if codec == "lz4" else b"") + parts[2]
    assert frame.checksum == xxhash.xxh3_64_intdigest(frame.pixels)
    result = decode(frame.pixels, frame.codec, rows=ROWS, columns=COLUMNS, dtype=series.dtype)
    assert result.tobytes() == pixels_of(dtype).tobytes()


@pytest.mark.parametrize("encoding", ["bs16-lz4<", "bs16lz4<"])
def test_both_spellings_of_an_encoding_are_understood(reader, encoding):
    assert reader.read(image(encoding=encoding))


def test_a_third_dimension_of_one_channel_is_understood(reader):
    assert reader.read(image(shape=[COLUMNS, ROWS, 1]))


@pytest.mark.parametrize(
    ("date", "unix_s"),
    [
        ("2023-02-10T15:49:05.281+01:00", 1676040545.281),
        ("2023-02-10T14:49:05.281", 1676040545.281),
        ("", 0.0),
    ],
)
def test_the_time_of_an_image_counts_from_the_date_of_its_series(date, unix_s):
    reader = EigerStream1Reader()
    reader.read(header(data_collection_date=date))
    (frame,) = reader.read(image())
    assert frame.timestamp_s == pytest.approx(unix_s + 0.5, abs=1e-6)


def test_flipped_bits_are_found_by_the_hash_and_only_by_it(reader):
    good = image("none")
    damaged = bytearray(good[2])
    damaged[33] ^= 4
    parts = [good[0], good[1], bytes(damaged), good[3]]
    with pytest.raises(FrameError, match=r"frame 2: hash = .* is not that of the pixels"):
        reader.read(parts)
    trusting = EigerStream1Reader(check_hash=False)
    trusting.read(header())
    assert bytes(trusting.read(parts)[0].pixels) == bytes(damaged)


@pytest.mark.parametrize(
    "given_hash", ["", hashlib.md5(blob_of(pixels_of(), "bslz4")[0]).hexdigest().upper()]
)
def test_a_hash_may_be_empty_or_in_capitals(reader, given_hash):
    assert reader.read(image(hash=given_hash))


BROKEN_HEADERS = [
    (header("most"), "header_detail = 'most'"),
    (header(None), "header_detail = None"),
    (header("basic")[:1], "header_detail = 'basic': 1 parts instead of 2"),
    ([*header("basic"), b"", b""], "4 parts instead of 2"),
    (header("all")[:7], "header_detail = 'all': 7 parts"),
    ([part(htype="dheader-1.0", series=-1, header_detail="none")], "series = -1"),
    ([part(htype="dheader-1.0", series=True, header_detail="none")], "series = True"),
    (header(bit_depth_image=12), "bit_depth_image = 12"),
    (header(bit_depth_image=None), "bit_depth_image = None"),
    (header(nimages=0), "nimages = 0"),
    (header(nimages=2**40, ntrigger=2**40), "nimages \\* ntrigger = 1208925819614629174706176"),
    (header(ntrigger="2"), "ntrigger = '2'"),
    (header(x_pixels_in_detector=0), "x_pixels_in_detector = 0"),
    (header(y_pixels_in_detector=2**21), "y_pixels_in_detector = 2097152"),
    (header(x_pixels_in_detector=2**20, y_pixels_in_detector=2**20), "image size 1048576"),
    (header(data_collection_date="yesterday"), "data_collection_date = 'yesterday'"),
    (header(data_collection_date=5), "data_collection_date = 5"),
    ([header()[0], b"[]"], "detector configuration is a list of 0"),
    ([header()[0], b"{"], "detector configuration is not JSON"),
    ([header()[0], b'{"nimages": 1, "nimages": 2}'], "duplicate key 'nimages'"),
    ([*header("all")[:3], b"", *header("all")[4:]], "dflatfield-1.0: 0 bytes instead of 240"),
    ([*header("all")[:4], part(htype="x"), *header("all")[5:]], "htype = 'x' is not dpixelmask"),
    ([*header("all")[:6], part(htype="dcountrate_table-1.0"), b""], "shape = None"),
]


@pytest.mark.parametrize(("parts", "named"), BROKEN_HEADERS)
def test_a_header_with_a_wrong_field_is_refused_and_the_field_named(parts, named):
    with pytest.raises(FrameError, match=named):
        EigerStream1Reader().read(parts)


FULL = blob_of(pixels_of(), "bslz4")[0]
BROKEN_IMAGES = [
    (image(series=8), "series = 8 while series 7"),
    (image(frame=IMAGES), "frame = 4"),
    (image(frame=-1), "frame = -1"),
    (image(frame="2"), "frame = '2'"),
    (image(hash="0" * 32), "frame 2: hash = 000"),
    (image(hash="abc"), "hash = 'abc' is not an MD5"),
    (image(hash=None), "hash = None is not an MD5"),
    (image(shape=[ROWS, COLUMNS]), r"shape = \[6, 10\] is not \[10, 6\], columns first"),
    (image(shape=[COLUMNS, ROWS, 2]), r"shape = \[10, 6, 2\]"),
    (image(shape=[ROWS * COLUMNS]), r"shape = \[60\]"),
    (image(shape=[float(COLUMNS), ROWS]), "shape = a list of 2"),
    (image(shape=None), "shape = None"),
    (image(type="uint32"), "type = 'uint32' is not <u2"),
    (image(type="adsc"), "type = 'adsc'"),
    (image(encoding="bs32-lz4<"), "encoding = 'bs32-lz4<' shuffles 32 bits"),
    (image(encoding="bs16-lz4>"), "little-endian"),
    (image(encoding="bs16<"), "bitshuffle without LZ4"),
    (image(encoding="bs16-zstd<"), "encoding = 'bs16-zstd<'"),
    (image(encoding=None), "encoding = None"),
    (image(encoding="<"), "bytes of pixels, not 120"),
    (image(size=5), "size = 5 is not the"),
    (image(size=str(len(FULL))), "size = '"),
    (image(blob=FULL[:-1]), "frame 2: data: bslz4"),
    (image(blob=FULL + b"\0"), "frame 2: data: bslz4"),
    (image(blob=b""), "too few for a header"),
    (image("lz4", blob=b""), "lz4 block is empty"),
    (image("none", blob=bytes(119)), "119 bytes of pixels, not 120"),
    (image(blob=encode(pixels_of("<u4"), "bslz4")), "header says 240 bytes, not 120"),
    (image(start_time=-1), "start_time = -1"),
    (image(start_time=0.5), "start_time = 0.5"),
    (image()[:3], "frame 2: 3 parts instead of 4 or 5"),
    ([*image(), b"", b""], "frame 2: 6 parts"),
    ([*image()[:3], b"{}"], "fourth part: htype = None is not dconfig-1.0"),
    ([image()[0], b"{}", *image()[2:]], "second part: htype = None"),
    ([image()[0], image()[0], *image()[2:]], "second part: htype = 'dimage-1.0'"),
]


@pytest.mark.parametrize(("parts", "named"), BROKEN_IMAGES)
def test_an_image_that_does_not_fit_its_series_is_refused_and_the_field_named(reader, parts, named):
    with pytest.raises(FrameError, match=named):
        reader.read(parts)
    assert [frame.number for frame in reader.read(image())] == [2]


@pytest.mark.parametrize("dtype", ["|u1", "<u4"])
def test_pixels_of_another_size_than_announced_are_refused(reader, dtype):
    with pytest.raises(FrameError, match="type = "):
        reader.read(image("bslz4", dtype))


def test_a_raw_lz4_block_of_another_size_is_refused_when_it_is_decoded(reader):
    (frame,) = reader.read(image("lz4", blob=raw_lz4(bytes(110))))
    with pytest.raises(FrameError, match="cannot be decoded"):
        decode(frame.pixels, frame.codec, rows=ROWS, columns=COLUMNS, dtype="<u2")


@pytest.mark.parametrize(
    ("first", "named"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"htype": NaN}', "NaN is no number"),
        (b'{"htype": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"htype": "dimage-1.0", "htype": "dimage-1.0"}', "duplicate key 'htype'"),
        (b'{"htype": "dother-1.0"}', "htype = 'dother-1.0'"),
        (b" " * (MAXIMUM_JSON_BYTES + 1), "exceeds"),
        (b"{} {}", "not JSON"),
        (image()[0] + b"garbage", "not JSON"),
    ],
)
def test_a_first_part_that_is_no_header_is_refused(reader, first, named):
    with pytest.raises(FrameError, match=named):
        reader.read([first, *image()[1:]])


@pytest.mark.parametrize("parts", [image(), END], ids=["image", "end"])
def test_nothing_is_accepted_before_a_header(parts):
    with pytest.raises(FrameError, match="before the dheader"):
        EigerStream1Reader().read(parts)


def test_a_message_without_parts_and_an_end_with_two_are_refused(reader):
    with pytest.raises(FrameError, match="without parts"):
        reader.read([])
    with pytest.raises(FrameError, match="2 parts instead of 1"):
        reader.read([*END, b""])


def test_a_restart_closes_the_series_before_it(reader):
    again = header()
    again[0] = again[0].replace(b'"series": 7', b'"series": 8')
    assert [message.series for message in reader.read(again)] == [8]
    with pytest.raises(FrameError, match="series = 7 while series 8 is open"):
        reader.read(image())
    assert [frame.series for frame in reader.read(image(series=8))] == [8]


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
fields = st.sampled_from(["series", "frame", "hash", "shape", "type", "encoding", "size"])


@given(st.dictionaries(fields, values | st.lists(values, max_size=3), max_size=3))
def test_an_image_with_any_other_values_is_refused_or_sound(changes):
    reader = EigerStream1Reader()
    reader.read(header())
    try:
        (frame,) = reader.read(image(**changes))
    except FrameError:
        return
    assert 0 <= frame.number < IMAGES
    assert bytes(frame.pixels) == FULL
