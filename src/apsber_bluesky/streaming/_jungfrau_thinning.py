"""A receiver that was told to send only some of its images, told from the numbers that come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_ENOUGH: Final = 12
_LEAST: Final = 3


class ThinningDetector:
    """Watch the first numbers of each module; loss by chance leaves some that follow each other.

    slsReceiver sends every n-th image where ``rx_zmqfreq`` is n, and one now and then where it
    is 0: no two of a series follow each other.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], list[int]] = {}
        self._settled: set[tuple[int, int]] = set()

    def saw(self, module: tuple[int, int], number: int) -> str:
        """A part came; what is wrong with the module, said once, or nothing."""
        if module in self._settled:
            return ""
        numbers = self._first.setdefault(module, [])
        if not numbers or number > numbers[-1]:
            numbers.append(number)
        return self._judge(module) if len(numbers) >= _ENOUGH else ""

    def finish(self) -> list[str]:
        """The series is over; what is wrong with modules that sent few images."""
        found = [
            self._judge(module)
            for module, numbers in self._first.items()
            if module not in self._settled and len(numbers) >= _LEAST
        ]
        return [text for text in found if text]

    def _judge(self, module: tuple[int, int]) -> str:
        self._settled.add(module)
        why = _thinned(self._first[module])
        return why and f"module {module} sends only {why}; set rx_zmqfreq to 1 at its slsReceiver"


def _thinned(numbers: Sequence[int]) -> str:
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    if min(steps) < 2:
        return ""
    if len(steps) == 1:
        step = steps.pop()
        return f"one image in {step}, as it does where rx_zmqfreq is {step}"
    shown = ", ".join(str(number) for number in numbers)
    return f"images now and then ({shown}), as it does where rx_zmqfreq is 0"
