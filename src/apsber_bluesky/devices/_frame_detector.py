"""A detector whose frames stream to the suite's receiver."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any, Final

from bluesky.utils import NoReplayAllowed
from ophyd import Component as Cpt
from ophyd import Signal
from ophyd.device import RedundantStaging, Staged
from ophyd.status import Status

from apsber_bluesky.core import (
    ApsberError,
    FrameReceiver,
    InputError,
    SeriesRequest,
    SeriesTicket,
    ServiceError,
)
from apsber_bluesky.devices._attempt import Attempt
from apsber_bluesky.devices._requests import FrameSeries
from apsber_bluesky.devices._safe_state import SafePut
from apsber_bluesky.devices._stream_assets import StreamAssets
from apsber_bluesky.devices._streaming_device import StreamingDevice

logger = logging.getLogger(__name__)

_EXPOSE_TIMEOUT_S: Final = 10.0
_JOIN_S: Final = 20.0
_POLL_S: Final = 0.01


class FrameDetector(StreamingDevice):
    """A detector for step and fly scans; what its kind has of its own is in `driver`.

    Subclasses make the driver in ``__init__``.

    Parameters
    ----------
    prefix : str
        PV prefix of the IOC.
    name : str
        Name in the documents; the frames are ``<name>_image``.
    pixel_size_um : float, optional
        Size of a pixel, at the sample where there is optics [um].
    receiver : FrameReceiver, optional
        The one reader of the detector's frames; the session provides it.
    series_timeout_s : float
        How long a series may be silent [s] before its missing frames are given up.
    **kwargs
        Further arguments of `ophyd.Device`, e.g. ``labels``.

    Attributes
    ----------
    driver : DetectorDriver
        Knows the records of this kind of detector.
    has_own_receiver : bool
        Whether the receiver serves no other detector; then the spool has the detector's name.
    interruptions : int
        How often a pause or a suspension has ended what the detector was doing.
    plan_retakes : bool
        Whether the plan itself takes again what an interruption leaves out; set by the plan.
    next_frame : ophyd.Signal
        Which frame of a step series the next `trigger` takes, from 0; -1 for the next one. Set for
        each point it makes a point that a pause repeats take the same frame again.
    """

    next_frame = Cpt(Signal, value=-1, kind="omitted")

    _staged: Staged

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        pixel_size_um: float | None = None,
        receiver: FrameReceiver | None = None,
        series_timeout_s: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.pixel_size_um = pixel_size_um
        self.receiver = receiver
        self.series_timeout_s = series_timeout_s
        self._exposed = 0
        self._num_armed = 0
        self._first_index: int | None = None
        self._attempt = Attempt()
        self.interruptions = 0
        self.plan_retakes = False

    def wait_for_connection(self, all_signals: bool = False, timeout: float = 2.0) -> None:
        """Wait for the signals that scans use; ophyd connects those of areaDetector when used."""
        super().wait_for_connection(all_signals=all_signals, timeout=timeout)
        self.driver.connect(timeout)

    # -- staging

    def stage(self) -> list[Any]:
        """Let frames flow to the receiver.

        The plugins stay as they are: they are not part of the way to the receiver, and staging a
        file plugin that has not seen a frame fails.
        """
        if self._staged is not Staged.no:
            raise RedundantStaging(f"{self.name} is {self._staged.value}; unstage it first")
        self._staged = Staged.yes
        self.driver.let_flow()
        return [self]

    def unstage(self) -> list[Any]:
        """Stop the detector and close the spool of the run."""
        self._staged = Staged.no
        self._attempt.give_up()
        self.driver.disarm()
        self._attempt.join(_JOIN_S)
        run_uid, self._run_uid = self._run_uid, None
        self._series = self._ticket = None
        self._assets = {}
        if run_uid is not None:
            self._connected_receiver().close_run(run_uid)
        return [self]

    def stop(self, *, success: bool = False) -> None:
        """Stop exposing; frames that come later are not used."""
        self._interrupt()
        super().stop(success=success)

    def pause(self) -> None:
        """Stop exposing; bluesky calls this when a plan is paused or suspended.

        Raises
        ------
        bluesky.utils.NoReplayAllowed
            If the plan itself takes the missing frames again, and bluesky is not to repeat it from
            its last checkpoint.
        """
        self.interruptions += 1
        self._interrupt()
        if self.plan_retakes:
            raise NoReplayAllowed

    def resume(self) -> None:
        """Nothing: the detector is prepared anew."""

    def _interrupt(self) -> None:
        self._attempt.give_up()
        try:
            if self._run_uid is not None and self._ticket is not None:
                self._connected_receiver().interrupt(self._run_uid)
        except ApsberError as error:
            # The detector is to be stopped all the same; the books will name what is missing.
            logger.warning("%s: the receiver was not told to stop: %s", self.name, error)
        finally:
            self.driver.disarm()

    def safe_puts(self) -> list[SafePut]:
        """Stop exposing, by the record that all areaDetector drivers have."""
        acquire = getattr(getattr(self, "cam", None), "acquire", None)
        return [] if acquire is None else [(acquire.setpoint_pvname, 0)]

    # -- series

    def check(self, series: FrameSeries) -> None:
        """Refuse a series that the detector cannot take.

        Raises
        ------
        InputError
            If so; it names the value and what to do.
        """
        self.driver.check(series)

    def prepare(self, series: FrameSeries) -> Status:
        """Set the detector up for a series and arm the receiver.

        Parameters
        ----------
        series : FrameSeries
            Frames to take.

        Returns
        -------
        Status
            Finished when `kickoff`, or `trigger` for ``trigger="step"``, may be called.

        Raises
        ------
        InputError
            If the detector cannot take it.
        """
        self.check(series)
        before, self._attempt = self._attempt, Attempt()
        before.give_up()
        attempt = self._attempt
        return attempt.run(lambda: self._prepare(series, attempt, before), self)

    def _prepare(self, series: FrameSeries, attempt: Attempt, before: Attempt) -> None:
        if not before.join(_JOIN_S):
            raise ServiceError(
                f"{self.name} has not given up what it did before; see its IOC and its receiver"
            )
        if series.run_uid != self._run_uid:
            self.driver.begin_run()
            self._run_uid, self._assets = series.run_uid, {}
        attempt.step(lambda: self.driver.prepare(series))
        self._series, self._exposed, self._ticket = series, 0, None
        self._first_index = series.first_index
        if series.trigger != "step":
            self._arm(series.num_frames, series.first_index)
        elif self.driver.arms_once:
            self._arm(series.num_frames, series.first_index)
            attempt.step(self.driver.arm)

    def _arm(self, num_frames: int, first_index: int | None) -> None:
        series = self._series
        if series is None:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        rows, columns = self.frame_shape
        request = SeriesRequest(
            run_uid=series.run_uid,
            stream=series.stream,
            num_frames=num_frames,
            rows=rows,
            columns=columns,
            dtype=self.frame_dtype,
            detector=self.name if self.has_own_receiver else "",
            first_index=first_index,
            retakes=series.retakes,
            angle_deg=series.angle_deg,
            step_deg=series.step_deg,
        )
        self._ticket = self._connected_receiver().arm(request)
        self._num_armed = num_frames
        if self._first_index is None:
            self._first_index = self._ticket.first_index
        self.driver.announce(self._ticket)
        self._assets.setdefault(series.stream, StreamAssets(self.data_key, (1, rows, columns)))

    def _armed(self) -> tuple[FrameSeries, SeriesTicket]:
        if self._series is None or self._ticket is None or self._attempt.is_given_up:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        return self._series, self._ticket

    # -- fly scans

    def kickoff(self) -> Status:
        """Start the prepared series; finished when the detector accepts triggers."""
        self._armed()
        attempt = self._attempt
        return attempt.run(lambda: attempt.step(self.driver.arm), self)

    def complete(self) -> Status:
        """Wait until every frame of the series is on disk, or named as missing."""
        series, _ = self._armed()
        attempt = self._attempt
        return attempt.run(lambda: self._complete(series, attempt), self)

    def _complete(self, series: FrameSeries, attempt: Attempt) -> None:
        ticket, receiver = self._ticket, self._connected_receiver()
        receiver.finish(
            series.run_uid,
            series.stream,
            timeout_s=self.series_timeout_s + series.period_s,
            given_up=lambda: attempt.is_given_up,
        )
        if ticket is not None and not attempt.is_given_up:
            where = (series.run_uid, series.stream, ticket.first_index)
            whole = not receiver.missing(*where, self._num_armed)
            attempt.step(lambda: self._end_series(whole=whole))

    def _end_series(self, *, whole: bool) -> None:
        """All frames of a series are here (`whole`), or will not come any more."""
        # A detector that waits for triggers that will not come any more is stopped.
        self.driver.disarm()

    def missing(self, series: FrameSeries) -> list[int]:
        """Which places of a series, one with a `first_index`, have no frame on disk."""
        if series.first_index is None:
            raise InputError(f"{self.name}: a series without a first_index has no known places")
        receiver, first = self._connected_receiver(), series.first_index
        return receiver.missing(series.run_uid, series.stream, first, series.num_frames)

    def give_up_missing(self, series: FrameSeries) -> None:
        """Take nothing of the stream of a series again; what is missing is in the books."""
        self._connected_receiver().give_up(series.run_uid, series.stream)

    def curtail(self, series: FrameSeries) -> int:
        """End a series that was stopped before its end; how many frames its stream has then."""
        return self._connected_receiver().curtail(series.run_uid, series.stream)

    # -- step scans

    def trigger(self) -> Status:
        """Take one frame of a series that was prepared with ``trigger="step"``."""
        if self._series is None:
            raise InputError(f"{self.name} was not prepared; call bps.prepare first")
        series = self._series
        if self._attempt.is_given_up:
            # A pause came since it was prepared; a point that is repeated goes on from here.
            before, self._attempt = self._attempt, Attempt()
            attempt = self._attempt
            return attempt.run(lambda: self._trigger_again(series, attempt, before), self)
        attempt = self._attempt
        return attempt.run(lambda: self._trigger(series, attempt), self)

    def _trigger_again(self, series: FrameSeries, attempt: Attempt, before: Attempt) -> None:
        if not before.join(_JOIN_S):
            raise ServiceError(f"{self.name} has not given up its last frame; see its IOC")
        self._ticket = None
        self._trigger(series, attempt)

    def _trigger(self, series: FrameSeries, attempt: Attempt) -> None:
        timeout_s = _EXPOSE_TIMEOUT_S + series.exposure_s
        wanted = int(self.next_frame.get())
        place = self._exposed if wanted < 0 else wanted
        first = self._first_index
        if not self.driver.arms_once:
            self._arm(1, None if first is None else first + place)
            self.driver.expose(timeout_s=timeout_s)
            self._complete(series, attempt)
            self._exposed = place + 1
            return
        if self._ticket is None or place != self._exposed:
            # Detectors count on while they are armed: another place needs another series.
            left = series.num_frames - place
            attempt.step(self.driver.disarm)
            attempt.step(lambda: self.driver.prepare(replace(series, num_frames=left)))
            self._arm(left, None if first is None else first + place)
            attempt.step(self.driver.arm)
        self.driver.expose(timeout_s=timeout_s)
        self._exposed = place + 1
        if self._exposed >= series.num_frames:
            self._complete(series, attempt)
        elif self._first_index is not None:
            self._await_frame(series, self._first_index + place)

    def _await_frame(self, series: FrameSeries, index: int) -> None:
        """Wait until a frame of the stream is on disk; one that is lost is given up in time.

        The books name it at the end of the series.
        """
        deadline = time.monotonic() + self.series_timeout_s
        receiver = self._connected_receiver()
        while receiver.missing(series.run_uid, series.stream, index, 1):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_S)
