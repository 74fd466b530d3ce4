"""A motor record that moves: caproto's record fields, driven by a closed-form trajectory."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from caproto.server import PVGroup, pvproperty
from caproto.server.server import PvpropertyDouble

from apsber_bluesky.simulation._trajectory import Trajectory

MotionListener = Callable[[Trajectory, float, float], None]
"""Called with the motion and a stretch of time (since, until) that has passed."""

_TICK_S = 0.03
_HELD = ("Stop", "Pause")


class _MotorValue(PvpropertyDouble):  # type: ignore[misc]
    """The ``VAL`` field: a put ends when the motion does, and limits are the record's business."""

    on_put: Callable[[float, float], Awaitable[None]]

    async def verify_value(self, value: Any) -> Any:
        return value

    def preprocess_value(self, value: Any) -> float:
        return float(super().preprocess_value(value))

    async def auth_write(self, *args: Any, **kwargs: Any) -> Any:
        previous = self.value
        result = await super().auth_write(*args, **kwargs)
        await self.on_put(previous, self.value)
        return result


class _MotorGroup(PVGroup):  # type: ignore[misc]
    motor = pvproperty(value=0.0, name="", dtype=_MotorValue, record="motor", precision=4)


class MotorRecord:
    """One axis: its record, and where it is at any time.

    Positions are user coordinates [EGU]; times are those of ``time.monotonic`` [s].

    Parameters
    ----------
    name : str
        Name of the record.
    units : str
        Engineering units.
    velocity : float
        Default of ``VELO`` [EGU/s].
    acceleration_s : float
        Default of ``ACCL``: time to reach the velocity [s].
    limits : tuple of 2 float
        Soft limits ``LLM`` and ``HLM`` [EGU].
    description : str
        ``DESC`` field.
    position : float
        Where the axis stands at first [EGU].
    """

    def __init__(
        self,
        name: str,
        *,
        units: str,
        velocity: float,
        acceleration_s: float,
        limits: tuple[float, float],
        description: str,
        position: float = 0.0,
    ) -> None:
        self._group = _MotorGroup(prefix=name)
        self._value: Any = self._group.motor
        self._fields: Any = self._value.fields
        self._defaults = {
            "EGU": units,
            "DESC": description,
            "PREC": 4,
            "RBV": position,
            "VELO": velocity,
            "VBAS": 0.0,
            "VMAX": 0.0,
            "ACCL": acceleration_s,
            "MRES": 1e-4,
            "LLM": limits[0],
            "HLM": limits[1],
            "DLLM": limits[0],
            "DHLM": limits[1],
            "TWV": 1.0,
            "SPMG": "Go",
            "DMOV": 1,
        }
        self.path = Trajectory.at_rest(position, time.monotonic())
        self.listeners: list[MotionListener] = []
        self._seen_s = self.path.end_s
        self._stopped = False
        self._changing = asyncio.Lock()
        self._moving = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._value.on_put = self._put
        self._connect_fields()

    @property
    def channels(self) -> dict[str, Any]:
        """The record by name; its fields are found through it."""
        return dict(self._group.pvdb)

    @property
    def offset(self) -> float:
        """User coordinate of the axis' own zero [EGU]."""
        return float(self._fields["OFF"].value)

    def position(self, at_s: float) -> float:
        """Where the axis is at a time not long past [EGU]."""
        return self.path.position(at_s)

    async def start(self) -> None:
        """Give the fields their first values."""
        for name, value in self._defaults.items():
            await self._fields[name].write(value, verify_value=False)
        await self._post_target(self.path.end_position)
        await self._post_readback(self.path.end_position)
        await self._limits_changed()

    async def run(self) -> None:
        """Keep the record up to date; ends when cancelled."""
        while True:
            await self._moving.wait()
            await self._follow()

    def advance(self) -> float:
        """Tell the listeners how the axis moved until now; the time that is now [s]."""
        now = time.monotonic()
        for listener in self.listeners:
            listener(self.path, self._seen_s, now)
        self._seen_s = now
        return now

    async def _follow(self) -> None:
        while True:
            now = self.advance()
            await self._post_readback(self.path.position(now))
            if now >= self.path.end_s:
                break
            await asyncio.sleep(min(_TICK_S, self.path.end_s - now))
        async with self._changing:
            if time.monotonic() < self.path.end_s:
                return
            self._moving.clear()
            if self._stopped:
                await self._post_target(self.path.end_position)
            await self._fields["MOVN"].write(0)
            await self._fields["DMOV"].write(1)
            self._idle.set()

    async def _post_readback(self, position: float) -> None:
        dial = position - self.offset
        await self._fields["RBV"].write(position)
        await self._fields["DRBV"].write(dial)
        await self._fields["RRBV"].write(round(dial / self._fields["MRES"].value))

    async def _post_target(self, position: float) -> None:
        await self._value.write(position)
        await self._fields["DVAL"].write(position - self.offset, verify_value=False)

    async def _put(self, previous: float, value: float) -> None:
        if self._fields["SET"].value in ("Set", 1):
            await self._redefine(value)
            return
        low, high = self._fields["LLM"].value, self._fields["HLM"].value
        if not math.isfinite(value) or (low < high and not low <= value <= high):
            await self._fields["LVIO"].write(1)
            await self._value.write(previous)
            return
        await self._fields["LVIO"].write(0)
        await self._fields["DVAL"].write(value - self.offset, verify_value=False)
        if self._fields["SPMG"].value in _HELD:
            return
        await self._start(value)
        await self._idle.wait()

    async def _start(self, target: float) -> None:
        now = self.advance()
        velocity = self._fields["VELO"].value
        self.path = self.path.move(
            now,
            target,
            velocity=velocity,
            acceleration=velocity / max(self._fields["ACCL"].value, 1e-3),
        )
        self._stopped = False
        async with self._changing:
            self._idle.clear()
            await self._fields["TDIR"].write(int(target >= self.path.position(now)))
            await self._fields["DMOV"].write(0)
            await self._fields["MOVN"].write(1)
            self._moving.set()

    def _stop(self) -> None:
        if not self._moving.is_set():
            return
        now = self.advance()
        acceleration = self._fields["VELO"].value / max(self._fields["ACCL"].value, 1e-3)
        self.path = self.path.stop(now, acceleration=acceleration)
        self._stopped = True

    async def _redefine(self, value: float) -> None:
        """Give the present place a new name, as the record does in SET mode."""
        shift = value - self.path.position(time.monotonic())
        await self._fields["OFF"].write(self.offset + shift, verify_value=False)
        for name in ("LLM", "HLM"):
            await self._fields[name].write(self._fields[name].value + shift, verify_value=False)
        await self._limits_changed()
        self.path = Trajectory.at_rest(value, time.monotonic())
        await self._post_readback(value)

    async def _limits_changed(self) -> None:
        low, high = self._fields["LLM"].value, self._fields["HLM"].value
        for channel in (self._value, self._fields["RBV"]):
            await channel.write_metadata(
                lower_ctrl_limit=low, upper_ctrl_limit=high,
                lower_disp_limit=low, upper_disp_limit=high,
                units=self._fields["EGU"].value, precision=self._fields["PREC"].value,
            )  # fmt: skip

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Start what a put to a command field asks for, without holding up the put."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _order(self, target: float) -> None:
        """Move as if a client had written `target` to VAL."""
        previous = self._value.value
        await self._value.write(target)
        await self._put(previous, target)

    def _connect_fields(self) -> None:
        """Give the fields that are commands their meaning; the others are only kept."""

        def on(name: str, action: Callable[[Any], Any]) -> None:
            async def putter(instance: Any, value: Any) -> Any:
                return action(value)

            self._fields[name].putter = putter

        def keep_positive(name: str) -> None:
            field = self._fields[name]
            on(name, lambda value: value if math.isfinite(value) and value > 0 else field.value)

        def move(name: str, target: Callable[[float], float]) -> None:
            def act(value: Any) -> int:
                if value:
                    self._later(self._order(target(float(value))))
                return 0

            on(name, act)

        for name in ("VELO", "ACCL"):
            keep_positive(name)
        for name in ("LLM", "HLM"):
            on(name, self._new_limit)
        move("TWF", lambda _: float(self._value.value + self._fields["TWV"].value))
        move("TWR", lambda _: float(self._value.value - self._fields["TWV"].value))
        move("HOMF", lambda _: self.offset)
        move("HOMR", lambda _: self.offset)
        move("RLV", lambda step: float(self._value.value) + step)
        on("DVAL", self._new_dial_value)
        on("STOP", self._put_stop)
        on("SPMG", self._hold_or_go)

    def _new_limit(self, value: float) -> float:
        # The record's own control limits follow once the field holds its new value.
        self._later(self._limits_changed())
        return value

    def _new_dial_value(self, value: float) -> float:
        self._later(self._order(value + self.offset))
        return value

    def _put_stop(self, value: int) -> int:
        if value:
            self._stop()
        return 0

    def _hold_or_go(self, value: str) -> str:
        was_held = self._fields["SPMG"].value in _HELD
        if value in _HELD:
            self._stop()
            self._stopped = value == "Stop"
        elif was_held:
            self._later(self._order(float(self._value.value)))
        return value
