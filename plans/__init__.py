"""Plans: what a user runs with ``RE(...)``, ``apsber run`` or queueserver."""

if __name__ != "apsber_bluesky.plans":
    raise ImportError(
        f"import apsber_bluesky.plans, not {__name__}: two copies of the plans would not see"
        " each other's devices"
    )

from apsber_bluesky.plans._align_rotation_axis import align_rotation_axis
from apsber_bluesky.plans._collect import collect_darks, collect_flats
from apsber_bluesky.plans._energy_series import energy_series
from apsber_bluesky.plans._fly_tomography import fly_tomography
from apsber_bluesky.plans._golden_tomography import golden_tomography
from apsber_bluesky.plans._jungfrau_pedestal import jungfrau_pedestal
from apsber_bluesky.plans._jungfrau_series import jungfrau_series
from apsber_bluesky.plans._mosaic_tomography import mosaic_tomography
from apsber_bluesky.plans._scattering_series import scattering_series
from apsber_bluesky.plans._step_tomography import step_tomography
from apsber_bluesky.plans._streaming_tomography import streaming_tomography
from apsber_bluesky.plans._xrf_map import xrf_map

__all__ = [
    "align_rotation_axis",
    "collect_darks",
    "collect_flats",
    "energy_series",
    "fly_tomography",
    "golden_tomography",
    "jungfrau_pedestal",
    "jungfrau_series",
    "mosaic_tomography",
    "scattering_series",
    "step_tomography",
    "streaming_tomography",
    "xrf_map",
]
