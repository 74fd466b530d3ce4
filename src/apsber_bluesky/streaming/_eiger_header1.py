"""The header of a legacy EIGER series, in as much detail as the detector was told to give."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from apsber_bluesky.core import FrameError
from apsber_bluesky.streaming._eiger_fields import (
    MAXIMUM_FRAMES,
    MAXIMUM_SERIES,
    checked_size,
    dtype_of,
    integer,
    shown,
    side,
)
from apsber_bluesky.streaming._series_messages import MAXIMUM_PIXELS_PER_SIDE, SeriesStart

MAXIMUM_JSON_BYTES: Final = 1 << 20
_DTYPE_OF_DEPTH: Final = {8: "|u1", 16: "<u2", 32: "<u4"}
_PARTS_OF_DETAIL: Final = {"none": 1, "basic": 2, "all": 8}
_TABLES: Final = ("dflatfield-1.0", "dpixelmask-1.0", "dcountrate_table-1.0")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a series will be, as far as it is known beforehand; it overrides the header.

    Attributes
    ----------
    num_frames : int, optional
        Frames to come.
    rows, columns : int, optional
        Frame size [pixel].
    dtype : str, optional
        NumPy dtype string of the pixels.
    """

    num_frames: int | None = None
    rows: int | None = None
    columns: int | None = None
    dtype: str | None = None


def parse_json(part: bytes | memoryview, what: str, htype: str | None = None) -> dict[str, Any]:
    """Read a part that is a JSON object, of the `htype` given.

    Raises
    ------
    FrameError
        If it is anything else, too large, or repeats a key.
    """
    if len(part) > MAXIMUM_JSON_BYTES:
        raise FrameError(f"{what} of {len(part)} bytes exceeds {MAXIMUM_JSON_BYTES}")
    try:
        value = json.loads(
            bytes(part).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise FrameError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FrameError(f"{what} is {shown(value)}, not a JSON object")
    if htype is not None and value.get("htype") != htype:
        raise FrameError(f"{what}: htype = {shown(value.get('htype'))} is not {htype}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # In linear time: somebody may send a hundred thousand keys.
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise FrameError(f"duplicate key {twice[:64]!r}")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def read_header(
    header: Mapping[str, Any], parts: Sequence[bytes | memoryview], expectation: Expectation
) -> tuple[SeriesStart, float]:
    """Read a ``dheader-1.0`` message.

    Parameters
    ----------
    header : mapping
        Its first part.
    parts : sequence of bytes-like
        All its parts.
    expectation : Expectation
        What is known beforehand.

    Returns
    -------
    start : SeriesStart
        The series.
    origin_s : float
        Unix time that the times of its images count from [s]; 0 if the header does not say.

    Raises
    ------
    FrameError
        If a part is missing or wrong, or the series is not known well enough.
    """
    series = integer(header, "series", 0, MAXIMUM_SERIES)
    detail = header.get("header_detail")
    wanted = _PARTS_OF_DETAIL.get(detail) if isinstance(detail, str) else None
    if wanted is None:
        raise FrameError(f"header_detail = {shown(detail)} is not none, basic or all")
    if len(parts) not in (wanted, wanted + 1):
        raise FrameError(
            f"header_detail = {detail!r}: {len(parts)} parts instead of {wanted}"
            f" (one more with an appendix)"
        )
    for table, name in enumerate(_TABLES if wanted == 8 else ()):
        _check_table(name, parts[2 + 2 * table], parts[3 + 2 * table])
    config = parse_json(parts[1], "detector configuration") if wanted > 1 else {}
    return _series_start(series, config, expectation), _origin_s(config)


def _series_start(series: int, config: Mapping[str, Any], expectation: Expectation) -> SeriesStart:
    known = {
        "rows": expectation.rows,
        "columns": expectation.columns,
        "dtype": expectation.dtype,
        "num_frames": expectation.num_frames,
    }
    if not config and None in known.values():
        missing = ", ".join(name for name, value in known.items() if value is None)
        raise FrameError(
            f"header_detail = 'none' does not say {missing};"
            f" set it to 'basic' at the detector, or tell the reader what to expect"
        )
    rows, columns = expectation.rows, expectation.columns
    return checked_size(
        SeriesStart(
            series=series,
            num_frames=expectation.num_frames or _num_frames(config),
            rows=rows or side(config, "y_pixels_in_detector"),
            columns=columns or side(config, "x_pixels_in_detector"),
            dtype=expectation.dtype or _dtype(config),
        )
    )


def _num_frames(config: Mapping[str, Any]) -> int:
    images = integer(config, "nimages", 1, MAXIMUM_FRAMES)
    count = images * integer(config, "ntrigger", 1, MAXIMUM_FRAMES)
    return integer({"nimages * ntrigger": count}, "nimages * ntrigger", 1, MAXIMUM_FRAMES)


def _dtype(config: Mapping[str, Any]) -> str:
    depth = integer(config, "bit_depth_image", 8, 32)
    if depth not in _DTYPE_OF_DEPTH:
        raise FrameError(f"bit_depth_image = {depth} is not 8, 16 or 32")
    return _DTYPE_OF_DEPTH[depth]


def _origin_s(config: Mapping[str, Any]) -> float:
    date = config.get("data_collection_date", "")
    if date == "":
        return 0.0
    try:
        began = datetime.fromisoformat(date)
        seconds = (began if began.tzinfo else began.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"data_collection_date = {shown(date)}: {str(error)[:100]}") from error
    return seconds


def _check_table(htype: str, header: bytes | memoryview, content: bytes | memoryview) -> None:
    layout = parse_json(header, f"header of {htype}", htype=htype)
    shape = layout.get("shape")
    if not isinstance(shape, list) or len(shape) > 3:
        raise FrameError(f"{htype}: shape = {shown(shape)} is not a list of up to 3 lengths")
    lengths = [integer({"shape": n}, "shape", 0, MAXIMUM_PIXELS_PER_SIDE) for n in shape]
    wanted = math.prod(lengths) * np.dtype(dtype_of(layout, "type")).itemsize
    if len(content) != wanted:
        raise FrameError(f"{htype}: {len(content)} bytes instead of {wanted}")
