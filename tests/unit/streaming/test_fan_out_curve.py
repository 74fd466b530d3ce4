"""Who may read frames: CURVE with an allow list, refusals in clear words."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
import zmq

from apsber_bluesky.core import FrameRange, RunDescription, ServiceError, TomographyScan
from apsber_bluesky.streaming._authenticator import CurveAuthenticator
from apsber_bluesky.streaming._fan_out import FanOut
from apsber_bluesky.streaming._fan_out_client import ClientKeys, FanOutClient
from apsber_bluesky.streaming._keys import allow_key, allowed_folder, create_keys
from apsber_bluesky.streaming._preview import PreviewPublisher, PreviewSubscriber


@pytest.fixture
def keys(tmp_path):
    """The server's and clients' keys; only that of ``good`` is allowed."""
    folder = tmp_path / "keys"
    pairs = {name: create_keys(folder, name) for name in ("server", "good", "unknown")}
    allow_key(folder, folder / "good.key")
    return folder, pairs


@pytest.fixture
def authenticator(keys):
    folder, pairs = keys
    authenticator = CurveAuthenticator(pairs["server"], allowed_folder(folder))
    yield authenticator
    authenticator.close()


@pytest.fixture
def server(authenticator):
    scan = TomographyScan(num_projections=3, rows=2, columns=2, dtype="<u2", exposure_s=1)
    server = FanOut(
        lambda frames: np.full((1, 2, 2), frames.start, "<u2"),
        missing=lambda _: [],
        authenticator=authenticator,
    )
    server.begin_run(RunDescription(uid="run", scan=scan))
    server.frames(FrameRange("run", "primary", 0, 3, "file:///nowhere", "d"))
    server.end_run("run", "success", "")
    yield server
    server.close()


def indices(server, keys, own=None, of="server"):
    _, pairs = keys
    client_keys = ClientKeys(pairs[own], pairs[of].public) if own else None
    with FanOutClient(server.address, "run", keys=client_keys, silence_s=0.8) as client:
        return [index for index, _ in client]


def logged(caplog, *words):
    """A line of the log with all the words, once it is there."""
    for _ in range(200):
        for record in caplog.records:
            if all(word in record.getMessage() for word in words):
                return
        time.sleep(0.02)
    raise AssertionError(f"{words} not in {caplog.text}")


def test_an_allowed_key_gets_the_frames(server, keys):
    assert indices(server, keys, "good") == [0, 1, 2]


@pytest.mark.parametrize(
    ("own", "of", "told", "reason"),
    [
        ("unknown", "server", "it does not allow this key", "not in the allow list"),
        ("good", "unknown", "its public key is not the one", "another public key for this server"),
        (None, None, "it uses CURVE, but no keys were given", "does not use CURVE"),
    ],
)
def test_everybody_else_is_refused_on_both_sides_in_clear_words(
    server, keys, caplog, own, of, told, reason
):
    with pytest.raises(ServiceError, match=told):
        indices(server, keys, own, of)
    # Whoever hangs up at once may be gone before his address is read.
    logged(caplog, "refused the connection of", reason)
    assert server.clients() == []
    assert indices(server, keys, "good") == [0, 1, 2]


def test_a_refused_key_is_named_so_that_it_can_be_allowed(server, keys, caplog):
    folder, pairs = keys
    with pytest.raises(ServiceError):
        indices(server, keys, "unknown")
    logged(caplog, "127.0.0.1", pairs["unknown"].public.decode(), "apsber keys allow FILE")
    # Noticed without a restart, as is the removal.
    allow_key(folder, folder / "unknown.key")
    assert indices(server, keys, "unknown") == [0, 1, 2]
    (allowed_folder(folder) / "unknown.key").unlink()
    with pytest.raises(ServiceError):
        indices(server, keys, "unknown")


def test_a_broken_file_in_the_allow_list_shuts_out_nobody_else(server, keys, caplog):
    folder, _ = keys
    (allowed_folder(folder) / "broken.key").write_text("nonsense")
    assert indices(server, keys, "good") == [0, 1, 2]
    logged(caplog, "left out of the allow list", "broken.key")


def test_without_an_allow_list_nobody_is_allowed(server, keys):
    folder, _ = keys
    allowed_folder(folder).rename(folder / "elsewhere")
    with pytest.raises(ServiceError, match="does not allow this key"):
        indices(server, keys, "good")


def test_a_client_with_keys_is_told_that_a_plain_server_has_none(keys):
    with (
        contextlib.closing(FanOut(lambda _: np.zeros((1, 2, 2)))) as plain,
        pytest.raises(ServiceError, match="it uses no CURVE"),
    ):
        indices(plain, keys, "good")


def test_curve_without_somebody_who_checks_keys_cannot_be_had(authenticator, keys):
    _, pairs = keys
    with zmq.Context() as other, other.socket(zmq.ROUTER) as socket:
        with pytest.raises(ServiceError, match="only in the context of its authenticator"):
            authenticator.secure(socket)
        assert not socket.curve_server
    # Nor any more, when nobody checks them any longer.
    ended = CurveAuthenticator(pairs["server"], allowed_folder(keys[0]))
    with ended.context.socket(zmq.ROUTER) as socket:
        ended._wake.send(b"stop")
        ended._thread.join()
        with pytest.raises(ServiceError, match="only in the context of its authenticator"):
            ended.secure(socket)
    ended._wake.close(0)
    ended.context.term()


def test_an_authenticator_outlives_what_it_protects(authenticator, server):
    with pytest.raises(ServiceError, match="close the secured sockets before"):
        authenticator.close()
    assert server.clients() == []


def test_the_preview_asks_for_keys_too(authenticator, keys):
    _, pairs = keys
    with contextlib.ExitStack() as stack:
        publisher = PreviewPublisher(authenticator=authenticator)
        stack.callback(publisher.close)
        seen = {}
        for own in ("good", "unknown"):
            subscriber = PreviewSubscriber(
                publisher.address, keys=ClientKeys(pairs[own], pairs["server"].public)
            )
            stack.callback(subscriber.close)
            seen[own] = subscriber
        for _ in range(200):
            publisher.show("run", "primary", 1, np.ones((2, 2), "<u2"))
            if seen["good"].latest(0.05):
                break
        else:
            raise AssertionError("nothing was shown")
        publisher.show("run", "primary", 2, np.ones((2, 2), "<u2"))
        assert seen["good"].latest(5).index >= 1
        assert seen["unknown"].latest(0.3) is None
