"""A case of the fuzz: the messages that one reader gets, each of several parts."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from fuzz_tape import Tape, damaged
from fuzz_trees import Form, changed

Message = list[bytes]
Case = list[Message]
Repair = Callable[[Message, Tape], Message]

_LENGTH = struct.Struct("<I")
MAXIMUM_MESSAGES = 8
MAXIMUM_PARTS = 10


def pack_case(case: Case) -> bytes:
    """One string of bytes, as libFuzzer keeps it."""
    packed = []
    for message in case[:MAXIMUM_MESSAGES]:
        parts = message[:MAXIMUM_PARTS]
        packed.append(bytes([len(parts)]))
        packed += [_LENGTH.pack(len(part)) + part for part in parts]
    return b"".join(packed)


def unpack_case(packed: bytes) -> Case:
    """The case that any string of bytes stands for."""
    case: Case = []
    place = 0
    while place < len(packed) and len(case) < MAXIMUM_MESSAGES:
        count, place = packed[place] % (MAXIMUM_PARTS + 1), place + 1
        message = []
        for _ in range(count):
            head = packed[place : place + _LENGTH.size].ljust(_LENGTH.size, b"\0")
            (size,) = _LENGTH.unpack(head)
            place += _LENGTH.size
            message.append(packed[place : place + size])
            place += size
        case.append(message)
    return case


def mutated(
    case: Case,
    tape: Tape,
    form: Form,
    seeds: Sequence[Case],
    repair: Repair,
    damage: Callable[[bytes, Tape], bytes] | None = None,
) -> Case:
    """The case with one to four things wrong in it."""
    result = [list(message) for message in case] or [[]]
    for _ in range(1 + tape.below(4)):
        place, kind = tape.below(len(result)), tape.below(10)
        if kind < 6:
            result[place] = _changed_parts(result[place], tape, form, damage)
            if not tape.chance(4):
                result[place] = repair(result[place], tape)
        elif kind == 6:
            result[place] = _moved_parts(result[place], tape)
        elif kind == 7:
            other = tape.choice(seeds)
            result.insert(place, tape.choice(other))
        elif kind == 8:
            result.insert(tape.below(len(result)), result[place])
        else:
            moved = result.pop(place)
            if tape.chance(2) or not result:
                result.insert(tape.below(len(result) + 1), moved)
    return result[:MAXIMUM_MESSAGES]


def _changed_parts(
    message: Message,
    tape: Tape,
    form: Form,
    damage: Callable[[bytes, Tape], bytes] | None,
) -> Message:
    if not message:
        return [tape.take(4)]
    place = tape.below(len(message))
    part = message[place]
    tree = None if tape.chance(3) else form.decode(part)
    if tree is not None:
        part = form.encode(changed(tree, tape, form))
    elif damage is not None and tape.chance(2):
        part = damage(part, tape)
    else:
        part = damaged(part, tape, form.tokens)
    return [*message[:place], part, *message[place + 1 :]]


def _moved_parts(message: Message, tape: Tape) -> Message:
    if not message:
        return [b""]
    place, kind = tape.below(len(message)), tape.below(5)
    if kind == 0:
        return [*message[:place], *message[place + 1 :]]
    if kind == 1:
        return [*message, message[place]]
    if kind == 2:
        return message[::-1]
    if kind == 3:
        return [*message[:place], b"", *message[place:]]
    return [*message, tape.take(4)]
