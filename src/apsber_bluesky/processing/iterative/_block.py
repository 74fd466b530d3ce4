"""What the iterative methods share: 16 slices that are reconstructed, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import Cancellation, RunCancelled
from apsber_bluesky.processing._vectors import LANES
from apsber_bluesky.processing.iterative._kernels import lane_dots
from apsber_bluesky.processing.iterative._projector import Projector, ProjectorMemory
from apsber_bluesky.processing.iterative._settings import IterativeSettings

_Array = NDArray[np.float32]
_Sums = NDArray[np.float64]


@dataclass(slots=True)
class Block:
    """Up to 16 slices under reconstruction.

    Each slice has its own step lengths and stops by itself, so no slice depends on those beside
    it but through the rounding of the projector.

    Attributes
    ----------
    projector : Projector
        The projector pair.
    memory : ProjectorMemory
        Its working memory.
    settings : IterativeSettings
        What to do.
    lines : ndarray of float32
        Measured line integrals, shape ``(n, columns, 16)``.
    image : ndarray of float32
        Initial slices, then the result, shape ``(columns, columns, 16)``.
    active : ndarray of bool
        Slices that have not stopped, shape ``(16,)``.
    started : bool
        Whether the initial slices are something else than 0.
    gain : float
        Largest eigenvalue of back-projection after projection; 0 if the method needs none.
    report : callable
        Told the number of each iteration and the residual that it starts from.
    cancelled : Cancellation or None
        Asked before each iteration.
    residuals : list of ndarray of float64
        Root mean square of the residual before each iteration, NaN for slices that have stopped.
    """

    projector: Projector
    memory: ProjectorMemory
    settings: IterativeSettings
    lines: _Array
    image: _Array
    active: NDArray[np.bool_]
    started: bool
    gain: float
    report: Callable[[int, _Sums], None]
    cancelled: Cancellation | None = None
    residuals: list[_Sums] = field(default_factory=list)

    @property
    def rays(self) -> int:
        """Measured values of each slice."""
        return self.lines.size // LANES

    def project(self, image: _Array, lines: _Array) -> None:
        """Project 16 slices."""
        self.projector.forward(image, lines, self.memory)

    def back_project(self, lines: _Array, image: _Array) -> None:
        """Transpose of `project`."""
        self.projector.adjoint(lines, image, self.memory)

    def initial_residual(self) -> _Array:
        """Measured line integrals without those of the initial slices."""
        residual = self.lines.copy()
        if self.started:
            lines = np.empty_like(self.lines)
            self.project(self.image, lines)
            residual -= lines
        return residual

    def begins(self, squares: _Sums, *, may_stop: bool = True) -> bool:
        """Note the squared residuals before an iteration; whether a slice goes on.

        Parameters
        ----------
        squares : ndarray of float64
            Sum of the squared residual of each slice.
        may_stop : bool
            Whether slices can be left as they are now.

        Raises
        ------
        RunCancelled
            If it was told to stop.
        """
        if self.cancelled is not None and self.cancelled.is_set():
            raise RunCancelled(f"cancelled after {len(self.residuals)} iterations")
        residual = np.sqrt(squares / self.rays)
        if may_stop and self.settings.noise is not None:
            self.active &= residual > self.settings.noise
        if not self.active.any():
            return False
        self.residuals.append(np.where(self.active, residual, np.nan))
        self.report(len(self.residuals), self.residuals[-1])
        return True

    def changed(self, squares: _Sums) -> None:
        """Stop the slices that have changed by less than the tolerance.

        Parameters
        ----------
        squares : ndarray of float64
            Sum of the squared change of each slice.
        """
        if self.settings.tolerance is not None:
            least = self.settings.tolerance**2 * lane_dots(self.image, self.image)
            self.active &= squares > least


def ratio(numerator: _Sums, denominator: _Sums, where: NDArray[np.bool_]) -> _Sums:
    """Quotient of each slice, 0 for those that have stopped or have nothing to divide by."""
    good = where & (denominator > 0)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=good)
