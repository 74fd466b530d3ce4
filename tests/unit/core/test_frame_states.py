"""Each frame's states, marked by several processes at once; lists of frames as text."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import (
    MAXIMUM_FRAMES,
    FrameState,
    InputError,
    RunLedger,
    SeriesBooks,
    StorageError,
    format_ranges,
    parse_ranges,
)

SEEN, WRITTEN, USED = FrameState.SEEN, FrameState.WRITTEN, FrameState.USED


@pytest.fixture
def ledger(tmp_path):
    with RunLedger(tmp_path / "ledger.sqlite", create=True) as ledger:
        yield ledger


def test_states_are_powers_of_two_that_fit_a_byte():
    assert [int(state) for state in FrameState] == [1, 2, 4, 8, 16, 32]


def test_states_add_up_and_the_frames_between_have_none(ledger):
    ledger.mark_frames("primary", SEEN, range(4))
    ledger.mark_frames("primary", WRITTEN, [0, 3])
    ledger.mark_frames("primary", SEEN | FrameState.RECOVERED, iter([7, 3, 3]))
    assert ledger.frame_states("primary").tolist() == [3, 1, 1, 19, 0, 0, 0, 17]
    assert ledger.frame_states("flats").tolist() == []


@given(
    st.lists(
        st.tuples(st.sampled_from(list(FrameState)), st.sets(st.integers(0, 20_000), max_size=30)),
        max_size=6,
    ),
    st.integers(0, 20_000),
    st.integers(0, 9000),
)
def test_marks_are_those_of_a_plain_array(tmp_path_factory, marks, start, length):
    states = np.zeros(30_000, np.uint8)
    with RunLedger(tmp_path_factory.mktemp("l") / "ledger.sqlite", create=True) as ledger:
        for state, frames in marks:
            ledger.mark_frames("flats", state, frames)
            states[list(frames)] |= np.uint8(state)
        last = max((max(frames, default=-1) for _, frames in marks), default=-1)
        assert np.array_equal(ledger.frame_states("flats"), states[: last + 1])
        part = ledger.frame_states("flats", range(start, start + length))
        assert np.array_equal(part, states[start : start + length])


def test_a_frame_that_is_expected_and_unmarked_has_no_state(ledger):
    ledger.set_books("darks", SeriesBooks(expected=5))
    ledger.mark_frames("darks", WRITTEN, [1])
    assert ledger.frame_states("darks").tolist() == [0, 2, 0, 0, 0]


def test_a_million_frames_take_a_byte_each(ledger, tmp_path):
    ledger.mark_frames("primary", SEEN | WRITTEN, range(1_000_000))
    for first in range(0, 1_000_000, 50_000):
        ledger.mark_frames("primary", USED, range(first, first + 32))
    states = ledger.frame_states("primary")
    assert states.shape == (1_000_000,)
    assert np.count_nonzero(states & USED) == 20 * 32
    assert (states & ~np.uint8(USED) == 3).all()
    ledger.close()
    assert (tmp_path / "ledger.sqlite").stat().st_size < 1_500_000


@pytest.mark.parametrize("wrong", [-1, MAXIMUM_FRAMES])
def test_a_frame_that_cannot_be_is_refused_and_none_of_the_call_is_marked(ledger, wrong):
    with pytest.raises(InputError, match=f"frame {wrong} of stream 'flats'"):
        ledger.mark_frames("flats", SEEN, [5, wrong])
    assert ledger.frame_states("flats").tolist() == []


def test_a_ledger_without_the_table_gets_it_when_it_is_opened(ledger, tmp_path):
    ledger._connection.execute("DROP TABLE frames")
    with pytest.raises(StorageError, match="cannot read the run ledger"):
        ledger.frame_states("flats")
    with RunLedger(tmp_path / "ledger.sqlite") as again:
        assert again.frame_states("flats").tolist() == []


MARKER = """
import sys
from pathlib import Path
from apsber_bluesky.core import FrameState, RunLedger, SeriesBooks
state, first = FrameState(int(sys.argv[2])), int(sys.argv[3])
with RunLedger(Path(sys.argv[1]) / "ledger.sqlite") as ledger:
    print("ready", flush=True)
    sys.stdin.readline()
    for chunk in range(200):
        ledger.mark_frames("primary", state, range(first + 20 * chunk, first + 20 * chunk + 20))
        if state is FrameState.USED:
            ledger.set_used("primary", 20 * chunk + 20)
        else:
            ledger.set_books("primary", SeriesBooks(expected=9000, written=20 * chunk + 20))
"""


def test_receiver_and_worker_mark_the_same_frames_at_once_and_no_mark_is_lost(ledger, tmp_path):
    ledger.set_books("primary", SeriesBooks(expected=9000))
    # Both in the same rows, half of the frames in common, across the end of a row.
    plans = {int(WRITTEN): 1000, int(USED): 3000}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MARKER, tmp_path, str(state), str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for state, first in plans.items()
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            process.stdin.write(b"go\n")
            process.stdin.flush()
        errors = [process.communicate()[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert errors == ["", ""]
    expected = np.zeros(9000, np.uint8)
    for state, first in plans.items():
        expected[first : first + 4000] |= np.uint8(state)
    assert np.array_equal(ledger.frame_states("primary"), expected)
    books = ledger.books.streams["primary"]
    assert (books.expected, books.written, books.used) == (9000, 4000, 4000)


@given(st.sets(st.integers(0, MAXIMUM_FRAMES - 1)))
def test_any_frames_survive_as_text(numbers):
    assert parse_ranges(format_ranges(numbers)) == sorted(numbers)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([0], "0"),
        ([17, *range(40, 53), 99], "17, 40-52, 99"),
        ([3, 1, 2, 2], "1-3"),
        ([4, 5], "4-5"),
    ],
)
def test_frames_are_written_as_ranges(numbers, text):
    assert format_ranges(numbers) == text


def test_only_what_is_shown_is_cut_short():
    assert format_ranges([1, 3, 5, 7, 8], at_most=2) == "1, 3, and 2 more"
    assert format_ranges([1, 3, 5], at_most=3) == "1, 3, 5"


@pytest.mark.parametrize(
    "text",
    [
        "a", "3-", "-3", "1,,2", "5-3", "3, 2", "1-4, 4", "1.5", "1 2", "0-99999999", "0-16777216",
        "٣",
    ],
)  # fmt: skip
def test_text_that_is_no_list_of_frames_is_refused(text):
    with pytest.raises(InputError, match="frames"):
        parse_ranges(text)
