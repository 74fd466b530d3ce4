"""What must hold of a run's quality: ``resolution<4``, ``ring_score=warn``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from apsber_bluesky.core._errors import InputError
from apsber_bluesky.core._quality import Verdict

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_CONDITION: Final = re.compile(r"\s*([a-z][a-z0-9_]{0,63})\s*(<=|>=|<|>|=)\s*(\S{1,32})\s*")


@dataclass(frozen=True, slots=True)
class QualityCondition:
    """One condition on one quality number.

    Attributes
    ----------
    name : str
        The quality number.
    sign : str
        One of ``<``, ``<=``, ``>``, ``>=``, ``=``.
    value : float or Verdict
        What it is compared with; a verdict only with ``=``.
    """

    name: str
    sign: str
    value: float | Verdict

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read a condition such as ``"resolution<4"`` or ``"ring_score=warn"``.

        Raises
        ------
        InputError
            If it is none.
        """
        match = _CONDITION.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InputError(f"{text!r} is no condition; write 'resolution<4' or 'ring_score=warn'")
        name, sign, right = match.groups()
        verdicts = [str(verdict) for verdict in Verdict]
        if right in verdicts:
            if sign != "=":
                raise InputError(f"{text!r}: a verdict is compared by '=', not by {sign!r}")
            return cls(name, sign, Verdict(right))
        try:
            value = float(right)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{text!r}: {right!r} is no number, nor one of {', '.join(verdicts)}")
        return cls(name, sign, value)

    @property
    def key(self) -> str:
        """Where a catalogue has what is compared."""
        return f"quality.{self.name}.{'verdict' if isinstance(self.value, Verdict) else 'value'}"

    def compare(self, left: Any) -> Any:
        """Compare something with the value of the condition: a number, or a key of a catalogue."""
        value = str(self.value) if isinstance(self.value, Verdict) else self.value
        return _OPERATORS[self.sign](left, value)

    def matches(self, metrics: Iterable[Mapping[str, Any]]) -> bool:
        """Whether it holds of the ``metrics`` of ``quality.json``; what was not measured does not.

        Parameters
        ----------
        metrics : iterable of mapping
            Quality numbers as `QualityMetric.to_dict` gives them.
        """
        part = "verdict" if isinstance(self.value, Verdict) else "value"
        found = next((own[part] for own in metrics if own["name"] == self.name), None)
        return found is not None and bool(self.compare(found))
