"""Plans: what a user runs with ``RE(...)``, ``apsber run`` or queueserver."""

if __name__ != "apsber_bluesky.plans":
    raise ImportError(
        f"import apsber_bluesky.plans, not {__name__}: two copies of the plans would not see"
        " each other's devices"
    )

from apsber_bluesky.plans._fly_tomography import fly_tomography
from apsber_bluesky.plans._step_tomography import step_tomography

__all__ = ["fly_tomography", "step_tomography"]
