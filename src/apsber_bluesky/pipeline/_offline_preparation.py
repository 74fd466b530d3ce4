"""What is done to the projections of a scan on disk beside normalising them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from apsber_bluesky.core import PhaseSettings
from apsber_bluesky.pipeline._preparation import phase_filter
from apsber_bluesky.processing import PaganinFilter


@dataclass(frozen=True, slots=True)
class OfflinePreparation:
    """What is asked for; the steps and their order are those of a session.

    Attributes
    ----------
    flats : {"average", "interpolate"}
        Whether flats of different times are averaged, or interpolated for each projection.
    zingers : float or None
        Threshold of `remove_zingers`; None leaves all as they are.
    phase : PhaseSettings or None
        Phase retrieval.
    stripes : {"none", "sorting", "wavelet"}
        How stripes of sinograms are removed.
    extend_edges : bool
        Whether rows are continued beyond their edges, for a sample wider than the view.
    """

    flats: Literal["average", "interpolate"] = "average"
    zingers: float | None = None
    phase: PhaseSettings | None = None
    stripes: Literal["none", "sorting", "wavelet"] = "none"
    extend_edges: bool = False

    def phase_filter(
        self, rows: int, columns: int, pixel_size_um: float | None
    ) -> PaganinFilter | None:
        """The filter for projections of a size, if the phase is retrieved.

        Raises
        ------
        InputError
            If a number is missing or makes no sense.
        """
        if self.phase is None:
            return None
        return phase_filter(
            rows,
            columns,
            delta_over_beta=self.phase.delta_over_beta,
            numbers={
                "the photon energy (--energy-keV)": self.phase.energy_keV,
                "the distance from sample to detector (--distance-mm)": self.phase.distance_mm,
                "the pixel size (--pixel-size)": pixel_size_um,
            },
        )
