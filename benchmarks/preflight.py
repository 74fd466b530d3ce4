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
    """Plans by name."""
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
        "scattering_positions": lambda: p.scattering_series(
            d.eiger,
            d.shutter,
            axis=d.sample_x,
            positions_mm=[0.0, 1.0, 2.0],
            num_frames=20,
            exposure_s=0.05,
            num_darks=5,
        ),
        "scattering_rotation": lambda: p.scattering_series(
            d.eiger, d.shutter, rotation=d.rotation, trigger="external", num_frames=60
        ),
        "scattering_step": lambda: p.scattering_series(
            d.eiger, d.shutter, trigger="step", num_frames=20, exposure_s=0.1
        ),
        "jungfrau_pedestal": lambda: p.jungfrau_pedestal(d.jungfrau, d.shutter, num_frames=60),
        "jungfrau_series": lambda: p.jungfrau_series(
            d.jungfrau, d.shutter, num_frames=60, frame_period_s=0.05, pedestal="none"
        ),
        "xrf_map": lambda: p.xrf_map(
            d.vortex, d.fly_x, d.sample_stage.y, d.shutter, columns=20, rows=6
        ),
        "xrf_map_step": lambda: p.xrf_map(
            d.vortex, d.sample_x, d.sample_stage.y, d.shutter, columns=4, rows=4, mode="step"
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
