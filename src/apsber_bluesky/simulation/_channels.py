"""Channel Access channels with a hook for what clients write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from caproto import (
    AccessRights,
    ChannelChar,
    ChannelDouble,
    ChannelEnum,
    ChannelFloat,
    ChannelInteger,
    ChannelString,
)

PutHook = Callable[[Any], Awaitable[None]]
"""Called with the new value; the client's put completes when it returns."""

LONG_STRING_LENGTH = 1024
_C = TypeVar("_C", bound="_Hooked")


class _Hooked:
    """What all channels here share: read-only ones refuse puts, others may call a hook.

    The server's own `post` does not call the hook, and posts only what changed, as a record does.
    """

    on_put: PutHook | None = None
    read_only: bool = False
    value: Any

    def check_access(self, hostname: str, username: str) -> AccessRights:
        if self.read_only:
            return AccessRights.READ
        return AccessRights.READ | AccessRights.WRITE

    def preprocess_value(self, value: Any) -> Any:
        """Numbers arrive from the wire as NumPy scalars; keep plain ones."""
        result = super().preprocess_value(value)  # type: ignore[misc]
        return result.item() if isinstance(result, np.generic) else result

    async def auth_write(self, *args: Any, **kwargs: Any) -> Any:
        result = await super().auth_write(*args, **kwargs)  # type: ignore[misc]
        if self.on_put is not None:
            await self.on_put(self.value)
        return result

    async def post(self, value: Any, **metadata: Any) -> None:
        """Publish a new value from the server's side."""
        if isinstance(value, np.ndarray) or value != self.value:
            await self.write(value, verify_value=False, **metadata)  # type: ignore[attr-defined]


class Double(_Hooked, ChannelDouble):  # type: ignore[misc]
    """A float64 channel."""


class Float(_Hooked, ChannelFloat):  # type: ignore[misc]
    """A float32 channel."""


class Integer(_Hooked, ChannelInteger):  # type: ignore[misc]
    """An int32 channel."""


class Text(_Hooked, ChannelString):  # type: ignore[misc]
    """A string of up to 39 characters."""


class LongText(_Hooked, ChannelChar):  # type: ignore[misc]
    """A string of any length up to `LONG_STRING_LENGTH`: an array of characters on the wire."""


class Choice(_Hooked, ChannelEnum):  # type: ignore[misc]
    """One of several strings."""

    @property
    def index(self) -> int:
        """Number of the current choice."""
        return int(self.enum_strings.index(self.value))


Channel = Double | Float | Integer | Text | LongText | Choice


def double(value: Any = 0.0, *, units: str = "", precision: int = 4, **more: Any) -> Double:
    """Make a float64 channel, or an array of them."""
    return Double(value=value, units=units, precision=precision, **more)


def integer(value: Any = 0, **more: Any) -> Integer:
    """Make an int32 channel, or an array of them."""
    return Integer(value=value, **more)


def choice(strings: Sequence[str], value: str | None = None) -> Choice:
    """Make an enumeration; the first string is the default."""
    return Choice(value=strings[0] if value is None else value, enum_strings=tuple(strings))


def text(value: str = "") -> Text:
    """Make a string of up to 39 characters."""
    return Text(value=value, string_encoding="utf-8")


def long_text(value: str = "") -> LongText:
    """Make a long string."""
    return LongText(value=value, max_length=LONG_STRING_LENGTH, string_encoding="utf-8")


def read_only(channel: _C) -> _C:
    """Let no client write to a channel."""
    channel.read_only = True
    return channel


def follow(setpoint: Channel, readback: Channel) -> None:
    """Have a readback repeat what clients write to its setpoint."""

    async def copy(value: Any) -> None:
        await readback.post(value)

    setpoint.on_put = copy


def fix(setpoint: Channel, readback: Channel | None = None) -> None:
    """Have a setpoint spring back: the simulated hardware has only this value."""
    only = setpoint.value

    async def restore(value: Any) -> None:
        await setpoint.post(only)
        if readback is not None:
            await readback.post(only)

    setpoint.on_put = restore
