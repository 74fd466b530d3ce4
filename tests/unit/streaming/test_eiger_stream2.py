"""EIGER Stream V2: an independent encoder's messages are read, and every fault is named."""

from __future__ import annotations

import math
from typing import Any

import cbor2
import numpy as np
import pytest
import xxhash
from cbor2 import CBORTag
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._codecs import CODECS, decode, encode
from apsber_bluesky.streaming._eiger_fields import DTYPE_OF_NAME
from apsber_bluesky.streaming._eiger_stream2 import EigerStream2Reader
from apsber_bluesky.streaming._series_messages import SeriesEnd, SeriesStart

ROWS, COLUMNS, IMAGES = 6, 10, 4
TAG = {"uint8": 64, "uint16": 69, "uint32": 70, "uint64": 71, "int8": 72, "int16": 77}
TAG |= {"int32": 78, "int64": 79, "float32": 85, "float64": 86}
IDS = {"series_id": 7, "series_unique_id": "01GRXWT80J"}


def start(**changes: Any) -> dict[str, Any]:
    return {
        "type": "start",
        **IDS,
        "channels": ["threshold_1"],
        "image_dtype": "uint16",
        "image_size_x": COLUMNS,
        "image_size_y": ROWS,
        "number_of_images": IMAGES,
        "user_data": {"any": [1, None, "thing"]},
        **changes,
    }


def pixels_of(dtype: str = "<u2", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, (ROWS, COLUMNS)).astype(dtype)


def array(pixels: np.ndarray, codec: str = "bslz4", **changes: Any) -> CBORTag:
    """A channel of an image; `changes` say what is wrong with it."""
    content: Any = changes.get("content", encode(pixels, codec))
    if codec != "none":
        element = pixels.itemsize if codec == "bslz4" else 0
        compressed = [changes.get("algorithm", codec), changes.get("element", element), content]
        content = CBORTag(changes.get("compression_tag", 56500), compressed)
    typed = CBORTag(changes.get("tag", TAG[pixels.dtype.name]), content)
    return CBORTag(changes.get("array_tag", 40), [changes.get("shape", list(pixels.shape)), typed])


def image(**changes: Any) -> dict[str, Any]:
    return {
        "type": "image",
        **IDS,
        "image_id": 2,
        "real_time": [999_995, 50_000_000],
        "series_date": CBORTag(0, "2023-02-10T15:49:05.281+01:00"),
        "start_time": [25_000_000, 50_000_000],
        "stop_time": [25_999_995, 50_000_000],
        "user_data": None,
        "data": {"threshold_1": array(pixels_of())},
        **changes,
    }


def end(**changes: Any) -> dict[str, Any]:
    return {"type": "end", **IDS, **changes}


def read(reader: EigerStream2Reader, message: Any) -> list[Any]:
    return reader.read([cbor2.dumps(message)])


@pytest.fixture
def reader() -> EigerStream2Reader:
    """A reader that knows what is to come."""
    opened = EigerStream2Reader()
    read(opened, start())
    return opened


def test_a_start_message_becomes_the_start_of_a_series():
    channels = ["threshold_1", "threshold_2", "difference"]
    message = start(image_dtype="uint32", channels=channels)
    wanted = SeriesStart(7, IMAGES, ROWS, COLUMNS, "<u4", tuple(channels))
    assert read(EigerStream2Reader(), message) == [wanted]


def test_an_end_message_becomes_the_end_of_a_series_of_unknown_length(reader):
    assert read(reader, end()) == [SeriesEnd(7, -1)]


def test_the_table_of_dtypes_is_all_tested():
    assert set(TAG) == set(DTYPE_OF_NAME)


@pytest.mark.parametrize("name", sorted(TAG))
@pytest.mark.parametrize("codec", CODECS)
def test_pixels_of_every_type_and_codec_come_through_untouched(codec, name):
    reader, pixels = EigerStream2Reader(), pixels_of(name)
    (series,) = read(reader, start(image_dtype=name))
    (frame,) = read(reader, image(data={"threshold_1": array(pixels, codec)}))
    assert (frame.series, frame.number, frame.channel, frame.codec) == (7, 2, 0, codec)
    assert bytes(frame.pixels) == encode(pixels, codec)
    assert frame.checksum == xxhash.xxh3_64_intdigest(encode(pixels, codec))
    assert math.isnan(frame.angle_deg)
    result = decode(
        frame.pixels, frame.codec, rows=series.rows, columns=series.columns, dtype=series.dtype
    )
    assert result.tobytes() == pixels.tobytes()


@pytest.mark.parametrize("order", [("b", "a", "difference"), ("difference", "b", "a")])
def test_channels_are_told_by_their_name_whatever_their_order_in_the_message(order):
    reader, names = EigerStream2Reader(), ("a", "b", "difference")
    read(reader, start(channels=list(names)))
    images = {name: pixels_of(seed=index) for index, name in enumerate(names)}
    frames = read(reader, image(data={name: array(images[name]) for name in order}))
    assert [frame.channel for frame in frames] == [0, 1, 2]
    assert [bytes(f.pixels) for f in frames] == [encode(images[n], "bslz4") for n in names]
    assert {(f.number, f.timestamp_s) for f in frames} == {(2, frames[0].timestamp_s)}


@pytest.mark.parametrize(
    ("date", "unix_s"),
    [
        ("2023-02-10T15:49:05.281+01:00", 1676040545.281),
        ("2023-02-10T14:49:05.281Z", 1676040545.281),
        ("2023-02-10T14:49:05.281000000Z", 1676040545.281),
        ("1970-01-01T00:00:00+00:00", 0.0),
    ],
)
def test_the_time_of_an_image_counts_from_the_date_of_its_series(reader, date, unix_s):
    (frame,) = read(reader, image(series_date=CBORTag(0, date)))
    assert frame.timestamp_s == pytest.approx(unix_s + 0.5, abs=1e-6)


def test_a_frame_is_a_view_of_the_message(reader):
    message = bytearray(cbor2.dumps(image(data={"threshold_1": array(pixels_of(), "none")})))
    (frame,) = reader.read([message])
    place = message.index(bytes(frame.pixels))
    message[place] ^= 0xFF
    assert frame.pixels[0] == message[place]


BROKEN_STARTS = [
    ({"series_id": -1}, "series_id = -1"),
    ({"series_id": True}, "series_id = True"),
    ({"series_id": 2**63}, "series_id = 9223372036854775808"),
    ({"series_unique_id": ""}, "series_unique_id = ''"),
    ({"series_unique_id": 5}, "series_unique_id = 5"),
    ({"series_unique_id": "x" * 300}, "series_unique_id = 'xxx"),
    ({"number_of_images": 0}, "number_of_images = 0"),
    ({"number_of_images": 1.0}, "number_of_images = 1.0"),
    ({"image_size_x": 0}, "image_size_x = 0"),
    ({"image_size_y": 2**21}, "image_size_y = 2097152"),
    ({"image_size_x": 2**20, "image_size_y": 2**20}, "image size 1048576 x 1048576"),
    ({"image_dtype": "uint12"}, "image_dtype = 'uint12'"),
    ({"image_dtype": None}, "image_dtype = None"),
    ({"channels": []}, "channels = a list of 0"),
    ({"channels": "threshold_1"}, "channels = 'threshold_1'"),
    ({"channels": ["a", "a"]}, r"channels = \(a, a\) has a name twice"),
    ({"channels": ["a", 1]}, "channels = 1"),
    ({"channels": [str(n) for n in range(17)]}, "channels = a list of 17"),
    ({"type": "begin"}, "type = 'begin'"),
]


@pytest.mark.parametrize(("changes", "named"), BROKEN_STARTS)
def test_a_start_message_with_a_wrong_field_is_refused_and_the_field_named(changes, named):
    with pytest.raises(FrameError, match=named):
        read(EigerStream2Reader(), start(**changes))


def lz4_data(**changes: Any) -> dict[str, Any]:
    return {"data": {"threshold_1": array(pixels_of(), "lz4", **changes)}}


def bslz4_data(**changes: Any) -> dict[str, Any]:
    return {"data": {"threshold_1": array(pixels_of(), "bslz4", **changes)}}


def plain_data(**changes: Any) -> dict[str, Any]:
    return {"data": {"threshold_1": array(pixels_of(), "none", **changes)}}


FULL = encode(pixels_of(), "bslz4")
BROKEN_IMAGES = [
    ({"series_id": 8}, "series_id = 8 while series 7"),
    ({"series_unique_id": "other"}, "series_unique_id = 'other'"),
    ({"image_id": IMAGES}, "image_id = 4"),
    ({"image_id": -1}, "image_id = -1"),
    ({"image_id": 1.0}, "image_id = 1.0"),
    ({"data": None}, "data = None"),
    ({"data": {}}, r"image 2: data has the channels \(\), not \(threshold_1\)"),
    ({"data": {"threshold_2": array(pixels_of())}}, r"channels \(threshold_2\)"),
    ({"data": {"threshold_1": array(pixels_of()), "b": 1}}, r"channels \(threshold_1, b\)"),
    ({"data": {"threshold_1": b"bare"}}, "channel 'threshold_1': data: a memoryview of 4"),
    (bslz4_data(shape=[COLUMNS, ROWS]), r"dimensions \[10, 6\] are not \[6, 10\]"),
    (bslz4_data(shape=[ROWS * COLUMNS, 1]), r"dimensions \[60, 1\]"),
    (bslz4_data(shape=[ROWS, COLUMNS, 1]), r"dimensions \[6, 10, 1\]"),
    (bslz4_data(shape=[float(ROWS), COLUMNS]), r"dimensions \[6.0, 10\]"),
    (bslz4_data(shape=None), "dimensions None"),
    (bslz4_data(array_tag=1040), "tag 1040, column-major"),
    (bslz4_data(array_tag=41), "tag 41 is not tag 40"),
    (bslz4_data(tag=70), "tag 70, dtype <u4, is not image_dtype <u2"),
    (bslz4_data(tag=65), "tag 65, dtype >u2, is not image_dtype <u2"),
    (bslz4_data(tag=77), "tag 77, dtype <i2"),
    (bslz4_data(tag=76), "tag 76 is not a typed array"),
    (bslz4_data(element=4), "element size 4 of bslz4 is not 2"),
    (bslz4_data(element=0), "element size 0"),
    (bslz4_data(element="2"), "element size '2'"),
    (lz4_data(element=2), "element size 2 of lz4 is not 0"),
    (bslz4_data(algorithm="bszstd"), "compression 'bszstd'"),
    (bslz4_data(algorithm=1), "compression 1"),
    (bslz4_data(compression_tag=56501), "tag 56501 is not tag 56500"),
    (bslz4_data(content="text"), "compressed pixels are 'text'"),
    (bslz4_data(content=FULL[:-1]), "data: bslz4 "),
    (bslz4_data(content=FULL + b"\0"), "data: bslz4 "),
    (bslz4_data(content=FULL[:11]), "too few for a header"),
    (bslz4_data(content=b""), "too few for a header"),
    (bslz4_data(content=encode(pixels_of("<u4"), "bslz4")), "header says 240 bytes, not 120"),
    (lz4_data(content=encode(pixels_of("<u4"), "lz4")), "header says 240 bytes, not 120"),
    (plain_data(content=bytes(119)), "119 bytes of pixels, not 120"),
    (plain_data(content=bytes(121)), "121 bytes of pixels, not 120"),
    ({"series_date": "2023-02-10T15:49:05Z"}, "series_date = '2023"),
    ({"series_date": CBORTag(0, "2023-02-10T15:49:05")}, "time zone"),
    ({"series_date": CBORTag(0, "2023-02-30T15:49:05Z")}, "series_date = '2023-02-30"),
    ({"series_date": CBORTag(0, 5)}, "series_date = 5"),
    ({"start_time": [1, 0]}, "start_time = 0"),
    ({"start_time": [-1, 5]}, "start_time = -1"),
    ({"start_time": [1]}, "start_time = a list of 1"),
    ({"start_time": 0.5}, "start_time = 0.5"),
]


@pytest.mark.parametrize(("changes", "named"), BROKEN_IMAGES)
def test_an_image_that_does_not_fit_its_series_is_refused_and_the_field_named(
    reader, changes, named
):
    with pytest.raises(FrameError, match=named):
        read(reader, image(**changes))
    # A refused message changes nothing: the next good one is read.
    assert [frame.number for frame in read(reader, image())] == [2]


@pytest.mark.parametrize("key", [key for key in start() if key != "user_data"])
def test_a_start_message_without_a_field_that_counts_is_refused(key):
    message = start()
    del message[key]
    with pytest.raises(FrameError, match=f"{key} = None"):
        read(EigerStream2Reader(), message)


@pytest.mark.parametrize(
    "key",
    ["type", "series_id", "series_unique_id", "image_id", "data", "series_date", "start_time"],
)
def test_an_image_without_a_field_that_counts_is_refused(reader, key):
    message = image()
    del message[key]
    with pytest.raises(FrameError, match=f"{key} = None"):
        read(reader, message)


@pytest.mark.parametrize("message", [image(), end()], ids=["image", "end"])
def test_nothing_is_accepted_before_a_start(message):
    with pytest.raises(FrameError, match="before the start message"):
        read(EigerStream2Reader(), message)


@pytest.mark.parametrize("changes", [{"series_id": 8}, {"series_unique_id": "other"}])
def test_the_end_of_another_series_is_refused(reader, changes):
    with pytest.raises(FrameError, match=next(iter(changes))):
        read(reader, end(**changes))


def test_a_restart_closes_the_series_before_it(reader):
    again = {"series_id": 8, "series_unique_id": "01GRXX"}
    (restarted,) = read(reader, start(**again, image_size_x=ROWS, image_size_y=COLUMNS))
    assert (restarted.series, restarted.rows) == (8, COLUMNS)
    with pytest.raises(FrameError, match="series_id = 7 while series 8 is open"):
        read(reader, image())
    data = {"threshold_1": array(pixels_of().T.copy())}
    assert [f.series for f in read(reader, image(**again, data=data))] == [8]


def test_the_same_start_twice_is_the_same_series_but_a_different_one_is_refused(reader):
    assert read(reader, start()) == read(EigerStream2Reader(), start())
    with pytest.raises(FrameError, match="starts again as another series"):
        read(reader, start(number_of_images=5))


def test_an_image_that_comes_late_is_still_read_after_the_end(reader):
    read(reader, end())
    assert [frame.number for frame in read(reader, image())] == [2]


@pytest.mark.parametrize("parts", [[], [b"", b""], [cbor2.dumps(start()), b""]])
def test_a_message_of_other_than_one_part_is_refused(parts):
    with pytest.raises(FrameError, match="parts instead of 1"):
        EigerStream2Reader().read(parts)


@pytest.mark.parametrize("message", [None, [], 5, "start", b"start"])
def test_a_message_that_is_no_map_is_refused(message):
    with pytest.raises(FrameError, match="not a map"):
        read(EigerStream2Reader(), message)


def test_a_duplicate_key_is_refused_at_every_level(reader):
    packed = cbor2.dumps(image())
    for key in ("image_id", "threshold_1"):
        twice = cbor2.dumps(key)
        # A key stands once more in its map, which is said to have one entry more.
        place = packed.index(twice)
        head = place - 1 if key == "threshold_1" else 0
        doubled = bytearray(packed[:place] + twice + b"\x00" + packed[place:])
        doubled[head] += 1
        with pytest.raises(FrameError, match=f"duplicate key '{key}'"):
            reader.read([doubled])


@given(
    st.dictionaries(
        st.sampled_from([*start(), *image()]),
        st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(0, 9), max_size=3),
        max_size=3,
    ),
    st.booleans(),
)
def test_a_message_with_any_other_values_is_refused_or_sound(changes, is_image):
    reader = EigerStream2Reader()
    read(reader, start())
    try:
        messages = read(reader, (image if is_image else start)(**changes))
    except FrameError:
        return
    for message in messages:
        assert 0 <= message.series < 2**63
        if isinstance(message, SeriesStart):
            assert message.frame_bytes > 0
        elif not isinstance(message, SeriesEnd):
            assert 0 <= message.number < IMAGES
            assert bytes(message.pixels) == FULL
