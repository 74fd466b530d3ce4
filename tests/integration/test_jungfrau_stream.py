"""Jungfrau: from slsReceiver's sockets to frames, with everything that goes wrong named."""

import contextlib
import json
import random
import threading

import numpy as np
import pytest
import xxhash
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.simulation._sls_receiver import SlsReceiver, StreamFaults, encode_header
from apsber_bluesky.streaming._jungfrau import JungfrauReader, parse_header
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart

MODULE = (16, 32)


def images_of(count, grid, seed=0):
    shape = (count, grid[0] * MODULE[0], grid[1] * MODULE[1])
    return np.random.default_rng(seed).integers(0, 2**16, shape, dtype=np.uint16)


def wanted_of(images):
    return SeriesStart(7, len(images), images.shape[1], images.shape[2], "<u2")


def header_of(**changes):
    """A good header of one module, with fields given as JSON."""
    fields = SlsReceiver._fields(_OneModule, (0, 0), 1, 0)
    return encode_header({**fields, **changes})


class _OneModule:
    _module_shape = MODULE
    _grid = (1, 1)
    _file_index = 1


def reader_of(num_frames=4, **options):
    return JungfrauReader(SeriesStart(7, num_frames, *MODULE, "<u2"), **options)


PIXELS = bytes(MODULE[0] * MODULE[1] * 2)


class Stream:
    """An emulator and one subscriber per module, read by one reader."""

    def __init__(self, images, grid, **options):
        self.images, self.grid = images, grid
        self.source = SlsReceiver(grid=grid, module_shape=MODULE, high_water_mark=0)
        self.reader = JungfrauReader(wanted_of(images), grid=grid, **options)
        self.refused = []
        self.messages = []
        self._context = zmq.Context()
        self._sockets = {}
        self._over = set()
        for place, address in self.source.addresses.items():
            socket = self._context.socket(zmq.SUB)
            socket.rcvhwm = 0
            socket.subscribe(b"")
            socket.connect(address)
            self._sockets[socket] = place
        self.source.wait_for_subscribers()

    def run(self, **faults):
        """Send everything and read it all."""
        sender = threading.Thread(target=self._send, kwargs=faults)
        sender.start()
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        while len(self._over) < len(self._sockets):
            for socket, _ in poller.poll():
                self._take(socket)
        sender.join()
        self.reader.finish()

    def _send(self, **faults):
        self.source.send(self.images, **faults)
        # Nothing comes after this; the reader does not get to see it.
        for socket in self.source._sockets.values():
            socket.send(b"over")

    def _take(self, socket):
        parts = [part.buffer for part in socket.recv_multipart(copy=False)]
        if parts[0] == b"over":
            self._over.add(socket)
            return
        try:
            self.messages += self.reader.read(parts, self._sockets[socket])
        except FrameError as error:
            self.refused.append(str(error))

    @property
    def frames(self):
        return {m.number: m for m in self.messages if isinstance(m, Frame)}

    def close(self):
        for socket in self._sockets:
            socket.close(0)
        self._context.term()
        self.source.close()


@pytest.fixture
def stream():
    opened = []

    def open_stream(count, grid=(1, 1), **options):
        opened.append(Stream(images_of(count, grid), grid, **options))
        return opened[-1]

    yield open_stream
    for each in opened:
        each.close()


def assert_delivered(stream, missing=()):
    frames = stream.frames
    assert sorted(set(range(len(stream.images))) - set(frames)) == sorted(missing)
    assert stream.reader.missing == sorted(missing)
    for number, frame in frames.items():
        expected = stream.images[number].tobytes()
        assert bytes(frame.pixels) == expected
        assert frame.checksum == xxhash.xxh3_64_intdigest(expected)


@pytest.mark.parametrize(
    ("count", "grid"), [(4000, (1, 1)), (2000, (2, 2)), (1000, (4, 1))], ids=str
)
def test_thousands_of_frames_of_interleaved_modules_arrive_whole_and_once(stream, count, grid):
    run = stream(count, grid, window=count)
    run.run()
    assert run.messages[0] == wanted_of(run.images)
    assert run.messages[-1] == SeriesEnd(7, -1)
    assert len(run.messages) == count + 2
    assert not run.refused
    assert not run.reader.counts
    assert_delivered(run)


def test_timestamps_are_the_detectors_ticks_from_its_clocks_zero(stream):
    run = stream(3, clock_zero_s=1.7e9)
    run.run()
    times = [run.frames[number].timestamp_s for number in range(3)]
    assert times == [1.7e9 + 1e-7 * 10_000 * number for number in (1, 2, 3)]
    assert all(np.isnan(frame.angle_deg) for frame in run.frames.values())


GRID = (2, 1)


@pytest.mark.parametrize(
    ("faults", "missing", "counts"),
    [
        ({"faults": StreamFaults(drop=frozenset([0, 5, 19]))}, [0, 5, 19], {}),
        ({"faults": StreamFaults(duplicate=frozenset([3]))}, [], {"duplicate_module": 2}),
        ({"faults": StreamFaults(swap_with_next=frozenset([4]))}, [], {}),
        ({"faults": StreamFaults(stall_s={2: 0.05})}, [], {}),
        ({"faults": StreamFaults(missing_end=True)}, [], {}),
        (
            {"faults": StreamFaults(truncate=frozenset([6]))},
            [6],
            {"truncated": 1},
        ),
        ({"faults": StreamFaults(corrupt=frozenset([8]))}, [8], {"bad_header": 2}),
        ({"faults": StreamFaults(wrong_dtype=frozenset([9]))}, [9], {"bad_header": 2}),
        (
            {"faults": StreamFaults(restart_before=15)},
            [15, 16, 17, 18, 19],
            {"other_acquisition": 10},
        ),
        ({"lost_packets": {(11, 1, 0): 1}}, [11], {"packets_missing": 1}),
        ({"lost_modules": frozenset([(12, 0, 0)])}, [12], {"module_missing": 1}),
        (
            {"header_changes": {"completeImage": "0"}},
            list(range(20)),
            {"incomplete_image": 20},
        ),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_each_fault_costs_only_its_own_frames_and_is_named(stream, faults, missing, counts):
    run = stream(20, GRID)
    run.run(**faults)
    assert_delivered(run, missing)
    for name, number in counts.items():
        assert run.reader.counts[name] >= number
    if not counts:
        assert not run.reader.counts
    assert set(run.reader.counts) <= {*counts, "late_module"}


def test_frames_lost_before_the_first_that_came_are_gaps_and_those_beyond_the_last_refused(stream):
    run = stream(20, GRID)
    run.run(first_frame=3)
    assert run.reader.missing == [0, 1]
    assert run.reader.counts == {"outside_series": 4}
    assert "frameNumber 21 is not in 1..20" in run.refused[0]
    for number, frame in run.frames.items():
        assert bytes(frame.pixels) == run.images[number - 2].tobytes()


def test_a_module_that_never_comes_is_named_once_the_window_has_passed(stream):
    run = stream(20, GRID, window=4)
    run.run(lost_modules=frozenset([(2, 1, 0)]))
    assert run.reader.incomplete == {2: "given up without modules [(1, 0)]"}
    assert_delivered(run, [2])


def test_frames_under_way_never_exceed_the_window():
    images = images_of(500, GRID)
    reader = JungfrauReader(wanted_of(images), grid=GRID, window=5)
    source = _TwoModules
    for number in range(1, 501):
        fields = SlsReceiver._fields(source, (0, 0), number, 0)
        reader.read([encode_header(fields), PIXELS])
        assert len(reader._assembler._partial) <= 5
    fields = SlsReceiver._fields(source, (1, 0), 1, 0)
    with pytest.raises(FrameError, match="frame 0, given up without modules"):
        reader.read([encode_header(fields), PIXELS])
    assert reader.counts == {"module_missing": 495, "late_module": 1}


class _TwoModules(_OneModule):
    _grid = GRID


def test_the_end_comes_once_when_every_module_has_said_it_however_often_one_repeats_it():
    reader = JungfrauReader(wanted_of(images_of(2, GRID)), grid=GRID)
    end = [encode_header({"jsonversion": "5", "data": "0"})]
    assert reader.read(end, "a") == reader.read(end, "b") == []
    assert reader.counts == {"stale_end": 2}
    reader.read([encode_header(SlsReceiver._fields(_TwoModules, (0, 0), 1, 0)), PIXELS])
    assert reader.read(end, "a") == reader.read(end, "a") == []
    assert reader.read(end, "b") == [SeriesEnd(7, -1)]
    assert reader.read(end, "b") == []


def test_rows_that_a_module_sends_upside_down_are_turned():
    pixels = np.arange(MODULE[0] * MODULE[1], dtype="<u2").reshape(MODULE)
    messages = reader_of().read([header_of(flipRows="1"), pixels.tobytes()])
    assert bytes(messages[1].pixels) == pixels[::-1].tobytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"jsonversion": "4"}, "jsonversion = 4 is not 5"),
        ({"jsonversion": "true"}, "jsonversion"),
        ({"data": "2"}, "data = 2"),
        ({"bitmode": "32"}, "bitmode"),
        ({"detType": "1"}, "detType = 1 is not 3"),
        ({"quad": "1"}, "quad"),
        ({"frameNumber": "-1"}, "frameNumber"),
        ({"frameNumber": "1.0"}, "frameNumber"),
        ({"frameNumber": "18446744073709551616"}, "frameNumber"),
        ({"frameNumber": "9" * 21}, "integer of 21 digits"),
        ({"shape": "[32]"}, "shape"),
        ({"shape": "[16, 32]"}, "shape"),
        ({"shape": '"32"'}, "shape"),
        ({"detshape": "[1, 2]"}, "detshape"),
        ({"size": "2048"}, "size"),
        ({"rx_roi": "[0, 15, 0, 15]"}, "rx_roi"),
        ({"row": "1"}, "module"),
        ({"progress": "NaN"}, "NaN"),
        ({"progress": '"half"'}, "progress"),
        ({"fname": '"a "quoted" name"'}, "not JSON"),
        ({"fname": "5"}, "fname"),
        ({"addJsonHeader": "[]"}, "addJsonHeader"),
        ({"addJsonHeader": '{"a": 1}'}, "addJsonHeader"),
        ({"addJsonHeader": '{"a": "1", "a": "2"}'}, "'a' comes twice"),
        ({"more": "[" * 70 + "]" * 70}, "nested"),
        ({"more": '"' + "x" * 9000 + '"'}, "bytes exceeds"),
        ({"packetNumber": "2"}, "2 of 1 packets"),
        ({"completeImage": "0"}, "completeImage"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_header_that_is_wrong_is_refused_and_the_field_named(changes, named):
    reader = reader_of()
    with pytest.raises(FrameError, match=named.replace("[", r"\[")):
        reader.read([header_of(**changes), PIXELS])
    assert reader.counts.total() == 1


@pytest.mark.parametrize("field", sorted(json.loads(header_of())))
def test_a_header_without_one_of_its_fields_is_refused(field):
    fields = {key: json.dumps(value) for key, value in json.loads(header_of()).items()}
    del fields[field]
    with pytest.raises(FrameError, match=field):
        reader_of().read([encode_header(fields), PIXELS])


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [header_of()],
        [header_of(), PIXELS, PIXELS],
        [encode_header({"jsonversion": "5", "data": "0"}), PIXELS],
        [header_of() + b"{}", PIXELS],
        [header_of().decode().encode("utf-16"), PIXELS],
        [b"\xff" + header_of(), PIXELS],
        [b"[]", PIXELS],
        [b"5", PIXELS],
        [header_of(), PIXELS[:-1]],
        [header_of(), PIXELS + b"x"],
    ],
    ids=range(11),
)
def test_a_message_of_another_make_is_refused_and_counted(parts):
    reader = reader_of()
    with pytest.raises(FrameError):
        reader.read(parts)
    assert reader.counts.total() == 1


@pytest.mark.parametrize(
    "options",
    [{"grid": (3, 1)}, {"grid": (0, 1)}, {"first_frame": -1}, {"window": 0}],
    ids=str,
)
def test_a_reader_that_cannot_work_is_refused(options):
    with pytest.raises(InputError):
        reader_of(**options)


def test_another_dtype_than_the_detectors_is_refused():
    with pytest.raises(InputError, match="<u4"):
        JungfrauReader(SeriesStart(7, 1, *MODULE, "<u4"))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(key=st.sampled_from(sorted(json.loads(header_of()))), value=JSON_VALUES)
@settings(max_examples=200, deadline=None)
def test_any_value_of_any_field_is_taken_or_refused(key, value):
    header = json.loads(header_of())
    header[key] = value
    with contextlib.suppress(FrameError):
        reader_of().read([json.dumps(header).encode(), PIXELS])


@given(packed=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused(packed):
    with pytest.raises(FrameError):
        parse_header(packed)


def mutated(rng, good):
    """One to eight bytes changed, put in, taken out, cut or repeated."""
    packed = bytearray(good)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(packed) + 1)
        kind = rng.randrange(5)
        if kind == 0 and packed:
            packed[at % len(packed)] = rng.randrange(256)
        elif kind == 1:
            packed[at:at] = rng.choice([b"[", b"{", b'"', b",", b"9" * 30, b"-", b"1e400", b"\\u"])
        elif kind == 2:
            del packed[at : at + rng.randint(1, 20)]
        elif kind == 3:
            packed[at:at] = packed[at : at + rng.randint(1, 60)]
        elif len(packed) > 2:
            first, second = rng.randrange(len(packed)), rng.randrange(len(packed))
            packed[first], packed[second] = packed[second], packed[first]
    return bytes(packed)


VALUES = ["-1", "0", "1", "2", "1.5", "1e400", "true", "null", '""', "[]", "{}", "[1]", "9" * 19]


def restructured(rng):
    """A header of which fields were changed, taken out, or repeated, in JSON that is right."""
    fields = list(json.loads(header_of()).items())
    fields = [(key, json.dumps(value)) for key, value in fields]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(fields))
        kind = rng.randrange(4)
        if kind < 2:
            fields[at] = (fields[at][0], rng.choice(VALUES))
        elif kind == 2:
            fields[at] = (fields[at][0], fields[rng.randrange(len(fields))][1])
        else:
            del fields[at]
    if rng.random() < 0.1:
        fields.append(rng.choice(fields))
    return ("{" + ",".join(f'"{key}":{value}' for key, value in fields) + "}").encode()


def fuzz(count, seed=0):
    """Read `count` mutated headers; how many were refused."""
    rng, good, refused = random.Random(seed), header_of(), 0
    for _ in range(count):
        packed = mutated(rng, good) if rng.random() < 0.5 else restructured(rng)
        try:
            reader_of().read([packed, PIXELS])
        except FrameError:
            refused += 1
    return refused


def test_mutated_headers_raise_nothing_but_frame_errors():
    assert fuzz(2000) > 1500
