"""A motor that says so when it stands still on its way."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from ophyd import EpicsMotor
from ophyd.status import Status, WaitTimeoutError

from apsber_bluesky.core import PlanError
from apsber_bluesky.devices._safe_state import SafePut
from apsber_bluesky.devices._status import run_in_thread

_POLL_S: Final = 0.1
_STOPPING_S: Final = 10.0
#: An axis that moves covers more than this part of what its speed allows.
_SLOWEST: Final = 0.05
_OFF_FRACTION: Final = 0.05
_OFF_DIGITS: Final = 20.0


class WatchedMotor(EpicsMotor):
    """A motor record whose moves fail, and name it, when the axis does not move or stops short.

    Attributes
    ----------
    stall_s : float
        How long the axis may stand still on its way [s].
    """

    stall_s = 3.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._orders = 0
        self._braking = False
        self._order_lock = threading.Lock()
        super().__init__(*args, **kwargs)

    def set(self, new_position: float, **kwargs: Any) -> Status:
        """Move.

        Parameters
        ----------
        new_position : float
            Where to [EGU].
        **kwargs
            As for `ophyd.EpicsMotor.move`.

        Returns
        -------
        Status
            Finished when the axis is there, or was told to stop; fails with `PlanError` when it
            stalls or ends elsewhere.

        Raises
        ------
        ophyd.utils.LimitError
            If the position is outside the limits.
        """
        self.check_value(new_position)
        with self._order_lock:
            self._orders += 1
            order = self._orders
        return run_in_thread(lambda: self._go(new_position, order, kwargs), self)

    def stop(self, *, success: bool = False) -> None:
        """Stop the axis; the move that it was in ends without a failure."""
        with self._order_lock:
            self._orders += 1
            self._braking = True
            super().stop(success=True)

    def safe_puts(self) -> list[SafePut]:
        """Stop."""
        return [(self.motor_stop.setpoint_pvname, 1)]

    def _go(self, target: float, order: int, options: dict[str, Any]) -> None:
        self._await_standstill()
        with self._order_lock:
            if self._orders != order:
                return
            start = float(self.user_readback.get())
            motion = self.move(target, wait=False, **options)
        self._watch(motion, target, order)
        position = float(self.user_readback.get(use_monitor=False))
        tolerance = max(
            _OFF_FRACTION * abs(target - start), _OFF_DIGITS * 10.0 ** -int(self.precision)
        )
        if self._orders == order and abs(position - target) > tolerance:
            raise PlanError(
                f"{self.name} stopped at {position:.6g} on its way from {start:.6g} to"
                f" {target:.6g}: a limit switch, or somebody else, has stopped it"
            )

    def _await_standstill(self) -> None:
        """Wait for the end of a motion that was stopped: ophyd would take it for that of the next.

        Raises
        ------
        PlanError
            If it does not end.
        """
        deadline = time.monotonic() + _STOPPING_S
        while self._braking and not self.motor_done_move.get(use_monitor=False):
            if time.monotonic() > deadline:
                raise PlanError(f"{self.name} was told to stop {_STOPPING_S:g} s ago, and moves")
            time.sleep(_POLL_S / 5)
        if self._braking:
            self._braking = False
            # The monitor tells ophyd a little later than a get tells us.
            time.sleep(_POLL_S)

    def _watch(self, motion: Status, target: float, order: int) -> None:
        since_s, since = time.monotonic(), float(self.user_readback.get())
        least = _SLOWEST * float(self.velocity.get()) * self.stall_s
        patience_s = max(self.stall_s, 2 * float(self.acceleration.get()))
        while self._orders == order:
            try:
                motion.wait(timeout=_POLL_S)
            except WaitTimeoutError:
                pass
            else:
                return
            position, now_s = float(self.user_readback.get()), time.monotonic()
            if abs(position - since) > least:
                since_s, since = now_s, position
            elif now_s - since_s > patience_s:
                self.stop(success=True)
                raise PlanError(
                    f"{self.name} stalled at {position:.6g} on its way to {target:.6g}: it has not"
                    f" moved for {patience_s:.3g} s; see its drive, and its record's SPMG and STAT"
                )
