"""From counts to line integrals: references, normalisation, stripes, zingers, phase."""

from apsber_bluesky.processing.preprocessing._edges import extend_edges
from apsber_bluesky.processing.preprocessing._normalise import (
    MINIMUM_TRANSMISSION,
    Normaliser,
    normalise,
)
from apsber_bluesky.processing.preprocessing._phase import PaganinFilter
from apsber_bluesky.processing.preprocessing._references import (
    average_reference,
    bad_pixels,
    find_bad_references,
)
from apsber_bluesky.processing.preprocessing._stripes import (
    remove_stripes_by_sorting,
    remove_stripes_by_wavelet,
)
from apsber_bluesky.processing.preprocessing._warm_up import warm_up_preprocessing
from apsber_bluesky.processing.preprocessing._zingers import remove_zingers

__all__ = [
    "MINIMUM_TRANSMISSION",
    "Normaliser",
    "PaganinFilter",
    "average_reference",
    "bad_pixels",
    "extend_edges",
    "find_bad_references",
    "normalise",
    "remove_stripes_by_sorting",
    "remove_stripes_by_wavelet",
    "remove_zingers",
    "warm_up_preprocessing",
]
