"""Quality numbers as data: a value, its unit, where the measure comes from and a verdict."""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass
from typing import Any


class Verdict(enum.StrEnum):
    """What a quality number says about the run."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"

    @classmethod
    def worst(cls, verdicts: list[Verdict]) -> Verdict:
        """The most severe of several verdicts; an empty list passes."""
        order = [cls.PASS, cls.WARN, cls.FAIL]
        return max(verdicts, key=order.index, default=cls.PASS)


@dataclass(frozen=True, slots=True)
class QualityMetric:
    """One quality number.

    Attributes
    ----------
    name : str
        E.g. ``"signal_to_noise"``.
    value : float
        The number; NaN when it could not be measured, and then the verdict is not ``PASS``.
    unit : str
        Unit of `value`, ``"1"`` for a pure number.
    verdict : Verdict
        Judgement against the limits of the profile.
    warn_limit, fail_limit : float
        The limits `value` was judged against.
    source : str
        The paper or convention that defines the measure.
    note : str
        What a reader should know, e.g. why it could not be measured.
    """

    name: str
    value: float
    unit: str
    verdict: Verdict
    warn_limit: float
    fail_limit: float
    source: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a value that could not be measured is None."""
        value = asdict(self)
        value["verdict"] = str(self.verdict)
        if not math.isfinite(self.value):
            value["value"] = None
        return value


def judge(value: float, *, warn: float, fail: float) -> Verdict:
    """Judge a number against two limits; ``fail < warn`` means that more is better.

    Parameters
    ----------
    value : float
        The number to judge. NaN fails.
    warn, fail : float
        Limits beyond which the verdict is ``WARN`` and ``FAIL``.

    Returns
    -------
    Verdict
        The verdict.
    """
    if math.isnan(value):
        return Verdict.FAIL
    sign = 1.0 if fail >= warn else -1.0
    if sign * value > sign * fail:
        return Verdict.FAIL
    if sign * value > sign * warn:
        return Verdict.WARN
    return Verdict.PASS
