"""What a receiver remembers for the one that takes over."""

import pytest

from apsber_bluesky.core import SeriesRequest, StorageError
from apsber_bluesky.streaming._receiver_state import ReceiverState, forget_state

REQUEST = SeriesRequest("run-1", "flats", 6, 4, 5, "<u2")


def test_the_state_survives_as_it_was(tmp_path):
    path = tmp_path / "state"
    state = ReceiverState("p", REQUEST, 3, "id", REQUEST, 12, 7, [[b"head", b"\xff"]])
    state.save(path)
    assert ReceiverState.load(path) == state
    assert state.run_uid == "run-1"
    forget_state(path)
    forget_state(path)
    assert ReceiverState.load(path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80", b"\x81\xa1x\x01", b"\x93\x01\x02\x03"])
def test_a_damaged_state_is_refused_with_what_to_do(tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="remove it"):
        ReceiverState.load(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a part of the path is a file"):
        ReceiverState("p", REQUEST).save(tmp_path / "file" / "state")
