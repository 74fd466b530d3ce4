"""CBOR as an EIGER writes it: definite lengths, shortest integers, 64-bit floats (RFC 8949)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from apsber_bluesky.core import InputError

SELF_DESCRIBED: Final = bytes.fromhex("d9d9f7")
_SIMPLE: Final = {False: b"\xf4", True: b"\xf5", None: b"\xf6"}
_LENGTHS: Final = ((24, 0x100, ">BB"), (25, 0x1_0000, ">BH"), (26, 1 << 32, ">BI"))


@dataclass(frozen=True, slots=True)
class Tag:
    """A tagged value."""

    number: int
    value: Any


def pack_cbor(value: Any) -> bytes:
    """Pack a message, with the tag in front that says that it is CBOR."""
    parts = [SELF_DESCRIBED]
    _pack(value, parts)
    return b"".join(parts)


def _pack(value: Any, parts: list[bytes]) -> None:
    match value:
        case bool() | None:
            parts.append(_SIMPLE[value])
        case int():
            parts.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
        case float():
            parts.append(struct.pack(">Bd", 0xFB, value))
        case bytes():
            parts += [_head(2, len(value)), value]
        case str():
            packed = value.encode()
            parts += [_head(3, len(packed)), packed]
        case list() | tuple():
            parts.append(_head(4, len(value)))
            for item in value:
                _pack(item, parts)
        case dict():
            parts.append(_head(5, len(value)))
            for key, item in value.items():
                _pack(key, parts)
                _pack(item, parts)
        case Tag():
            parts.append(_head(6, value.number))
            _pack(value.value, parts)
        case _:
            raise InputError(f"a {type(value).__name__} cannot be sent as CBOR")


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, limit, form in _LENGTHS:
        if argument < limit:
            return struct.pack(form, major << 5 | info, argument)
    return struct.pack(">BQ", major << 5 | 27, argument)
