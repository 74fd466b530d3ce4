"""A bounded reader of msgpack maps, for whatever comes in from a socket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgpack

MAXIMUM_DEPTH: Final = 32
FLAT: Final = 8


def unpack_map(
    packed: bytes | memoryview, *, maximum_containers: int = FLAT, **limits: int
) -> dict[str, Any]:
    """Read the one map that the bytes consist of.

    Nothing is built before every length that is announced has been found in the bytes: a length
    alone makes the parser reserve memory, and nested ones reserve it many times.

    Parameters
    ----------
    packed : bytes-like
        The whole of it; the caller limits its size.
    maximum_containers : int
        Maps and arrays in it, by default those of a map that ought to be flat. An empty one
        takes 1 byte there and 64 here.
    **limits : int
        Limits of ``msgpack.unpackb``, e.g. ``max_str_len``.

    Returns
    -------
    dict
        The map; all keys are texts.

    Raises
    ------
    ValueError
        If it is anything else, cut short, followed by other bytes, too large or too deep, has a
        key twice, or has extension types.
    """
    if len(packed) and not (packed[0] & 0xF0 == 0x80 or packed[0] in (0xDE, 0xDF)):
        raise ValueError(f"what begins with byte {packed[0]:#04x} is not a map")
    count = _Containers(maximum_containers)
    try:
        _walk_through(packed)
        found: dict[str, Any] = msgpack.unpackb(
            packed,
            max_ext_len=0,
            object_pairs_hook=count.take_map,
            list_hook=count.take_list,
            **limits,
        )
    # Not all exceptions of msgpack are a ValueError, and its pure Python twin recurses.
    except (RecursionError, msgpack.UnpackException) as error:
        raise ValueError(f"no msgpack: {error!r}") from error
    return found


class _Containers:
    """Counts maps and arrays and how deep they lie; they come with the innermost first."""

    def __init__(self, maximum: int) -> None:
        self._left = self._maximum = maximum
        self._depths: dict[int, int] = {}

    def take_map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        found = {key: value for key, value in pairs if isinstance(key, str)}
        if len(found) != len(pairs):
            raise ValueError("a key stands in it twice, or is no text")
        self._take(found, found.values())
        return found

    def take_list(self, items: list[Any]) -> list[Any]:
        self._take(items, items)
        return items

    def _take(self, container: object, inner: Iterable[Any]) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"more than {self._maximum} maps and arrays")
        depths = [self._depths.pop(id(i), 0) for i in inner if isinstance(i, dict | list)]
        self._depths[id(container)] = depth = 1 + max(depths, default=0)
        # Whoever shows such a value in a message would recurse as deep.
        if depth > MAXIMUM_DEPTH:
            raise ValueError(f"maps and arrays nested deeper than {MAXIMUM_DEPTH}")


def _walk_through(packed: bytes | memoryview) -> None:
    """Check that the item ends where the bytes do, without building it."""
    size = len(packed)
    unpacker = msgpack.Unpacker(max_buffer_size=size or 1)
    unpacker.feed(packed)
    unpacker.skip()
    if unpacker.tell() != size:
        raise ValueError(f"{size - unpacker.tell()} bytes after the end")
