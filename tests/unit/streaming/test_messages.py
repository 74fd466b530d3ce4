"""Messages between the processes of a session."""

from __future__ import annotations

import logging
import pickle
import threading

import msgpack
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from apsber_bluesky.core import ServiceError
from apsber_bluesky.streaming import Inbox, Outbox
from apsber_bluesky.streaming._messages import (
    MAXIMUM_MESSAGE_BYTES,
    pack_message,
    unpack_message,
)


@pytest.fixture
def inbox():
    inbox = Inbox()
    yield inbox
    inbox.close()


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.binary(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.text(), st.dictionaries(st.text(max_size=5), plain))
def test_plain_values_survive_the_way(kind, values):
    message = {**values, "type": kind}
    assert unpack_message(pack_message(message)) == message


@given(st.binary(max_size=300))
def test_random_bytes_are_a_message_or_refused(packed):
    try:
        message = unpack_message(packed)
    except ServiceError:
        return
    assert isinstance(message["type"], str)


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (msgpack.packb([1, 2]), "not a map"),
        (msgpack.packb({"type": 5}), "not a map with a type"),
        (msgpack.packb({"kind": "frames"}), "not a map with a type"),
        (msgpack.packb({1: 2, "type": "frames"}), "not msgpack"),
        (pickle.dumps({"type": "frames"}), "not"),
        (bytes(MAXIMUM_MESSAGE_BYTES + 1), "exceeds"),
    ],
)
def test_what_is_no_message_is_refused(packed, words):
    with pytest.raises(ServiceError, match=words):
        unpack_message(packed)


def test_a_message_that_would_be_refused_is_not_sent(inbox):
    outbox = Outbox(inbox.address)
    with pytest.raises(ServiceError, match=r"message 'document' of \d+ bytes exceeds"):
        outbox.send({"type": "document", "array": bytes(MAXIMUM_MESSAGE_BYTES)})
    outbox.close()


def test_messages_arrive_in_order_from_several_threads(inbox):
    outbox = Outbox(inbox.address)

    def send(thread: int) -> None:
        for number in range(50):
            outbox.send({"type": "count", "thread": thread, "number": number})

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outbox.close()
    got = [inbox.receive(timeout_s=10) for _ in range(150)]
    for thread in range(3):
        numbers = [message["number"] for message in got if message["thread"] == thread]
        assert numbers == list(range(50))
    assert inbox.receive(timeout_s=0) is None


def test_garbage_on_the_port_is_refused_and_the_next_message_arrives(inbox, caplog):
    context = zmq.Context()
    stranger = context.socket(zmq.PUSH)
    stranger.connect(inbox.address)
    with caplog.at_level(logging.WARNING):
        stranger.send(b"GET / HTTP/1.1\r\n\r\n")
        stranger.send(pickle.dumps(print))
        stranger.send(pack_message({"type": "hello"}))
        got = [inbox.receive(timeout_s=10) for _ in range(3)]
    stranger.close()
    context.term()
    assert got == [None, None, {"type": "hello"}]
    assert caplog.text.count("refused: message") == 2


def test_sending_never_waits_for_an_inbox_that_has_gone():
    inbox = Inbox()
    outbox = Outbox(inbox.address, linger_s=0.0)
    inbox.close()
    for number in range(2000):
        outbox.send({"type": "count", "number": number})
    outbox.close()
