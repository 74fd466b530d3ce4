"""A bounded reader of CBOR (RFC 8949): what a detector's message needs, and nothing that can hurt.

Byte strings come back as views of the message, so that pixels are not copied. Depth, number of
items and length of texts are limited; duplicate keys and bytes after the item are errors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from apsber_bluesky.core import FrameError

MAXIMUM_DEPTH: Final = 16
MAXIMUM_ITEMS: Final = 10_000
MAXIMUM_TEXT_BYTES: Final = 1 << 20

_SELF_DESCRIBED: Final = 55799
_BREAK: Final = object()
_INDEFINITE: Final = 31
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _OTHER = range(8)
_SIMPLE: Final = {20: False, 21: True, 22: None, 23: None}
_FLOATS: Final = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}


@dataclass(frozen=True, slots=True)
class Tagged:
    """A tagged item, e.g. a typed array (RFC 8746)."""

    tag: int
    value: Any


def parse_cbor(message: bytes | memoryview) -> Any:
    """Read the one item that a message consists of.

    Parameters
    ----------
    message : bytes-like
        The whole message. Tag 55799, which says "this is CBOR", may stand in front.

    Returns
    -------
    int, float, str, bool, None, list, dict, Tagged or memoryview
        The item. Byte strings are views of `message`; keys of maps are texts.

    Raises
    ------
    FrameError
        If the message is cut short, goes on after the item, is deeper or larger than the limits,
        repeats a key of a map, or holds what no detector sends: byte or text strings in pieces,
        keys that are no texts, reserved values.
    """
    walker = _Walker(memoryview(message).cast("B"))
    item = walker.item(0)
    if isinstance(item, Tagged) and item.tag == _SELF_DESCRIBED:
        item = item.value
    walker.check_end()
    return item


class _Walker:
    """A place in the message, which moves on as items are read."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._place = 0
        self._items_left = MAXIMUM_ITEMS

    def check_end(self) -> None:
        """Refuse bytes after the item."""
        rest = len(self._data) - self._place
        if rest:
            raise FrameError(f"CBOR message: trailing garbage, {rest} bytes after its end")

    def item(self, depth: int, *, may_break: bool = False) -> Any:
        """Read the next item."""
        if depth > MAXIMUM_DEPTH:
            raise FrameError(f"CBOR message: items nested deeper than {MAXIMUM_DEPTH}")
        self._items_left -= 1
        if self._items_left < 0:
            raise FrameError(f"CBOR message: more than {MAXIMUM_ITEMS} items")
        first = self._take(1)[0]
        major, info = first >> 5, first & 31
        if major == _OTHER:
            return self._other(info, may_break)
        if info == _INDEFINITE:
            return self._indefinite(major, depth)
        argument = self._argument(info)
        if major == _UNSIGNED:
            return argument
        if major == _NEGATIVE:
            return -1 - argument
        if major == _BYTES:
            return self._take(argument)
        if major == _TEXT:
            return self._text(argument)
        if major == _TAG:
            return Tagged(argument, self.item(depth + 1))
        # Each item takes a byte at least, so a huge count is refused before anything is read.
        if argument > len(self._data) - self._place:
            raise self._short(argument)
        if major == _ARRAY:
            return [self.item(depth + 1) for _ in range(argument)]
        pairs: dict[str, Any] = {}
        for _ in range(argument):
            self._pair(pairs, self.item(depth + 1), depth)
        return pairs

    def _indefinite(self, major: int, depth: int) -> Any:
        if major not in (_ARRAY, _MAP):
            raise FrameError(
                f"CBOR message: item of major type {major} without a length at byte"
                f" {self._place - 1}"
            )
        items: list[Any] = []
        pairs: dict[str, Any] = {}
        while (item := self.item(depth + 1, may_break=True)) is not _BREAK:
            if major == _ARRAY:
                items.append(item)
            else:
                self._pair(pairs, item, depth)
        return items if major == _ARRAY else pairs

    def _pair(self, pairs: dict[str, Any], key: Any, depth: int) -> None:
        if not isinstance(key, str):
            raise FrameError(f"CBOR message: key of a map is a {type(key).__name__}, not a text")
        if key in pairs:
            raise FrameError(f"CBOR message: duplicate key {key[:64]!r}")
        pairs[key] = self.item(depth + 1)

    def _other(self, info: int, may_break: bool) -> Any:
        if info in _SIMPLE:
            return _SIMPLE[info]
        if info in _FLOATS:
            form = _FLOATS[info]
            return form.unpack(self._take(form.size))[0]
        if info == _INDEFINITE and may_break:
            return _BREAK
        raise FrameError(f"CBOR message: reserved value {info} at byte {self._place - 1}")

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise FrameError(f"CBOR message: reserved length {info} at byte {self._place - 1}")
        return int.from_bytes(self._take(1 << (info - 24)))

    def _text(self, length: int) -> str:
        if length > MAXIMUM_TEXT_BYTES:
            raise FrameError(f"CBOR message: text of {length} bytes exceeds {MAXIMUM_TEXT_BYTES}")
        try:
            return str(self._take(length), "utf-8")
        except UnicodeDecodeError as error:
            raise FrameError(f"CBOR message: text is not UTF-8: {error.reason}") from error

    def _take(self, length: int) -> memoryview:
        end = self._place + length
        if end > len(self._data):
            raise self._short(length)
        taken = self._data[self._place : end]
        self._place = end
        return taken

    def _short(self, length: int) -> FrameError:
        return FrameError(
            f"CBOR message: cut short, {length} bytes wanted at byte {self._place} of"
            f" {len(self._data)}"
        )
