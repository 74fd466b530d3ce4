"""What plans predict against what they take, at the simulated beamline.

``python benchmarks/preflight.py [--quick] [--json]``
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

from _common import arguments, report

_FEW = {"num_darks": 3, "num_flats": 3}


def plans(session: Any, *, quick: bool) -> dict[str, Callable[[], Any]]:
    """Each tomography plan, by name."""
    d, p = session.devices, session.plans
    usual = (d.camera, d.rotation, d.shutter, d.sample_x)
    count = 60 if quick else 240
    fly = {"num_projections": count, "exposure_s": 0.05, **_FEW}
    return {
        "fly_tomography": lambda: p.fly_tomography(*usual, **fly),
        "fly_both_ends": lambda: p.fly_tomography(
            *usual, **fly, flat_mode="both", dark_mode="both", return_rotation=False
        ),
        "step_tomography": lambda: p.step_tomography(
            *usual, num_projections=count // 6, exposure_s=0.2, **_FEW
        ),
        "energy_images": lambda: p.energy_series(
            *usual, d.monochromator, energies_keV=[20.0, 21.0, 22.0], num_images=20, **_FEW
        ),
        "energy_tomography": lambda: p.energy_series(
            *usual,
            d.monochromator,
            energies_keV=[20.0, 21.0],
            mode="tomography",
            num_projections=60,
            **_FEW,
        ),
        "mosaic_tomography": lambda: p.mosaic_tomography(
            d.camera, d.rotation, d.shutter, d.sample_stage, num_projections=60, **_FEW
        ),
    }


def main() -> None:
    """Predict, run, compare."""
    options = arguments(__doc__ or "")
    from apsber_bluesky.core import asking_for_predictions
    from apsber_bluesky.session import start

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        changes = {"session": {"data_root": folder}, "simulation": {"rows": 64, "columns": 64}}
        with start("simulated", changes) as session:
            for name, make in plans(session, quick=options.quick).items():
                with asking_for_predictions() as found:
                    plan = make()
                    next(plan)
                    plan.close()
                began = time.perf_counter()
                session.RE(make())
                took = time.perf_counter() - began
                figures[f"{name}_predicted_s"] = round(found[0].duration_s, 2)
                figures[f"{name}_took_s"] = round(took, 2)
                figures[f"{name}_ratio"] = round(found[0].duration_s / took, 3)
    report(figures, as_json=options.json)


if __name__ == "__main__":
    main()
