"""Frames that are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from apsber_bluesky.analysis._limits import metric
from apsber_bluesky.core import (
    FrameBooks,
    Limits,
    QualityMetric,
    SeriesBooks,
    format_ranges,
)

_NAMED = 5


def missing_frames(
    books: FrameBooks, *, limits: Mapping[str, Limits] | None = None
) -> QualityMetric:
    """Part of the expected frames that are not on disk, or not whole.

    Parameters
    ----------
    books : FrameBooks
        The books of the run.
    limits : mapping of str to Limits, optional
        Limits by name of the quality number.

    Returns
    -------
    QualityMetric
        ``missing_frames``, from 0 to 1; NaN if no frame was expected. The note names frames.
    """
    lost = books.num_missing + books.num_incomplete
    value = lost / books.expected if books.expected else math.nan
    notes = [_name(name, own) for name, own in books.streams.items()]
    note = "; ".join(filter(None, notes)) if books.expected else "no frames were expected"
    return metric(
        "missing_frames", value, unit="1", source="frame accounting", note=note, limits=limits
    )


def _name(stream: str, books: SeriesBooks) -> str:
    texts = []
    if books.num_missing:
        which = f" ({format_ranges(books.missing, _NAMED)})" if books.missing else ""
        texts.append(f"{books.num_missing} of {books.expected} {stream}{which}")
    if books.incomplete:
        which = format_ranges(books.incomplete, _NAMED)
        texts.append(f"{books.num_incomplete} incomplete {stream} ({which})")
    return ", ".join(texts)
