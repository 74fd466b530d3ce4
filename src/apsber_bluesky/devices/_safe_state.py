"""What makes a device safe, for a process that has no devices."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

SafePut = tuple[str, float | str]
"""A PV and what to write to it."""


@runtime_checkable
class HasSafeState(Protocol):
    """A device that can be made safe by writing PVs, when the process that used it has died."""

    name: str

    def safe_puts(self) -> list[SafePut]:
        """What to write, in order; asked when a run begins."""
        ...


def puts_of(part: Any) -> list[SafePut]:
    """What makes a part of a device safe; nothing if it does not say."""
    return part.safe_puts() if isinstance(part, HasSafeState) else []
