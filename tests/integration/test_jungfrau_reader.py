"""Jungfrau: what the reader makes of each message, made as the emulator makes it."""

import contextlib
import json
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apsber_bluesky.core import FrameError, InputError
from apsber_bluesky.simulation._sls_receiver import SlsReceiver, encode_header
from apsber_bluesky.streaming._jungfrau import JungfrauReader
from apsber_bluesky.streaming._jungfrau_header import parse_header
from apsber_bluesky.streaming._series_messages import Frame, SeriesEnd, SeriesStart

MODULE = (16, 32)
GRID = (2, 1)


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


def message_of(number, place=(0, 0), pixels=PIXELS, **changes):
    """What one of two modules sends of a frame."""
    return [
        encode_header({**SlsReceiver._fields(_TwoModules, place, number, 0), **changes}),
        pixels,
    ]


class _TwoModules(_OneModule):
    _grid = GRID


def two_modules(num_frames, **options):
    rows, columns = GRID[0] * MODULE[0], GRID[1] * MODULE[1]
    wanted = SeriesStart(7, num_frames, rows, columns, "<u2")
    return JungfrauReader(wanted, grid=GRID, **{"sources": 2, **options})


END = [encode_header({"jsonversion": "5", "data": "0"})]


def frames_in(messages):
    return [message.number for message in messages if isinstance(message, Frame)]


@pytest.mark.parametrize(
    "options", [{"window": 5}, {"window_bytes": 5 * 2 * len(PIXELS) + 7}], ids=str
)
def test_frames_under_way_never_exceed_the_window_and_go_on_incomplete(options):
    reader, delivered = two_modules(500, **options), []
    for number in range(1, 501):
        delivered += frames_in(reader.read(message_of(number)))
        assert len(reader._assembler._partial) <= 5
    assert delivered == list(range(495))
    with pytest.raises(FrameError, match=r"module \(1, 0\) of frame 0 came too late"):
        reader.read(message_of(1, (1, 0)), 1)
    assert reader.counts == {"module_missing": 495, "late_module": 1}
    assert frames_in(reader.finish()) == list(range(495, 500))
    assert reader.finish() == []


def test_one_frame_larger_than_the_window_is_joined_all_the_same():
    reader = two_modules(2, window_bytes=1)
    reader.read(message_of(1))
    assert frames_in(reader.read(message_of(1, (1, 0)), 1)) == [0]


def test_a_part_that_its_module_has_passed_by_is_not_awaited():
    reader, delivered = two_modules(100), []
    for number in range(1, 31):
        delivered += frames_in(reader.read(message_of(number)))
        if number != 3:
            delivered += frames_in(reader.read(message_of(number, (1, 0)), 1))
        if number == 4:
            # The others do not wait for it.
            assert delivered == [0, 1, 3]
    # Let go once both have sent what lies 16 frames later.
    assert delivered == [0, 1, *range(3, 19), 2, *range(19, 30)]
    assert reader.incomplete == {2: "module (1, 0) has not come"}


def test_a_cut_part_is_refused_and_its_frame_says_why_it_is_incomplete():
    reader = two_modules(100)
    reader.read(message_of(1))
    with pytest.raises(FrameError, match="1023 bytes of data instead of 1024"):
        reader.read(message_of(1, (1, 0), PIXELS[:-1]), 1)
    assert frames_in(reader.finish()) == [0]
    assert reader.incomplete == {0: "module (1, 0) has 1023 bytes of data instead of 1024"}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ((0, (1, 0)), "socket 0 sent module (0, 0) and now says it is (1, 0)"),
        ((1, (0, 0)), "sockets 0 and 1 both send module (0, 0)"),
    ],
    ids=["another place", "the same place"],
)
def test_a_module_whose_socket_and_header_disagree_is_refused_in_clear_words(second, words):
    reader = two_modules(4)
    reader.read(message_of(1))
    source, place = second
    with pytest.raises(FrameError, match=re.escape(words)):
        reader.read(message_of(2, place), source)
    assert reader.counts == {"wrong_place": 1}
    assert frames_in(reader.read(message_of(1, (1, 0)), 1)) == [0]


def test_one_socket_may_carry_all_modules():
    reader = two_modules(1, sources=1)
    reader.read(message_of(1))
    assert frames_in(reader.read(message_of(1, (1, 0)))) == [0]


PACKET = np.full((4, 1024), 7, dtype="<u2")


@pytest.mark.parametrize(
    ("filled", "came", "expected"),
    [
        ([1], 2, [7, 0, 7]),
        ([0, 2], 1, [0, 7, 0]),
        ([], 2, [0, 0, 0]),
        ([1], 1, [0, 0, 0]),
        ([], 3, [0, 0, 0]),
    ],
    ids=["one", "two", "not filled", "more lost than filled", "packets came, image did not"],
)
def test_packets_that_did_not_come_are_zero_and_all_pixels_if_nobody_knows_which(
    filled, came, expected
):
    pixels = np.concatenate([PACKET] * 3)
    for packet in filled:
        pixels[4 * packet : 4 * packet + 4] = 0xFFFF
    header = header_of(
        shape="[1024, 12]", size=str(pixels.nbytes), packetNumber=str(came), completeImage="0"
    )
    reader = JungfrauReader(SeriesStart(7, 1, 12, 1024, "<u2"))
    frame = reader.read([header, pixels.tobytes()])[1]
    got = np.frombuffer(frame.pixels, "<u2").reshape(3, -1)
    np.testing.assert_array_equal(got, np.repeat(expected, 4096).reshape(3, -1))
    assert not frame.complete


def test_images_sent_on_a_timer_are_told():
    reader = reader_of(1000)
    for number in range(1, 990, 50):
        reader.read([header_of(frameNumber=str(number + number % 7)), PIXELS])
    assert "rx_zmqfreq is 0" in reader.warnings[0]


@pytest.mark.parametrize("lost", [0.1, 0.3, 0.5])
def test_loss_by_chance_is_not_taken_for_thinning(lost):
    for seed in range(20):
        rng, reader = random.Random(seed), reader_of(400)
        for number in range(1, 401):
            if rng.random() > lost:
                reader.read([header_of(frameNumber=str(number)), PIXELS])
        reader.finish()
        assert reader.warnings == []


def test_the_end_comes_once_when_every_module_has_said_it_however_often_one_repeats_it():
    reader = two_modules(2)
    assert reader.read(END, 0) == reader.read(END, 1) == []
    assert reader.counts == {"stale_end": 2}
    reader.read(message_of(1))
    assert reader.read(END, 0) == reader.read(END, 0) == []
    frame, end = reader.read(END, 1)
    assert (frame.number, frame.complete, end) == (0, False, SeriesEnd(7, -1))
    assert reader.read(END, 1) == reader.finish() == []


def test_a_repeated_end_of_the_acquisition_before_does_not_end_a_module_that_goes_on():
    reader = two_modules(2)
    reader.read(message_of(1))
    # From module (1, 0), whose first part is still on its way.
    assert reader.read(END, 1) == []
    assert frames_in(reader.read(message_of(1, (1, 0)), 1)) == [0]
    assert reader.read(END, 0) == []
    assert reader.read(END, 1) == [SeriesEnd(7, -1)]


def test_a_module_that_has_ended_is_not_awaited_any_longer():
    reader = two_modules(9)
    reader.read(message_of(1))
    reader.read(message_of(1, (1, 0)), 1)
    reader.read(message_of(2))
    assert frames_in(reader.read(END, 1)) == [1]


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
        ({"frameNumber": "9" * 21}, "frameNumber"),
        ({"more": "9" * 5000}, "not JSON"),
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
        ({"packetNumber": "2"}, "packetNumber is 2 of 1"),
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
    [
        {"grid": (3, 1)},
        {"grid": (0, 1)},
        {"first_frame": -1},
        {"window": 0},
        {"window_bytes": 0},
        {"grid": (2, 2), "sources": 3},
        {"sources": 0},
    ],
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
