"""Choices taken from a tape of bytes: whoever makes the tape drives the fuzz and can shrink it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1)


class Tape:
    """Hypothesis draws the bytes, or libFuzzer's seed makes them; past their end all are 0."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0

    @property
    def left(self) -> int:
        return max(0, len(self._content) - self._place)

    def byte(self) -> int:
        self._place += 1
        return self._content[self._place - 1] if self._place <= len(self._content) else 0

    def below(self, limit: int) -> int:
        if limit <= 1:
            return 0
        if limit <= 256:
            return self.byte() % limit
        return (self.byte() << 16 | self.byte() << 8 | self.byte()) % limit

    def choice(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]

    def chance(self, one_in: int) -> bool:
        """Never at the end of the tape, so that a shorter tape changes less."""
        return self.below(one_in) == one_in - 1

    def take(self, count: int) -> bytes:
        return bytes(self.byte() for _ in range(count))


def damaged(content: bytes, tape: Tape, tokens: Sequence[bytes] = ()) -> bytes:
    """The same bytes with some flipped, replaced, inserted, removed, repeated or cut off."""
    result = bytearray(content)
    place, kind = tape.below(len(result) + 1), tape.below(9)
    match kind:
        case 0 if place < len(result):
            result[place] ^= 1 << tape.below(8)
        case 1 if place < len(result):
            result[place] = tape.byte()
        case 2:
            result[place:place] = tape.take(1 + tape.below(4))
        case 3:
            del result[place : place + (1, 2, 4, 8, len(result))[tape.below(5)]]
        case 4:
            count = (2, 3, 50, 1000)[tape.below(4)]
            result[place:place] = (result[place : place + 1 + tape.below(40)] * count)[:20_000]
        case 5:
            size = (1, 2, 4, 8)[tape.below(4)]
            value = tape.choice(EDGES) % (1 << 8 * size)
            order = ("little", "big")[tape.below(2)]
            result[place : place + size] = value.to_bytes(size, order)
        case 6 if tokens:
            token = tape.choice(tokens)
            result[place : place + len(token) * tape.below(2)] = token
        case 7:
            del result[place:]
        case _:
            result += tape.take(1 + tape.below(8))
    return bytes(result)
