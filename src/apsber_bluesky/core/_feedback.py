"""What a plan may ask of the processing of its own run while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

#: Part of the slices that is noise and too few angles; see `pipeline.HalfSetError`.
RELATIVE_ERROR = "relative_error"
#: Quality numbers that are known while frames come, as far as they go; see the reference.
SATURATED_PIXELS, MISSING_FRAMES = "saturated_pixels", "missing_frames"
FLAT_STABILITY, DRIFT = "flat_stability", "drift"


@dataclass(frozen=True, slots=True)
class LiveMetric:
    """A quality number of a run that is not over.

    Attributes
    ----------
    name : str
        Which number: `RELATIVE_ERROR`, `SATURATED_PIXELS`, `MISSING_FRAMES`, `FLAT_STABILITY` or
        `DRIFT`.
    value : float
        The number.
    projections : int
        Projections from the first on that had come when it was worked out.
    """

    name: str
    value: float
    projections: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they travel between processes."""
        return {"name": self.name, "value": self.value, "projections": self.projections}


@runtime_checkable
class ScanFeedback(Protocol):
    """The newest quality numbers of the running run; the session gives a camera one."""

    def latest(self, run_uid: str, name: str) -> LiveMetric | None:
        """The newest number of that name; None if there is none yet."""
        ...
