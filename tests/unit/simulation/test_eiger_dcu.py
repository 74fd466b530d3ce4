"""The simulated EIGER: its messages are understood by what DECTRIS gives its customers."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import numpy as np
import pytest
import zmq

from apsber_bluesky.core import InputError, ServiceError
from apsber_bluesky.simulation._eiger_dcu import EigerDcu, EigerFault, eiger_messages
from apsber_bluesky.simulation._eiger_series import TIME_BASE_HZ, EigerSeries

try:
    from dectris.compression import decompress
except ImportError:
    # It must be compiled where it is installed; the filters of HDF5 read the same framing.
    import h5py
    import hdf5plugin

    def decompress(content: bytes, algorithm: str, elem_size: int = 1) -> bytes:
        size, elem_size = int.from_bytes(content[:8], "big"), elem_size or 1
        filters = {"bslz4": hdf5plugin.Bitshuffle(cname="lz4"), "lz4": hdf5plugin.LZ4()}
        shape = (size // elem_size,)
        with h5py.File("decode", "w", driver="core", backing_store=False) as file:
            data = file.create_dataset(
                "data", shape, f"<u{elem_size}", chunks=shape, **filters[algorithm]
            )
            data.id.write_direct_chunk((0,), content)
            return data[:].tobytes()


BEGAN = datetime(2023, 2, 10, 15, 49, 5, 281_000, tzinfo=UTC)
DTYPES = ["|u1", "<u2", "<u4"]
CODECS = ["none", "bslz4", "lz4"]
TYPED = {64: "u1", 65: ">u2", 66: ">u4", 69: "<u2", 70: "<u4", 85: "<f4"}


# A series that DECTRIS recorded and published (github.com/dectris/documentation at 9e25f07,
# stream_v2/test_data/r500k_bm_bslz4_16bit): its second image up to the pixels, and its end.
RECORDED_IMAGE = bytes.fromhex(
    "d9d9f7aa647479706565696d616765697365726965735f696401707365726965735f756e69717565"
    "5f6964781a3031475258575438304a53445932464e573853474343445a443968696d6167655f6964"
    "01697265616c5f74696d65821a000f423b1a02faf0806b7365726965735f64617465c0781d323032"
    "332d30322d31305431353a34393a30352e3238312b30313a30306a73746172745f74696d65821a00"
    "0f42401a02faf0806973746f705f74696d65821a001e847b1a02faf08069757365725f6461746182"
    "0164f09f92996464617461a36b7468726573686f6c645f31d8288282190202190406d845d9dcb483"
    "6562736c7a34"
)
RECORDED_END = bytes.fromhex(
    "d9d9f7a3647479706563656e64697365726965735f696401707365726965735f756e697175655f69"
    "64781a3031475258575438304a53445932464e573853474343445a4439"
)


class RecordedSeries(EigerSeries):
    """The series that was recorded, whose unique ID was drawn at random."""

    unique_id = "01GRXWT80JSDY2FNW8SGCCDZD9"


def series(**changes: Any) -> EigerSeries:
    size = {"series_id": 7, "num_images": 4, "rows": 40, "columns": 60, "began": BEGAN}
    return EigerSeries(**{**size, **changes})


def images_of(like: EigerSeries, high: int = 100) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    shape = (like.num_images, len(like.channels), like.rows, like.columns)
    return [list(channels) for channels in rng.integers(0, high, shape).astype(like.dtype)]


def decode_tag(tag: cbor2.CBORTag, immutable: bool) -> Any:
    """Tags as the example client of the manufacturer decodes them."""
    if tag.tag == 56500:
        algorithm, element_bytes, content = tag.value
        return decompress(content, algorithm, elem_size=element_bytes)
    if tag.tag in TYPED:
        return np.frombuffer(tag.value, TYPED[tag.tag])
    if tag.tag == 40:
        dimensions, contents = tag.value
        return contents.reshape(dimensions)
    return tag


def loads(message: bytes) -> Any:
    return cbor2.loads(message, tag_hook=decode_tag)


def messages(version: int, of: EigerSeries, images: Any, *faults: EigerFault) -> list[list[bytes]]:
    return [parts for _, parts in eiger_messages(version, of, images, faults)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("channels", [("threshold_1",), ("threshold_1", "threshold_2")])
def test_stream_v2_is_decoded_as_the_manufacturer_decodes_it(dtype, codec, channels):
    sent = series(dtype=dtype, codec=codec, channels=channels, image_appendix=[1, "\N{BLUE HEART}"])
    images = images_of(sent)
    (start,), *middle, (end,) = messages(2, sent, images)
    header = loads(start)
    assert next(iter(header)) == "type"
    assert header["type"] == "start"
    assert tuple(header["channels"]) == channels
    assert (header["image_size_x"], header["image_size_y"]) == (60, 40)
    assert header["image_dtype"] == np.dtype(dtype).name
    assert header["number_of_images"] == 4
    for image_id, (message,) in enumerate(middle):
        image = loads(message)
        assert next(iter(image)) == "type"
        assert (image["type"], image["image_id"]) == ("image", image_id)
        assert list(image["user_data"]) == [1, "\N{BLUE HEART}"]
        assert list(image["start_time"]) == [image_id * TIME_BASE_HZ // 100, TIME_BASE_HZ]
        assert image["series_date"] == BEGAN
        assert image["series_unique_id"] == header["series_unique_id"]
        assert list(image["data"]) == list(channels)
        for array, wanted in zip(image["data"].values(), images[image_id], strict=True):
            assert array.dtype == wanted.dtype
            assert (array == wanted).all()
    assert loads(end) == {"type": "end", "series_id": 7, "series_unique_id": sent.unique_id}


def test_stream_v2_has_the_bytes_of_a_real_detector():
    recorded = RecordedSeries(
        series_id=1,
        num_images=2,
        rows=514,
        columns=1030,
        channels=("threshold_1", "threshold_2", "difference"),
        frame_time_s=0.02,
        began=datetime.fromisoformat("2023-02-10T15:49:05.281+01:00"),
        image_appendix=[1, "\N{BLUE HEART}"],
    )
    *_, (image,), (end,) = messages(2, recorded, images_of(recorded))
    assert image.startswith(RECORDED_IMAGE)
    assert end == RECORDED_END


def test_stream_v2_sends_tables_only_when_all_is_wanted():
    tables = {"flatfield", "pixel_mask", "countrate_correction_lookup_table"}
    for detail in ("none", "basic", "all"):
        header = loads(messages(2, series(header_detail=detail), [])[0][0])
        assert len(tables & set(header)) == (3 if detail == "all" else 0)
    assert header["pixel_mask"]["threshold_1"].shape == (40, 60)
    assert header["flatfield"]["threshold_1"].dtype == np.dtype("<f4")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("high", [3, 250])
def test_the_legacy_stream_is_as_its_documentation_says(dtype, codec, high):
    sent = series(dtype=dtype, codec=codec)
    images = images_of(sent, high)
    start, *middle, end = messages(1, sent, images)
    assert json.loads(start[0]) == {"htype": "dheader-1.0", "series": 7, "header_detail": "basic"}
    assert json.loads(start[1])["x_pixels_in_detector"] == 60
    assert json.loads(start[1])["nimages"] == 4
    for image_id, (first, second, blob, fourth) in enumerate(middle):
        digest = hashlib.md5(blob).hexdigest()
        assert json.loads(first) == {
            "htype": "dimage-1.0", "series": 7, "frame": image_id, "hash": digest
        }  # fmt: skip
        layout = json.loads(second)
        assert layout["shape"] == [60, 40]
        assert (layout["type"], layout["size"]) == (np.dtype(dtype).name, len(blob))
        assert json.loads(fourth)["start_time"] == image_id * 10_000_000
        bits, wanted = 8 * np.dtype(dtype).itemsize, images[image_id][0]
        name = {"none": "<", "bslz4": f"bs{bits}-lz4<", "lz4": "lz4<"}[codec]
        assert layout["encoding"] == name
        if codec == "lz4":
            # A raw block: the framing of HDF5, of one block, is put around it to decode it.
            size = wanted.nbytes.to_bytes(8), wanted.nbytes.to_bytes(4), len(blob).to_bytes(4)
            blob = decompress(b"".join([*size, blob]), "lz4")
        elif codec == "bslz4":
            blob = decompress(blob, "bslz4", elem_size=bits // 8)
        assert blob == wanted.tobytes()
    assert [json.loads(part) for part in end] == [{"htype": "dseries_end-1.0", "series": 7}]


@pytest.mark.parametrize(("detail", "parts"), [("none", 1), ("basic", 2), ("all", 8)])
def test_the_legacy_header_has_as_many_parts_as_its_detail_wants(detail, parts):
    assert len(messages(1, series(header_detail=detail), [])[0]) == parts
    header = messages(1, series(header_detail=detail, header_appendix={"a": 1}), [])[0]
    assert len(header) == parts + 1
    assert json.loads(header[-1]) == {"a": 1}


@pytest.mark.parametrize(("rows", "columns"), [(40, 60), (3, 100), (1, 14), (1, 15)])
def test_noise_that_cannot_be_compressed_is_still_an_lz4_block(rows, columns):
    sent = series(codec="lz4", dtype="|u1", num_images=1, rows=rows, columns=columns)
    images, size = images_of(sent, 256), rows * columns
    blob = messages(1, sent, images)[1][2]
    assert len(blob) > size
    framed = size.to_bytes(8) + size.to_bytes(4) + len(blob).to_bytes(4) + blob
    assert decompress(framed, "lz4") == images[0][0].tobytes()


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63])
def test_numbers_of_any_size_are_sent(number):
    sent = series(series_id=number, header_appendix=[-1 - number, True, None])
    header = loads(messages(2, sent, [])[0][0])
    assert header["series_id"] == number
    assert list(header["user_data"]) == [-1 - number, True, None]


def numbers(sent: list[list[bytes]], version: int) -> list[Any]:
    """What each message is: start, end, or the number of its image."""
    found = []
    for parts in sent:
        if version == 2:
            header = cbor2.loads(parts[0])
            found.append(header["image_id"] if header["type"] == "image" else header["type"])
        else:
            header = json.loads(parts[0])
            found.append(header.get("frame", header["htype"]))
    return found


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("fault", "order"),
    [
        (EigerFault("drop", 1), [0, 2, 3]),
        (EigerFault("duplicate", 1), [0, 1, 1, 2, 3]),
        (EigerFault("reorder", 1), [0, 2, 1, 3]),
        (EigerFault("reorder", 3), [0, 1, 2, 3]),
        (EigerFault("stall", 1), [0, 1, 2, 3]),
        (EigerFault("missing_end", 1), [0, 1, 2, 3]),
    ],
)
def test_faults_of_order_change_just_the_order(version, fault, order):
    sent = series()
    start, end = ("start", "end") if version == 2 else ("dheader-1.0", "dseries_end-1.0")
    found = numbers(messages(version, sent, images_of(sent), fault), version)
    assert found == [start, *order] + ([] if fault.kind == "missing_end" else [end])


@pytest.mark.parametrize("version", [1, 2])
def test_a_restart_begins_another_series_with_all_its_images(version):
    sent = series()
    parts = messages(version, sent, images_of(sent), EigerFault("restart", 2))
    start, end = ("start", "end") if version == 2 else ("dheader-1.0", "dseries_end-1.0")
    assert numbers(parts, version) == [start, 0, 1, start, 0, 1, 2, 3, end]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "kind", ["truncate", "corrupt", "wrong_dtype", "transposed", "trailing_garbage"]
)
def test_faults_of_content_change_just_their_image(version, kind):
    sent = series()
    good = messages(version, sent, images_of(sent))
    bad = messages(version, sent, images_of(sent), EigerFault(kind, 2))
    changed = [i for i, (a, b) in enumerate(zip(good, bad, strict=True)) if a != b]
    assert changed == [3]
    assert sum(a != b for a, b in zip(good[3], bad[3], strict=True)) == 1


def test_a_corrupt_image_differs_in_one_bit():
    sent = series()
    good = messages(2, sent, images_of(sent))[2][0]
    bad = messages(2, sent, images_of(sent), EigerFault("corrupt", 1))[2][0]
    difference = [a ^ b for a, b in zip(good, bad, strict=True) if a != b]
    assert [value.bit_count() for value in difference] == [1]


@pytest.mark.parametrize("version", [1, 2])
def test_a_series_goes_over_a_real_socket(version):
    sent = series()
    images = images_of(sent)
    dcu = EigerDcu(version)
    with zmq.Context() as context, context.socket(zmq.PULL) as receiver:
        receiver.connect(dcu.address)
        assert dcu.send_series(sent, images, [EigerFault("stall", 1, delay_s=0.01)]) == 6
        received = []
        for _ in range(6):
            assert receiver.poll(20_000)
            received.append(receiver.recv_multipart())
        dcu.close()
    assert received == messages(version, sent, images)


def test_a_dcu_without_a_receiver_says_so():
    dcu = EigerDcu(timeout_s=0.05)
    with pytest.raises(ServiceError, match="nobody took message 0 of series 7"):
        dcu.send_series(series(), [])
    with pytest.raises(ServiceError, match="cannot bind the stream port"):
        EigerDcu(address=dcu.address)
    dcu.close()


@pytest.mark.parametrize(
    ("version", "changes", "named"),
    [
        (1, {"channels": ("a", "b")}, "one channel, not 2"),
        (2, {"num_images": 3}, "4 images for a series of 3"),
        (2, {"channels": ("a", "b")}, "image 0 has 1 channels"),
        (2, {"rows": 41}, r"image 0 is <u2 \(40, 60\)"),
        (2, {"dtype": "<u4"}, "its series is <u4"),
    ],
)
def test_images_that_do_not_fit_their_series_are_refused(version, changes, named):
    with pytest.raises(InputError, match=named):
        messages(version, series(**changes), images_of(series()))


def test_what_no_eiger_sends_is_refused():
    with pytest.raises(InputError, match="dtype <f4"):
        series(dtype="<f4")
    with pytest.raises(InputError, match="timedelta cannot be sent"):
        messages(2, series(header_appendix=timedelta(1)), [])
