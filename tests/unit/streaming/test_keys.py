"""Keys: made once, kept private, never overwritten."""

from __future__ import annotations

import os
import stat

import pytest
import zmq.auth

from apsber_bluesky.core import DataFileError, InputError, StorageError
from apsber_bluesky.streaming._keys import (
    allow_key,
    allowed_files,
    allowed_folder,
    create_keys,
    list_keys,
    load_keys,
    load_public_key,
)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_only_the_owner_can_read_a_secret_whatever_the_umask(tmp_path, umask):
    folder = tmp_path / "deep" / "keys"
    folder.mkdir(parents=True, mode=0o700)
    old = os.umask(umask)
    try:
        create_keys(folder, "server")
    finally:
        os.umask(old)
    assert mode(folder) == 0o700
    assert mode(folder / "server.key_secret") == 0o600
    assert mode(folder / "server.key") == 0o644


def test_the_folder_is_made_for_its_owner_alone(tmp_path):
    old = os.umask(0)
    try:
        create_keys(tmp_path / ".apsber" / "keys", "server")
        allow_key(tmp_path / ".apsber" / "keys", tmp_path / ".apsber" / "keys" / "server.key")
    finally:
        os.umask(old)
    assert mode(tmp_path / ".apsber" / "keys") == 0o700
    assert mode(tmp_path / ".apsber" / "keys" / "allowed") == 0o700


def test_a_pair_is_read_back_here_and_by_zmq_and_is_not_printed(tmp_path):
    made = create_keys(tmp_path / "keys", "server")
    assert load_keys(tmp_path / "keys", "server") == made
    assert load_public_key(tmp_path / "keys" / "server.key") == made.public
    assert zmq.auth.load_certificate(tmp_path / "keys" / "server.key_secret") == (
        made.public,
        made.secret,
    )
    assert made.secret.decode() not in repr(made)
    assert create_keys(tmp_path / "keys", "other").secret != made.secret
    assert list(list_keys(tmp_path / "keys")) == ["other", "server"]
    assert made.secret.decode() not in (tmp_path / "keys" / "server.key").read_text()


@pytest.mark.parametrize("left", ["server.key", "server.key_secret"])
def test_nothing_is_ever_overwritten(tmp_path, left):
    folder = tmp_path / "keys"
    create_keys(folder, "server")
    for file in folder.iterdir():
        if file.name != left:
            file.unlink()
    before = (folder / left).read_bytes()
    with pytest.raises(StorageError, match="already"):
        create_keys(folder, "server")
    assert [f.name for f in folder.iterdir()] == [left]
    assert (folder / left).read_bytes() == before


@pytest.mark.parametrize("name", ["", "../server", "a/b", ".hidden"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="key name"):
        create_keys(tmp_path / "keys", name)
    with pytest.raises(InputError, match="key name"):
        load_keys(tmp_path / "keys", name)


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_secret_that_others_can_read_is_not_used(tmp_path, bits):
    create_keys(tmp_path / "keys", "server")
    (tmp_path / "keys" / "server.key_secret").chmod(bits)
    with pytest.raises(StorageError, match=rf"mode 0{bits:o}.*chmod 600"):
        load_keys(tmp_path / "keys", "server")


def test_a_folder_that_others_can_look_into_is_not_used(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(StorageError, match=r"mode 0755; say 'chmod 700' first"):
        create_keys(tmp_path / "keys", "server")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 100, b'public-key = "short"', b"x" * 5000, b'public-key = "' + b'"' * 40],
)
def test_what_is_no_key_is_named(tmp_path, content):
    pair = create_keys(tmp_path / "keys", "server")
    for name, load in (("server.key", load_public_key), ("server.key_secret", None)):
        path = tmp_path / "keys" / name
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=name):
            load(path) if load else load_keys(tmp_path / "keys", "server")
    assert pair


def test_halves_of_different_pairs_are_refused(tmp_path):
    one, other = (create_keys(tmp_path / "keys", name) for name in ("one", "other"))
    path = tmp_path / "keys" / "one.key_secret"
    path.write_text(path.read_text().replace(one.public.decode(), other.public.decode()))
    with pytest.raises(DataFileError, match="do not belong together"):
        load_keys(tmp_path / "keys", "one")


def test_a_missing_key_is_named_with_the_remedy(tmp_path):
    with pytest.raises(StorageError, match="apsber keys create server"):
        load_keys(tmp_path, "server")
    with pytest.raises(StorageError, match=r"nobody\.key"):
        load_public_key(tmp_path / "nobody.key")


def test_allowing_copies_the_public_key_and_nothing_else(tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    pair = create_keys(theirs, "viewer")
    assert allow_key(ours, theirs / "viewer.key") == "viewer"
    assert allow_key(ours, theirs / "viewer.key") == "viewer"
    (file,) = allowed_files(allowed_folder(ours))
    assert load_public_key(file) == pair.public
    with pytest.raises(DataFileError, match=r"give viewer\.key, the public one"):
        allow_key(ours, theirs / "viewer.key_secret")
    create_keys(tmp_path / "third", "viewer")
    with pytest.raises(StorageError, match="another key is allowed as"):
        allow_key(ours, tmp_path / "third" / "viewer.key")
    assert load_public_key(file) == pair.public
