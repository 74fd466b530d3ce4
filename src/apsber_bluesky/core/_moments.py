"""Moments as people write them."""

from __future__ import annotations

import datetime
import math
import numbers
import re
from typing import Any, Final

from apsber_bluesky.core._errors import InputError

Moment = str | float | datetime.datetime

_MONTH: Final = re.compile(r"(\d{4})(?:-(\d{2}))?")


def unix_time(name: str, moment: Any) -> float:
    """Unix time of a moment [s].

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    moment : str, float or datetime
        A date such as ``"2026"``, ``"2026-11"``, ``"2026-11-22"`` or ``"2026-11-22 14:30"``, in
        local time if it has no offset, or Unix time [s].

    Returns
    -------
    float
        Unix time [s].

    Raises
    ------
    InputError
        If it is something else.
    """
    advice = "give a date such as '2026-11-22' or '2026-11-22 14:30', or Unix time in seconds"
    if isinstance(moment, datetime.datetime):
        return moment.timestamp()
    is_number = isinstance(moment, numbers.Real) and not isinstance(moment, bool)
    if is_number and math.isfinite(moment):
        return float(moment)
    if not isinstance(moment, str):
        raise InputError(f"{name} is {moment!r}; {advice}")
    text = moment.strip()
    if match := _MONTH.fullmatch(text):
        text = f"{match[1]}-{match[2] or '01'}-01"
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} is {moment!r}; {advice}") from error
