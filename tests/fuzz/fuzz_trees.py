"""JSON, CBOR and msgpack as trees that can be wrong: keys twice, tags nobody knows, raw bytes.

Written without the readers' code, so that one mistake is not made at both ends.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
from fuzz_tape import Tape, damaged

MAXIMUM_DEPTH = 60


class Pairs(list):
    """A map as it stands on the wire: in order, and perhaps with a key twice."""


@dataclass(frozen=True)
class Tag:
    number: int
    value: Any


@dataclass(frozen=True)
class Raw:
    """Bytes that stand in the message as they are."""

    content: bytes


@dataclass(frozen=True)
class Form:
    """A notation of trees. `decode` gives None for what is none."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    odd: tuple[Any, ...]
    tokens: tuple[bytes, ...]


ODD = (None, True, False, 0, -1, 1, 2**31, 2**63, 2**64 - 1, -(2**63), 1.5, math.nan, math.inf)
ODD += ("", "x", "\0", "é" * 200, b"", b"\0\0", [], [1, 2], [[[[]]]], Pairs(), Pairs([("", 0)]))


def duplicates(tree: Any) -> bool:
    """Whether a map anywhere in the tree has a key twice."""
    return any(
        len({key for key, _ in node if isinstance(key, str)}) != len(node)
        for node in nodes(tree)
        if isinstance(node, Pairs)
    )


def nodes(tree: Any) -> Iterator[Any]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Pairs):
            waiting += [value for _, value in node]
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, Tag):
            waiting.append(node.value)


def _shallow(tree: Any) -> Any:
    """The tree, None if it is so deep that changing it would recurse too far."""
    level = [tree]
    for _ in range(MAXIMUM_DEPTH):
        level = [
            inner
            for node in level
            if isinstance(node, list)
            for inner in ([part for pair in node for part in pair] if _is_map(node) else node)
        ]
        if not level:
            return tree
    return None


def _is_map(node: Any) -> bool:
    return isinstance(node, Pairs)


def get(tree: Any, key: str) -> Any:
    """What stands under a key of a map, the last if it stands there twice."""
    return dict(tree).get(key) if isinstance(tree, Pairs) else None


def changed(tree: Any, tape: Tape, form: Form) -> Any:
    """The same tree with something in it replaced, removed, doubled or exchanged."""
    if tape.chance(8):
        return tape.choice((*ODD, *form.odd))
    if isinstance(tree, Pairs) and tree:
        return _changed_map(tree, tape, form)
    if isinstance(tree, list) and tree:
        return _changed_list(tree, tape, form)
    if isinstance(tree, Tag):
        kind = tape.below(4)
        if kind < 2:
            return Tag(tree.number, changed(tree.value, tape, form))
        number = tape.choice((0, 2, 40, 64, 65, 68, 69, 70, 77, 84, 1040, 55799, 56500, 2**63))
        return Tag(number, tree.value) if kind == 2 else tree.value
    if isinstance(tree, bool) or tree is None:
        return not tree
    if isinstance(tree, int):
        return tree + tape.choice((1, -1, tree, -2 * tree, 2**32, 2**63, 10**30))
    if isinstance(tree, float):
        return tape.choice((-tree, math.nan, math.inf, 0.0, int(tree) if abs(tree) < 2e9 else 0))
    if isinstance(tree, bytes):
        return damaged(tree, tape, form.tokens)
    if isinstance(tree, str):
        other = tape.choice(("", tree[:-1], tree + tree[-1:], tree * 300, tree.upper(), "\0", None))
        if other is None:
            token = tape.choice(form.tokens or (b"x",))
            return token.decode("utf-8", "replace")
        return other
    return tape.choice(ODD)


def _changed_map(tree: Pairs, tape: Tape, form: Form) -> Pairs:
    place, kind = tape.below(len(tree)), tape.below(9)
    key, value = tree[place]
    rest = [*tree[:place], *tree[place + 1 :]]
    if kind < 5:
        return Pairs([*tree[:place], (key, changed(value, tape, form)), *tree[place + 1 :]])
    if kind == 5:
        return Pairs(rest)
    if kind == 6:
        return Pairs([*tree, (key, changed(value, tape, form) if tape.chance(2) else value)])
    other = tape.below(len(tree))
    if kind == 7:
        return Pairs([*rest, (tree[other][0], value)])
    return Pairs([*rest, (tape.choice(ODD), value)]) if tape.chance(2) else Pairs(tree[::-1])


def _changed_list(tree: list[Any], tape: Tape, form: Form) -> list[Any]:
    place, kind = tape.below(len(tree)), tape.below(8)
    if kind < 3:
        return [*tree[:place], changed(tree[place], tape, form), *tree[place + 1 :]]
    if kind == 3:
        return tree[::-1]
    if kind == 4:
        return [*tree[:place], *tree[place + 1 :]]
    if kind == 5:
        return [*tree, tree[place]] * (1 if tape.below(8) else 200)
    return [*tree, tape.choice((*ODD, *form.odd))] if kind == 6 else [tree]


def json_decode(packed: bytes) -> Any:
    try:
        return _shallow(json.loads(packed.decode(), object_pairs_hook=Pairs))
    except (ValueError, RecursionError):
        return None


def json_encode(tree: Any) -> bytes:
    if isinstance(tree, Raw):
        return tree.content
    if isinstance(tree, Pairs):
        inner = (json_encode(_text(key)) + b":" + json_encode(value) for key, value in tree)
        return b"{" + b",".join(inner) + b"}"
    if isinstance(tree, list):
        return b"[" + b",".join(map(json_encode, tree)) + b"]"
    if isinstance(tree, Tag):
        return json_encode(tree.value)
    return json.dumps(tree.decode("latin1") if isinstance(tree, bytes) else tree).encode()


def _text(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


def cbor_encode(tree: Any) -> bytes:
    match tree:
        case Raw():
            return tree.content
        case None | bool():
            return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[tree]
        case int() if -(2**64) <= tree < 2**64:
            return _head(0, tree) if tree >= 0 else _head(1, -1 - tree)
        case int():
            return cbor_encode(Tag(2, abs(tree).to_bytes((tree.bit_length() + 8) // 8)))
        case float():
            return struct.pack(">Bd", 0xFB, tree)
        case bytes():
            return _head(2, len(tree)) + tree
        case str():
            packed = tree.encode("utf-8", "surrogatepass")
            return _head(3, len(packed)) + packed
        case Pairs():
            inner = b"".join(cbor_encode(key) + cbor_encode(value) for key, value in tree)
            return _head(5, len(tree)) + inner
        case list():
            return _head(4, len(tree)) + b"".join(map(cbor_encode, tree))
        case Tag():
            return _head(6, tree.number) + cbor_encode(tree.value)
    raise TypeError(type(tree))


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    info = next(i for i in range(4) if argument < 1 << (8 << i))
    return bytes([major << 5 | 24 + info]) + argument.to_bytes(1 << info)


def cbor_decode(packed: bytes) -> Any:
    """The tree, None for what is no CBOR, has bytes after its end, or is deep or long."""
    try:
        tree, place = _cbor_item(packed, 0, 0)
    except (IndexError, KeyError, ValueError, struct.error):
        return None
    return tree if place == len(packed) else None


def _cbor_item(packed: bytes, place: int, depth: int) -> tuple[Any, int]:
    major, info = packed[place] >> 5, packed[place] & 31
    place += 1
    if depth > 40:
        raise ValueError("deep")
    if major == 7:
        if info in (25, 26, 27):
            size = 1 << info - 24
            (value,) = struct.unpack(">" + "efd"[info - 25], packed[place : place + size])
            return value, place + size
        return {20: False, 21: True, 22: None, 23: None}[info], place
    argument: int | None = info
    if 24 <= info <= 27:
        size = 1 << info - 24
        argument = int.from_bytes(packed[place : place + size])
        place += size
    elif info == 31 and major in (4, 5):
        argument = None
    elif info > 23:
        raise ValueError("reserved")
    if major in (0, 1):
        return (argument if major == 0 else -1 - argument), place
    if major in (2, 3):
        content = packed[place : place + argument]
        if len(content) != argument:
            raise ValueError("short")
        return (content if major == 2 else content.decode()), place + argument
    if major == 6:
        value, place = _cbor_item(packed, place, depth + 1)
        return Tag(argument, value), place
    items = []
    while argument is None or len(items) < argument * (major - 3):
        if argument is None and packed[place] == 0xFF:
            place += 1
            break
        item, place = _cbor_item(packed, place, depth + 1)
        items.append(item)
    if major == 4:
        return items, place
    return Pairs(zip(items[::2], items[1::2], strict=True)), place


def msgpack_decode(packed: bytes) -> Any:
    try:
        return _shallow(msgpack.unpackb(packed, object_pairs_hook=Pairs, strict_map_key=False))
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        return None


def msgpack_encode(tree: Any) -> bytes:
    packer = msgpack.Packer()
    if isinstance(tree, Raw):
        return tree.content
    if isinstance(tree, Pairs):
        inner = (msgpack_encode(key) + msgpack_encode(value) for key, value in tree)
        return packer.pack_map_header(len(tree)) + b"".join(inner)
    if isinstance(tree, list):
        return packer.pack_array_header(len(tree)) + b"".join(map(msgpack_encode, tree))
    if isinstance(tree, Tag):
        return packer.pack(msgpack.ExtType(tree.number % 128, msgpack_encode(tree.value)))
    if isinstance(tree, int) and not -(2**63) <= tree < 2**64:
        return packer.pack(float(tree))
    if isinstance(tree, str):
        return _msgpack_text(tree.encode("utf-8", "surrogatepass"))
    return packer.pack(tree)


def _msgpack_text(packed: bytes) -> bytes:
    size = len(packed)
    if size < 32:
        return bytes([0xA0 | size]) + packed
    if size < 1 << 16:
        return struct.pack(">BH", 0xDA, size) + packed
    return struct.pack(">BI", 0xDB, size) + packed


def forms(words: str) -> dict[str, Form]:
    """The three notations, with the words of one protocol."""
    named = tuple(word.encode() for word in words.split())
    return {
        "json": Form(
            json_decode,
            json_encode,
            (Raw(b"1e999"), Raw(b"NaN"), Raw(b"9" * 5000), Raw(b"[" * 2000), Raw(b'"\\ud800"')),
            (*named, b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\u0000", b"null", b"true"),
        ),
        "cbor": Form(
            cbor_decode,
            cbor_encode,
            (
                Raw(b"\x9b\x00\x00\x00\x01\x00\x00\x00\x00"),
                Raw(b"\xbf\x61a\x01\xff"),
                Raw(b"\x9f\x01\xff"),
                Raw(b"\x5f\x41a\xff"),
                Raw(b"\x81" * 100),
                Raw(b"\xf9\x7e\x00"),
                Tag(2, b"\xff" * 9),
                Tag(1040, [[9, 14], Tag(69, b"")]),
            ),
            (*named, b"\xd8\x28", b"\xd8\x45", b"\xd9\xdc\xb4", b"\xd9\xd9\xf7", b"\xff", b"\xbf"),
        ),
        "msgpack": Form(
            msgpack_decode,
            msgpack_encode,
            (
                Raw(b"\xdd\xff\xff\xff\xff"),
                Raw(b"\xdf\x00\x01\x00\x00"),
                Raw(b"\x81\xa1a" * 200 + b"\xc0"),
                Raw(b"\xd6\xff\x00\x00\x00\x00"),
                Raw(b"\xa1\xff"),
                Raw(b"\xc1"),
                Tag(5, "x"),
            ),
            (*named, b"\xc0", b"\xc2", b"\xc3", b"\x90", b"\x80", b"\xdd", b"\xdf", b"\xcf"),
        ),
    }
