"""Documents on their way to the catalogue's process."""

from __future__ import annotations

import datetime
import enum
import json
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.callbacks import DocumentForwarder
from apsber_bluesky.callbacks._document_forwarder import plain
from apsber_bluesky.streaming import Inbox, Outbox


class Mode(enum.Enum):
    FAST = "fast"


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(-7), -7),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.arange(4, dtype="<u2").reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(5.0), 5.0),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        ({"a": (1, [np.int8(2), {"b": np.ones(1)}])}, {"a": [1, [2, {"b": [1.0]}]]}),
        ({1: "x", 2.5: "y"}, {"1": "x", "2.5": "y"}),
        ({3}, [3]),
        (Mode.FAST, "fast"),
        (Colour.RED, 3),
        (Path("/data/x"), "/data/x"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),
        (10**30, 1e30),
        (2**64 - 1, 2**64 - 1),
        (1 + 2j, "(1+2j)"),
        (None, None),
        (b"raw", b"raw"),
    ],
)
def test_values_become_plain_and_survive_the_way(value, expected):
    got = plain(value)
    assert got == expected
    assert type(got) is type(expected)
    # What travels is msgpack.
    assert msgpack.unpackb(msgpack.packb(got)) == expected


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values)
def test_plain_values_stay_as_they_are(value):
    assert plain(value) == value
    assert json.dumps(plain(value)) == json.dumps(value)


@pytest.fixture
def inbox():
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def outbox(inbox):
    outbox = Outbox(inbox.address)
    yield outbox
    outbox.close()


def test_documents_of_a_run_arrive_in_order_in_another_inbox(engine, flyer, scan, inbox, outbox):
    sent = []
    engine.subscribe(lambda name, document: sent.append((name, plain(document))))
    engine.subscribe(DocumentForwarder(outbox.send))
    md = {"where": {"x": np.float32(2.5)}, "when": datetime.date(2026, 1, 2), "who": {"me"}}
    engine(scan.plan(flyer, md))
    got = [inbox.receive(timeout_s=10) for _ in sent]
    assert [(message["name"], message["document"]) for message in got] == sent
    assert {message["type"] for message in got} == {"document"}
    assert got[0]["document"]["where"] == {"x": 2.5}
    assert inbox.receive(timeout_s=0) is None
