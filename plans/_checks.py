"""Checks of plan arguments, made before anything moves."""

from __future__ import annotations

import math
import numbers
from typing import Any

from apsber_bluesky.core import InputError


def is_number(value: Any) -> bool:
    """Whether it is a finite real number; True and False are none."""
    return type(value) is not bool and isinstance(value, numbers.Real) and math.isfinite(value)


def check_count(name: str, value: int, least: int = 1) -> int:
    """Refuse what is no number of frames.

    Raises
    ------
    InputError
        If so; it names the argument.
    """
    if type(value) is not int or value < least:
        raise InputError(f"{name} is {value!r}; give a whole number, {least} or more")
    return value


def check_number(name: str, value: Any, low: float, high: float, unit: str = "") -> float:
    """Refuse a number outside a range.

    Raises
    ------
    InputError
        If so, or it is no number; it names the argument.
    """
    if not is_number(value) or not low <= float(value) <= high:
        words = f" {unit}" if unit else ""
        raise InputError(f"{name} is {value!r}; give {low:g} to {high:g}{words}")
    return float(value)


def check_reach(axis: Any, places: list[float], unit: str = "mm") -> None:
    """Refuse positions outside an axis' limits; an axis that has none goes everywhere.

    Raises
    ------
    InputError
        If one is; it names the axis.
    """
    low, high = getattr(axis, "limits", (0.0, 0.0))
    for place in (min(places), max(places)):
        if low < high and not low <= place <= high:
            raise InputError(
                f"{axis.name} would have to move to {place:.4g} {unit}, its limits are {low:.4g}"
                f" to {high:.4g} {unit}"
            )
