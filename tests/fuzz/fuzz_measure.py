"""What a case may cost."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter

from fuzz_cases import Case
from fuzz_targets import Target

MEMORY_BYTES = 8 << 20
MEMORY_PER_BYTE = 64


class Meter:
    """Runs cases and keeps count: outcomes, the most memory, the longest time of the processor.

    A case may take `MEMORY_BYTES` and `MEMORY_PER_BYTE` for each byte that it has itself,
    whatever lengths it announces.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self.cases = self.messages = 0
        self.outcomes: Counter[str] = Counter()
        self.peak_bytes = 0
        self.slowest_s = 0.0

    def run(self, case: Case, *, memory: bool = True) -> None:
        self.cases += 1
        self.messages += len(case)
        if memory:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
        began = time.process_time()
        self.outcomes.update(self._target.run(case))
        self.slowest_s = max(self.slowest_s, time.process_time() - began)
        if memory:
            peak = tracemalloc.get_traced_memory()[1] - before
            self.peak_bytes = max(self.peak_bytes, peak)
            size = sum(len(part) for message in case for part in message)
            assert peak <= MEMORY_BYTES + MEMORY_PER_BYTE * size, f"{peak} bytes for {size}"

    @property
    def unreached(self) -> set[str]:
        """Outcomes that never came although they must, so that the fuzz goes deep enough."""
        return {wanted for wanted in self._target.wanted if not self.outcomes[wanted]}
