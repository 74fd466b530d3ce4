"""The header of slsReceiver's messages: JSON written by hand, in which nothing is escaped.

Parsing is bounded in time and memory, and nothing is trusted before it is checked.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final, NoReturn

from apsber_bluesky.core import FrameError

JSON_VERSION: Final = 5
DETECTOR_TYPE: Final = 3
MAXIMUM_HEADER_BYTES: Final = 8192

_MAXIMUM_BRACKETS: Final = 64
_U16, _U32, _U64 = 2**16 - 1, 2**32 - 1, 2**64 - 1
_INTEGERS: Final = {
    "bitmode": (16, 16),
    "fileIndex": (0, _U64),
    "size": (1, _U32),
    "acqIndex": (0, _U64),
    "frameIndex": (0, _U64),
    "completeImage": (0, 1),
    "frameNumber": (0, _U64),
    "expLength": (0, _U32),
    "packetNumber": (0, _U32),
    "detSpec1": (0, _U64),
    "timestamp": (0, _U64),
    "modId": (0, _U16),
    "row": (0, _U16),
    "column": (0, _U16),
    "detSpec2": (0, _U16),
    "detSpec3": (0, _U32),
    "detSpec4": (0, _U16),
    "detType": (DETECTOR_TYPE, DETECTOR_TYPE),
    "version": (0, 255),
    "flipRows": (0, 1),
    # Four quarters of Eigers make a quad; a Jungfrau has none.
    "quad": (0, 0),
}


def parse_header(packed: bytes | memoryview) -> dict[str, Any]:
    """Read a header, in bounded time and memory.

    Returns
    -------
    dict
        Every field of the format, checked for its type and range; of a header without data
        (the end of an acquisition) only ``jsonversion`` and ``data``.

    Raises
    ------
    FrameError
        If it is anything else; it names the field.
    """
    if len(packed) > MAXIMUM_HEADER_BYTES:
        raise FrameError(f"Jungfrau header of {len(packed)} bytes exceeds {MAXIMUM_HEADER_BYTES}")
    raw = bytes(packed)
    # Brackets bound the depth, before the parser would recurse.
    if raw.count(b"[") + raw.count(b"{") > _MAXIMUM_BRACKETS:
        raise FrameError("Jungfrau header is nested too deeply")
    try:
        header = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
        )
    except ValueError as error:
        raise FrameError(f"Jungfrau header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FrameError(f"Jungfrau header is a {type(header).__name__}, not a map")
    _check_integer("jsonversion", header.get("jsonversion"), JSON_VERSION, JSON_VERSION)
    _check_integer("data", header.get("data"), 0, 1)
    if header["data"]:
        _check_fields(header)
    return header


def _check_fields(header: dict[str, Any]) -> None:
    for key, (low, high) in _INTEGERS.items():
        value = header.get(key)
        # Thousands of headers come each second, and a call for each field takes its time.
        if type(value) is not int or not low <= value <= high:
            _check_integer(key, value, low, high)
    for key, length, low in (("detshape", 2, 1), ("shape", 2, 1), ("rx_roi", 4, -1)):
        value = header.get(key)
        if not isinstance(value, list) or len(value) != length:
            raise FrameError(f"Jungfrau header: {key} = {value!r:.80} is not {length} integers")
        for item in value:
            _check_integer(key, item, low, _U32)
    progress = header.get("progress")
    if isinstance(progress, bool) or not isinstance(progress, int | float):
        raise FrameError(f"Jungfrau header: progress = {progress!r} is not a number")
    if not isinstance(header.get("fname"), str):
        raise FrameError(f"Jungfrau header: fname = {header.get('fname')!r} is not a string")
    added = header.get("addJsonHeader", {})
    if not isinstance(added, dict) or not all(isinstance(value, str) for value in added.values()):
        raise FrameError("Jungfrau header: addJsonHeader is not a map of strings")


def _check_integer(key: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        wanted = str(low) if low == high else f"an integer in {low}..{high}"
        raise FrameError(f"Jungfrau header: {key} = {value!r:.80} is not {wanted}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = Counter(key for key, _ in pairs)
        raise ValueError(f"{next(key for key in names if names[key] > 1)!r} comes twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
