"""Long lists of frame numbers as short text: ``17, 40-52, 99``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Final

from apsber_bluesky.core._errors import InputError

#: Frames that a stream may have in the books; a number beyond it is a mistake, not a frame.
MAXIMUM_FRAMES: Final = 1 << 24

_RANGE: Final = re.compile(r"([0-9]{1,8})(?:-([0-9]{1,8}))?")


def format_ranges(numbers: Iterable[int], at_most: int | None = None) -> str:
    """Write numbers as ranges.

    Parameters
    ----------
    numbers : iterable of int
        Not negative, in any order; a number that comes twice is written once.
    at_most : int, optional
        Ranges to write before the rest is only counted, for a log or a table.

    Returns
    -------
    str
        E.g. ``"17, 40-52, 99"``; empty if there is no number.
    """
    texts = []
    ordered = sorted(set(numbers))
    # Numbers that follow each other have the same distance to their place.
    for _, group in itertools.groupby(enumerate(ordered), lambda item: item[1] - item[0]):
        run = [number for _, number in group]
        texts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    if at_most is not None and len(texts) > at_most:
        texts = [*texts[:at_most], f"and {len(texts) - at_most} more"]
    return ", ".join(texts)


def parse_ranges(text: str) -> list[int]:
    """Read what `format_ranges` wrote.

    Parameters
    ----------
    text : str
        Numbers and ranges, rising, e.g. ``"17, 40-52, 99"``.

    Returns
    -------
    list of int
        The numbers.

    Raises
    ------
    InputError
        If it is no such text, does not rise, or goes beyond `MAXIMUM_FRAMES`.
    """
    numbers: list[int] = []
    for part in text.split(",") if text.strip() else ():
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise InputError(f"{part.strip()[:40]!r} is no range of frames; write '17, 40-52'")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or (numbers and first <= numbers[-1]) or last >= MAXIMUM_FRAMES:
            raise InputError(
                f"range {part.strip()!r} of frames does not rise or goes beyond {MAXIMUM_FRAMES}"
            )
        numbers.extend(range(first, last + 1))
    return numbers
