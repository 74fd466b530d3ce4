"""NTNDArray updates to frames: codecs, ids, restarts, and whatever a server may send."""

import contextlib
import random
import threading
import time
import uuid

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from p4p.client.thread import Disconnected

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.simulation import StreamFaults
from apsber_bluesky.simulation._pva_detector import CODECS, PvaDetector, encode_pixels
from apsber_bluesky.simulation._xspress3 import BINS, Xspress3
from apsber_bluesky.streaming._ntndarray import NtndarrayReader
from apsber_bluesky.streaming._relay import PvaMonitor
from apsber_bluesky.streaming._series_messages import DTYPES, Frame, SeriesEnd, SeriesStart

ROWS, COLUMNS = 13, 21
QUEUE = 64


def images_of(count, dtype="<u2", seed=0):
    return np.random.default_rng(seed).poisson(60, (count, ROWS, COLUMNS)).astype(dtype)


@pytest.fixture(scope="module")
def maker():
    """Makes updates; nothing is posted."""
    detector = PvaDetector(f"T{uuid.uuid4().hex}", images_of(1)[0])
    yield detector
    detector.close()


def plain(value):
    """An update as dicts and lists, so that anything can be put into it."""
    return {
        "value": value["value"],
        "codec": {
            "name": value["codec.name"],
            "parameters": value["codec.parameters"],
        },
        "compressedSize": value["compressedSize"],
        "uncompressedSize": value["uncompressedSize"],
        "uniqueId": value["uniqueId"],
        "dataTimeStamp": {
            "secondsPastEpoch": value["dataTimeStamp.secondsPastEpoch"],
            "nanoseconds": value["dataTimeStamp.nanoseconds"],
        },
        "dimension": [{"size": dimension["size"]} for dimension in value["dimension"]],
        "attribute": [
            {"name": attribute["name"], "value": attribute["value"]}
            for attribute in value["attribute"]
        ],
    }


def updates(maker, ids, times_s=None):
    image = images_of(1)[0]
    result = []
    for index, unique_id in enumerate(ids):
        value = plain(maker.value(image, unique_id))
        seconds = 1000 + index if times_s is None else times_s[index]
        value["dataTimeStamp"] = {"secondsPastEpoch": seconds, "nanoseconds": 0}
        result.append(value)
    return result


class Run:
    """A detector and a monitor that reads one acquisition of it."""

    def __init__(self, detector, reader):
        self.detector, self.reader = detector, reader
        self.monitor = PvaMonitor(
            detector._channel, queue_size=QUEUE, configuration=detector.configuration
        )
        self.messages, self.refused = [], []
        self._taken = 0
        while not reader.ready:
            assert self.step(10.0)

    def step(self, timeout_s):
        update = self.monitor.take(timeout_s)
        if update is None:
            return False
        if isinstance(update, Disconnected):
            self.reader.disconnected()
            return True
        try:
            self.messages += self.reader.read(update)
        except FrameError as error:
            self.refused.append(str(error))
        self._taken += 1
        return True

    def run(self, send, *arguments, **options):
        """Post everything and read it all."""
        taken, posts = self._taken, 0

        def hold_back(so_far):
            # No more wait than the queue holds: then PV Access loses nothing.
            nonlocal posts
            posts = so_far + 1
            while so_far - (self._taken - taken) > QUEUE // 2:
                time.sleep(1e-4)

        sender = threading.Thread(
            target=send, args=arguments, kwargs={"before_each": hold_back, **options}
        )
        sender.start()
        while sender.is_alive() or self._taken - taken < posts:
            self.step(0.05)
        sender.join()

    @property
    def frames(self):
        return [message for message in self.messages if isinstance(message, Frame)]


@pytest.fixture
def run_of():
    opened = []

    def open_run(detector, reader):
        opened.append(detector)
        run = Run(getattr(detector, "detector", detector), reader)
        opened.append(run.monitor)
        return run

    yield open_run
    for each in reversed(opened):
        each.close()


def pva(images, **options):
    return PvaDetector(f"T{uuid.uuid4().hex}", images[0], **options)


def assert_delivered(run, images, missing=()):
    assert [frame.number for frame in run.frames] == [
        number for number in range(len(images)) if number not in missing
    ]
    for frame in run.frames:
        expected = images[frame.number].tobytes()
        assert bytes(frame.pixels) == expected
        assert frame.checksum == xxhash.xxh3_64_intdigest(expected)
    assert run.reader.missing == sorted(missing)


@pytest.mark.parametrize("codec", CODECS)
def test_thousands_of_frames_of_every_codec_arrive_with_their_bytes(run_of, codec):
    images = images_of(1000)
    run = run_of(pva(images, codec=codec, last_id=41), NtndarrayReader(3, len(images)))
    run.run(run.detector.send, images, angles_deg=np.arange(1000) * 0.18)
    assert run.messages[0] == SeriesStart(3, 1000, ROWS, COLUMNS, "<u2")
    assert run.messages[-1] == SeriesEnd(3, -1)
    assert_delivered(run, images)
    assert run.reader.counts == {"stale": 1}
    assert [frame.angle_deg for frame in run.frames] == list(np.arange(1000) * 0.18)
    assert run.frames[5].timestamp_s == pytest.approx(1.7e9 + 0.007, abs=1e-6)


@pytest.mark.parametrize("corrected", [False, True], ids=["u4", "f8"])
def test_spectra_are_frames_of_channels_by_bins_with_the_hardwares_number(run_of, corrected):
    source = Xspress3(f"T{uuid.uuid4().hex}", num_channels=3, corrected=corrected)
    run = run_of(source, NtndarrayReader(2, 500, first_id=0, shape=(3, BINS)))
    run.run(source.send, 500)
    spectra = np.stack([source.spectra(number) for number in range(500)])
    assert run.messages[0] == SeriesStart(2, 500, 3, BINS, "<f8" if corrected else "<u4")
    assert_delivered(run, spectra)


def test_a_spectrum_lost_on_the_way_is_a_gap_at_the_hardwares_number(run_of):
    source = Xspress3(f"T{uuid.uuid4().hex}", num_channels=2)
    run = run_of(source, NtndarrayReader(2, 40, first_id=0))
    faults = StreamFaults(drop=frozenset([0, 17, 39]))
    run.run(source.send, 40, faults=faults)
    spectra = np.stack([source.spectra(number) for number in range(40)])
    assert_delivered(run, spectra, [0, 17, 39])


@pytest.mark.parametrize("codec", ["", "zlib", "blosc", "lz4", "lz4hdf5", "bslz4"])
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_the_original_type_comes_from_the_codec_not_from_the_bytes(
    maker, monkeypatch, codec, dtype
):
    monkeypatch.setattr(maker, "_codec", codec)
    image = images_of(1, dtype)[0]
    reader = NtndarrayReader(1, 1, first_id=1)
    reader.read(maker.value(image, 0))
    start, frame, _ = reader.read(maker.value(image, 1))
    assert (start.rows, start.columns, start.dtype) == (ROWS, COLUMNS, dtype)
    assert bytes(frame.pixels) == image.tobytes()


def test_bslz4_that_kept_the_header_of_its_hdf5_chunk_is_read_too(maker):
    image = images_of(1)[0]
    reader = NtndarrayReader(1, 1, first_id=1)
    stale, frame = updates(maker, [0, 1])
    reader.read(stale)
    header = image.nbytes.to_bytes(8, "big") + (8192).to_bytes(4, "big")
    packed = header + encode_pixels(image, "bslz4").tobytes()
    frame["value"] = np.frombuffer(packed, "u1")
    frame["codec"] = {"name": "bslz4", "parameters": 6}
    assert bytes(reader.read(frame)[1].pixels) == image.tobytes()


def test_a_stale_compressed_size_of_plain_pixels_is_not_believed(maker):
    image = images_of(1)[0]
    reader = NtndarrayReader(1, 2)
    values = [maker.value(image, unique_id) for unique_id in range(2)]
    values[1]["compressedSize"] = 17
    assert reader.read(values[0]) == []
    assert bytes(reader.read(values[1])[1].pixels) == image.tobytes()


@pytest.mark.parametrize(
    ("faults", "missing", "counts"),
    [
        (StreamFaults(drop=frozenset([0, 7, 19])), [0, 7, 19], {}),
        (StreamFaults(duplicate=frozenset([3, 19])), [], {"duplicate": 2}),
        (StreamFaults(swap_with_next=frozenset([5])), [5], {"out_of_order": 1}),
        (StreamFaults(stall_s={4: 0.05}), [], {}),
        (StreamFaults(truncate=frozenset([6])), [6], {"malformed": 1}),
        (StreamFaults(corrupt=frozenset([8])), [8], {"malformed": 1}),
        (StreamFaults(wrong_dtype=frozenset([9])), [9], {"wrong_geometry": 1}),
        (StreamFaults(restart_before=15), [15, 16, 17, 18, 19], {"outside_series": 4}),
    ],
    ids=["drop", "duplicate", "reorder", "stall", "truncate", "corrupt", "dtype", "restart"],
)
@pytest.mark.parametrize("codec", ["", "bslz4"])
def test_each_fault_costs_only_its_own_frames_and_is_named(run_of, codec, faults, missing, counts):
    images = images_of(20)
    run = run_of(pva(images, codec=codec, last_id=100), NtndarrayReader(3, 20))
    run.run(run.detector.send, images, faults=faults)
    assert_delivered(run, images, missing)
    assert run.reader.counts == {"stale": 1, **counts}
    assert run.reader.epoch == (faults.restart_before is not None)


def test_a_server_that_is_restarted_ends_the_series_and_its_frames_keep_out(run_of):
    images = images_of(10)
    run = run_of(pva(images, last_id=5), NtndarrayReader(3, 10))
    run.run(run.detector.send, images[:4])
    run.detector.restart(images[0])
    while run.reader.epoch == 0:
        assert run.step(20.0)
    assert run.messages[-1] == SeriesEnd(3, -1)
    run.run(run.detector.send, images[:8])
    assert_delivered(run, images, [4, 5, 6, 7, 8, 9])
    assert run.reader.counts == {"stale": 1, "disconnected": 1, "outside_series": 8}
    assert "which is over" in run.refused[0]


def test_a_reconnection_that_shows_the_same_update_again_is_no_restart(maker):
    reader = NtndarrayReader(1, 3)
    values = updates(maker, [5, 6, 7, 8])
    for value in values[:3]:
        reader.read(value)
    reader.disconnected()
    assert reader.read(values[2]) == []
    assert reader.counts == {"stale": 1, "disconnected": 1, "duplicate": 1}
    assert len(reader.read(values[3])) == 2
    assert (reader.epoch, reader.missing) == (0, [])


def test_ids_that_begin_anew_after_a_reconnection_are_a_restart_even_if_the_clock_went_back(maker):
    reader = NtndarrayReader(1, 9)
    for value in updates(maker, [5, 6, 7]):
        reader.read(value)
    reader.disconnected()
    assert reader.read(updates(maker, [1], [10])[0]) == [SeriesEnd(1, -1)]
    assert (reader.epoch, reader.missing) == (1, list(range(2, 9)))


def test_the_image_of_before_is_stale_again_when_the_channel_comes_back_before_the_series(maker):
    # Its id could be that of a frame of the series: the counter is about to be reset.
    reader = NtndarrayReader(1, 9, first_id=1)
    stale, first = updates(maker, [5, 1])
    assert reader.read(stale) == []
    reader.disconnected()
    assert reader.read(stale) == []
    assert reader.read(first)[1].number == 0
    assert (reader.epoch, reader.missing) == (0, list(range(1, 9)))


@pytest.mark.parametrize(("first_id", "missing"), [(None, [0, 1]), (2, [0, 2])])
def test_a_counter_that_is_reset_before_the_series_begins_still_shows_the_first_gap(
    maker, first_id, missing
):
    reader = NtndarrayReader(1, 3, first_id=first_id)
    for value in updates(maker, [90, 3]):
        reader.read(value)
    assert reader.missing == missing


def test_an_id_beyond_the_last_ends_the_series_and_the_last_is_missing(maker):
    reader = NtndarrayReader(1, 3)
    messages = [m for value in updates(maker, [0, 1, 2, 4]) for m in reader.read(value)]
    assert messages[-1] == SeriesEnd(1, -1)
    assert reader.missing == [2]
    with pytest.raises(FrameError, match="which is over"):
        reader.read(updates(maker, [5], [2000])[0])


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("uniqueId",), -1, "id or time"),
        (("uniqueId",), "5", "id or time"),
        (("dataTimeStamp", "nanoseconds"), 2**31, "id or time"),
        (("value",), None, "no array"),
        (("value",), np.zeros((ROWS, COLUMNS), "u2"), "no array"),
        (("value",), np.zeros(ROWS * COLUMNS, "?"), "dtype"),
        (("value",), np.zeros(ROWS * COLUMNS, "O"), "dtype"),
        (("value",), np.zeros(5, "u2"), "10 bytes of pixels instead of 546"),
        (("dimension",), [], "0 dimensions"),
        (("dimension",), [{"size": 3}] * 3, "3 dimensions"),
        (("dimension",), [{"size": 0}, {"size": 13}], "malformed"),
        (("dimension",), [{"size": 2**20}, {"size": 2**20}], "exceed"),
        (("dimension",), [{}], "malformed"),
        (("codec",), None, "malformed"),
        (("codec", "name"), "jpeg", "elements instead of bytes"),
        (("attribute",), None, "malformed"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_update_that_is_malformed_is_refused_and_counted(maker, path, value, named):
    reader = NtndarrayReader(1, 3)
    stale, frame = updates(maker, [0, 1])
    reader.read(stale)
    inner = frame
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(FrameError, match=named):
        reader.read(frame)
    assert reader.counts == {"stale": 1, "malformed": 1}
    assert len(reader.read(updates(maker, [2], [2000])[0])) == 2


def test_a_codec_or_type_that_nobody_knows_is_refused(maker):
    for codec, code, named in (("jpeg", 6, "codec 'jpeg'"), ("zlib", 11, "type code 11")):
        reader = NtndarrayReader(1, 3)
        stale, frame = updates(maker, [0, 1])
        reader.read(stale)
        frame["value"] = np.zeros(40, "u1")
        frame["codec"] = {"name": codec, "parameters": code}
        with pytest.raises(FrameError, match=named):
            reader.read(frame)


@pytest.mark.parametrize(
    "arguments", [(1, 0), (1, 5, -1), (1, 5, 2**31 - 3)], ids=["none", "negative", "wrap"]
)
def test_a_series_whose_ids_do_not_exist_is_refused(arguments):
    with pytest.raises(InputError, match="first id"):
        NtndarrayReader(*arguments[:2], first_id=arguments[2] if len(arguments) > 2 else None)


ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=10)
    | st.lists(st.integers(), max_size=3)
    | st.sampled_from(["<u2", "|u1", "<f8", "?", "O", "<c8", "<U3"]).map(
        lambda dtype: np.zeros(7, dtype)
    )
    | st.dictionaries(st.sampled_from(["name", "size", "parameters"]), st.integers(), max_size=3)
)
PATHS = [
    ("value",),
    ("codec",),
    ("codec", "name"),
    ("codec", "parameters"),
    ("uniqueId",),
    ("dataTimeStamp",),
    ("dataTimeStamp", "secondsPastEpoch"),
    ("dataTimeStamp", "nanoseconds"),
    ("dimension",),
    ("dimension", 0),
    ("dimension", 1, "size"),
    ("attribute",),
]


@given(changes=st.lists(st.tuples(st.sampled_from(PATHS), ANYTHING), max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_value_at_any_place_is_taken_or_refused(maker, changes):
    stale, frame = updates(maker, [0, 1])
    reader = NtndarrayReader(1, 3)
    reader.read(stale)
    for path, value in changes:
        with contextlib.suppress(TypeError, KeyError, IndexError):
            inner = frame
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
    with contextlib.suppress(FrameError):
        for message in reader.read(frame):
            assert isinstance(message, SeriesStart | Frame | SeriesEnd)


def fuzz(maker, codec, count, seed=0):
    """Read `count` updates whose compressed bytes were changed; how many were refused."""
    rng = random.Random(seed)
    maker._codec = codec
    image = images_of(1)[0]
    good = plain(maker.value(image, 1))
    packed, refused = good["value"].tobytes(), 0
    for _ in range(count):
        data = bytearray(packed)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            if rng.random() < 0.6:
                data[at] = rng.randrange(256)
            elif rng.random() < 0.5:
                del data[at : at + rng.randint(1, 40)]
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            data = data or bytearray(1)
        reader = NtndarrayReader(1, 2, first_id=1)
        reader.ready = True
        try:
            _, frame, *_ = reader.read({**good, "value": np.frombuffer(bytes(data), "u1")})
            assert len(frame.pixels) == image.nbytes
        except FrameError:
            refused += 1
    return refused


@pytest.mark.parametrize("codec", CODECS[1:])
def test_damaged_bytes_of_a_codec_are_refused_or_give_a_frame_of_the_right_size(
    maker, monkeypatch, codec
):
    monkeypatch.setattr(maker, "_codec", codec)
    assert fuzz(maker, codec, 500) > (490 if codec == "zlib" else 50)


@pytest.mark.parametrize("options", [{"channel": ""}, {"channel": "T", "queue_size": 1}], ids=str)
def test_a_monitor_of_nothing_is_refused(options):
    with pytest.raises(InputError):
        PvaMonitor(**options)
