"""The key on disk."""

from __future__ import annotations

import pytest

from apsber_bluesky.core import StorageError
from apsber_bluesky.dashboard._key import load_key


def test_data_roots_have_keys_of_their_own(tmp_path):
    keys = [load_key(tmp_path / name) for name in ("a", "b")]
    assert keys[0] != keys[1]
    assert load_key(tmp_path / "a") == keys[0]
    assert [f.name for f in (tmp_path / "a" / ".apsber" / "dashboard").iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.chmod(0o644), "others may read"),
        (lambda path: path.write_text("short\n"), "holds no key"),
        (lambda path: path.write_bytes(b"\xff" * 43), "holds no key"),
    ],
)
def test_a_key_that_others_know_or_could_guess_is_refused(tmp_path, spoil, why):
    load_key(tmp_path)
    spoil(tmp_path / ".apsber" / "dashboard" / "key")
    with pytest.raises(StorageError, match=why):
        load_key(tmp_path)
