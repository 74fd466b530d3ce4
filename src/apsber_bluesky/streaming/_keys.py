"""CURVE keys: the secret half is for its owner's eyes alone, the public half to be given away.

``NAME.key`` holds the public key, ``NAME.key_secret`` both, in the format of ZMQ certificates. The
folder ``allowed`` beside them holds the public keys of those who may connect.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq

from apsber_bluesky.core import (
    DataFileError,
    StorageError,
    check_folder_name,
    explain_disk_errors,
    sync_directory,
)

PUBLIC_SUFFIX: Final = ".key"
SECRET_SUFFIX: Final = ".key_secret"
ALLOWED_FOLDER: Final = "allowed"

_MAXIMUM_FILE_BYTES: Final = 4096
# The 85 printable characters of ZMQ RFC 32.
_KEY: Final = r'"([0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40})"'
_PUBLIC: Final = re.compile(rf"^\s*public-key\s*=\s*{_KEY}\s*$", re.MULTILINE)
_SECRET: Final = re.compile(rf"^\s*secret-key\s*=\s*{_KEY}\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair.

    Attributes
    ----------
    name : str
        Whose it is.
    public, secret : bytes
        The keys in Z85, 40 characters each; the secret is not printed.
    """

    name: str
    public: bytes
    secret: bytes = field(repr=False)


def create_keys(folder: Path, name: str) -> KeyPair:
    """Make a key pair; nothing is ever overwritten.

    Parameters
    ----------
    folder : Path
        Where keys are kept; made with mode 0700 if it is not there.
    name : str
        Name of the pair.

    Raises
    ------
    InputError
        If the name cannot name a file.
    StorageError
        If there is such a key, others may look into the folder, or it cannot be written.
    """
    check_folder_name(name, "key name")
    _make_private(folder)
    public_file, secret_file = folder / (name + PUBLIC_SUFFIX), folder / (name + SECRET_SUFFIX)
    if public_file.exists():
        raise StorageError(f"there is a key {public_file} already; choose another name")
    public, secret = zmq.curve_keypair()
    text = f'curve\n    public-key = "{public.decode()}"\n'
    # The secret file alone makes a pair, so it comes first.
    _write_new(secret_file, f'{text}    secret-key = "{secret.decode()}"\n', 0o600)
    _write_new(public_file, text, 0o644)
    sync_directory(folder)
    return KeyPair(name, public, secret)


def load_keys(folder: Path, name: str) -> KeyPair:
    """Read a key pair.

    Raises
    ------
    InputError
        If the name cannot name a file.
    StorageError
        If there is none, or others may read the secret.
    DataFileError
        If the file holds no key pair.
    """
    check_folder_name(name, "key name")
    path = folder / (name + SECRET_SUFFIX)
    if not path.is_file():
        raise StorageError(f"no key {path}; make one with 'apsber keys create {name}'")
    with explain_disk_errors(path, "read the secret key"):
        mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise StorageError(
            f"secret key {path} has mode {mode:04o}, so others can use it; say 'chmod 600' and"
            " consider making a new one"
        )
    text = _read(path)
    public, secret = _PUBLIC.search(text), _SECRET.search(text)
    if public is None or secret is None:
        raise DataFileError(f"{path} holds no CURVE key pair")
    pair = KeyPair(name, public[1].encode(), secret[1].encode())
    if zmq.curve_public(pair.secret) != pair.public:
        raise DataFileError(f"the public and secret key in {path} do not belong together")
    return pair


def load_public_key(path: Path) -> bytes:
    """Read a public key, Z85.

    Raises
    ------
    StorageError
        If the file cannot be read.
    DataFileError
        If it holds no public key, or also a secret one.
    """
    text = _read(path)
    found = _PUBLIC.search(text)
    if found is None:
        raise DataFileError(f"{path} holds no CURVE public key")
    if _SECRET.search(text):
        raise DataFileError(
            f"{path} holds a secret key; give {path.name.removesuffix('_secret')}, the public one"
        )
    return found[1].encode()


def list_keys(folder: Path) -> dict[str, bytes]:
    """The public key of every pair in a folder, by name."""
    names = sorted(path.name.removesuffix(SECRET_SUFFIX) for path in folder.glob("*.key_secret"))
    return {name: load_keys(folder, name).public for name in names}


def allowed_folder(folder: Path) -> Path:
    """Where the public keys of those who may connect are kept."""
    return folder / ALLOWED_FOLDER


def allowed_files(allowed: Path) -> list[Path]:
    """The public key files of an allow list."""
    return sorted(allowed.glob("*" + PUBLIC_SUFFIX))


def allowed_keys(folder: Path) -> dict[str, bytes]:
    """The public keys of those who may connect, by name."""
    files = allowed_files(allowed_folder(folder))
    return {file.name.removesuffix(PUBLIC_SUFFIX): load_public_key(file) for file in files}


def allow_key(folder: Path, file: Path) -> str:
    """Let the owner of a public key connect; servers that run notice it.

    Parameters
    ----------
    folder : Path
        Where keys are kept.
    file : Path
        The public key, ``NAME.key``.

    Returns
    -------
    str
        The name under which it is allowed.

    Raises
    ------
    StorageError
        If another key is allowed under that name, or the list cannot be written.
    DataFileError
        If the file holds no public key.
    """
    public = load_public_key(file)
    name = check_folder_name(file.name.removesuffix(PUBLIC_SUFFIX), "key name")
    _make_private(folder)
    allowed = allowed_folder(folder)
    _make_private(allowed)
    target = allowed / (name + PUBLIC_SUFFIX)
    if target.exists():
        if load_public_key(target) == public:
            return name
        raise StorageError(f"another key is allowed as {target}; remove it or rename {file}")
    _write_new(target, f'curve\n    public-key = "{public.decode()}"\n', 0o644)
    sync_directory(allowed)
    return name


def _make_private(folder: Path) -> None:
    with explain_disk_errors(folder, "keep keys"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        raise StorageError(f"key folder {folder} has mode {mode:04o}; say 'chmod 700' first")


def _write_new(path: Path, text: str, mode: int) -> None:
    with explain_disk_errors(path, "write the key"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            # A umask may have taken rights, but never added any; owners can always read theirs.
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


def _read(path: Path) -> str:
    with explain_disk_errors(path, "read the key"), path.open("rb") as stream:
        content = stream.read(_MAXIMUM_FILE_BYTES + 1)
    if len(content) > _MAXIMUM_FILE_BYTES:
        raise DataFileError(f"{path} is larger than {_MAXIMUM_FILE_BYTES} bytes; it is no key")
    return content.decode("ascii", errors="replace")
