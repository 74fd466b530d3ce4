"""A Jungfrau at the simulated beamline: pedestals, series in energies, and what goes wrong."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

EXPOSURE_S = 0.01
PEDESTAL_FRAMES = 30
FRAMES = 24
CELLS = [15, 0]

SESSION = """
import json, sys, threading, time
from pathlib import Path

import h5py
import numpy as np

from apsber_bluesky.core import RunLedger
from apsber_bluesky.processing import JungfrauMap, read_jungfrau_map, write_jungfrau_map
from apsber_bluesky.session import start
from apsber_bluesky.simulation._jungfrau_ioc_scene import COLUMNS, ROWS, jungfrau_diffraction
from apsber_bluesky.simulation._jungfrau_ioc_sensor import JungfrauSensor

EXPOSURE_S, PEDESTAL_FRAMES, FRAMES = 0.01, 30, 24
KEV, SEED = 20.0, 1
sensor = JungfrauSensor(ROWS, COLUMNS, SEED)
gain_file = Path(sys.argv[1]) / "gain.h5"
gains = sensor.gains().astype(np.float32)
write_jungfrau_map(gain_file, JungfrauMap("gain", gains, "2026-05-04T12:00:00+00:00"))
changes = {
    "simulation": {"rows": 16, "columns": 16, "seed": SEED},
    "processing": {"jungfrau": {"gain_file": str(gain_file)}},
    "storage": {"archive": False},
    "streaming": {"series_timeout_s": 2.0},
}
result = {}
with start("simulated", changes) as s:
    import bluesky.plan_stubs as bps
    import bluesky.preprocessors as bpp
    import epics
    from bluesky.utils import RunEngineInterrupted

    from apsber_bluesky.devices import FrameSeries

    d, plans = s.devices, s.plans
    jungfrau, cam = d.jungfrau, d.jungfrau.cam
    starts = {}
    s.RE.subscribe(lambda name, doc: starts.__setitem__(doc["uid"], doc), "start")
    acquisitions = 0

    def run(plan, series=1):
        global acquisitions
        acquisitions += series
        (uid,) = s.RE(plan)
        return uid, s.wait(uid, 60)

    def left():
        return {
            "shutter": d.shutter.state.get(),
            "acquire": int(cam.acquire.get(use_monitor=False)),
            "gain_mode": jungfrau.gain_mode.get(),
            "cells": list(jungfrau.storage_cells),
        }

    def pedestal(cells):
        extra = len(cells) - 1
        plan = plans.jungfrau_pedestal(
            jungfrau, d.shutter, num_frames=PEDESTAL_FRAMES, exposure_s=EXPOSURE_S,
            extra_storage_cells=extra, storage_cell_start=cells[0],
        )
        return measured(*run(plan, 3), cells)

    def measured(uid, summary, cells):
        found = {"uid": uid, "state": summary["state"], "frames": summary["frames"], "cells": {}}
        for cell in cells:
            file = s.folder(uid).path / f"pedestal_jungfrau_cell{cell}.h5"
            mean = read_jungfrau_map(file, "pedestal").values
            with h5py.File(file) as stored:
                noise = stored["noise"][()]
            true = sensor.pedestal(cell, exposure_s=EXPOSURE_S)
            off = (mean - true) / (noise / np.sqrt(PEDESTAL_FRAMES))
            found["cells"][cell] = {
                "spread": off.std(axis=(1, 2)).tolist(),
                "bias": off.mean(axis=(1, 2)).tolist(),
                "noise": noise.mean(axis=(1, 2)).tolist(),
            }
        return {**found, "left": left()}

    def series(rotation=None, step_deg=0.0, cells=(15,), **more):
        if rotation is not None:
            more["rotation_step_deg"] = step_deg
        plan = plans.jungfrau_series(
            jungfrau, d.shutter, rotation, num_frames=FRAMES, exposure_s=EXPOSURE_S,
            frame_period_s=0.03, extra_storage_cells=len(cells) - 1,
            storage_cell_start=cells[0], **more,
        )
        uid, summary = run(plan)
        return uid, summary

    def energies(uid, step_deg=0.0, cells=(15,), start_deg=0.0):
        folder = s.folder(uid)
        with h5py.File(folder.raw_of("jungfrau")) as raw, h5py.File(
            folder.path / "energies_jungfrau.h5"
        ) as converted:
            stage = np.array([0, 1, 9, 2])[raw["entry/primary/data"][()] >> 14]
            own = raw["entry/primary/frame_number"][()].tolist()
            energy = converted["entry/data/energy"][()]
        diffraction = jungfrau_diffraction(SEED, KEV)
        # A part that was taken after a pause is an acquisition of its own, which counts anew.
        part = np.cumsum([0, *(after <= before for before, after in zip(own, own[1:]))])
        true = np.stack([
            diffraction.photons(
                start_deg + number // len(cells) * step_deg,
                number=(acquisitions - int(part[-1] - part[number]), own[number]),
                exposure_s=EXPOSURE_S,
            )
            for number in range(FRAMES)
        ]) * KEV
        found = {}
        for number in range(3):
            here = stage == number
            off = (energy - true)[here] * np.abs(np.broadcast_to(gains[number], stage.shape)[here])
            found[number] = {"pixels": int(here.sum()), "adu": float(off.std()),
                             "bias": float(off.mean())}
        return {**found, "parts": int(part[-1]) + 1}

    def described(uid, summary):
        conditions = starts[uid]["crystallography"]
        return {"state": summary["state"], "frames": summary["frames"],
                "pedestal_run": conditions["pedestal_run"], "warnings": summary["warnings"],
                "metadata": starts[uid]["detectors_metadata"]["jungfrau"], "left": left()}

    def refusal(plan_or_call):
        before = len(starts)
        try:
            plan_or_call() if callable(plan_or_call) else s.RE(plan_or_call)
        except Exception as error:
            return {"type": type(error).__name__, "message": str(error), "left": left(),
                    "runs": len(starts) - before}

    one = dict(exposure_s=EXPOSURE_S, frame_period_s=0.03)
    result["none_yet"] = refusal(plans.jungfrau_series(jungfrau, d.shutter, **one))
    result["pedestal"] = pedestal([15])
    result["pedestal_cells"] = pedestal([15, 0])
    uid, summary = series()
    result["internal"] = {**described(uid, summary), "energies": energies(uid)}
    # Before anything turns: the truth is that of 0 deg.
    uid, summary = series(cells=(15, 0))
    result["cells"] = {**described(uid, summary), "energies": energies(uid, cells=(15, 0))}
    uid, summary = series(d.rotation, 0.5, trigger="external",
                          pedestal=result["pedestal"]["uid"][:12])
    result["external"] = {**described(uid, summary), "energies": energies(uid, 0.5)}
    uid, summary = series(d.rotation, 0.5, trigger="start")
    result["start"] = described(uid, summary)

    def points(uid):
        yield from bps.prepare(
            jungfrau, FrameSeries(uid, "primary", 3, EXPOSURE_S, 0.02, "step"), wait=True
        )
        for _ in range(3):
            yield from bps.trigger_and_read([jungfrau])

    def step_scan():
        uid = yield from bps.open_run({"technique": "detector", "detectors": ["jungfrau"]})
        yield from bpp.stage_wrapper(points(uid), [jungfrau])
        yield from bps.close_run()

    uid, summary = run(step_scan())
    result["step"] = {"state": summary["state"], "frames": summary["frames"]}

    def check(trigger, **changes):
        def call():
            signals = {getattr(jungfrau, name): value for name, value in changes.items()}
            before = {signal: signal.get() for signal in signals}
            try:
                for signal, value in signals.items():
                    signal.put(value)
                jungfrau.check(FrameSeries("u", "primary", 10, 0.01, 0.02, trigger))
            finally:
                for signal, value in before.items():
                    signal.put(value)
        return refusal(call)

    def plan(**more):
        return refusal(plans.jungfrau_series(jungfrau, d.shutter, **{**one, **more}))

    result["refused"] = {
        "gate": check("gate"),
        "fixg0": check("internal", gain_mode="fixg0"),
        "gain_mode": check("internal", gain_mode="g7"),
        "step_cells": check("step", extra_storage_cells=1),
        "command": refusal(lambda: jungfrau.driver.command("gainmode g7")),
        "many_cells": plan(extra_storage_cells=16),
        "cell": plan(storage_cell_start=-1),
        "multiple": plan(extra_storage_cells=2, num_frames=100),
        "short_period": plan(extra_storage_cells=3, num_frames=100),
        "old": plan(max_pedestal_age_s=0.5),
        "exposure": plan(exposure_s=0.02),
        "setting": plan(setting="highgain0"),
        "no_such_run": plan(pedestal="feedcafe"),
        "rotation": refusal(plans.jungfrau_series(jungfrau, d.shutter, d.rotation, **one)),
        "pedestal_frames": refusal(
            plans.jungfrau_pedestal(jungfrau, d.shutter, num_frames=1)
        ),
    }

    silent = f"{s.beamline['prefix']}jungfrau:cam1:SimulateSilentModule"
    epics.caput(silent, 1, wait=True)
    uid, summary = series()
    epics.caput(silent, -1, wait=True)
    with RunLedger(s.folder(uid).ledger) as ledger:
        books = ledger.books.streams["jungfrau:primary"]
    with h5py.File(s.folder(uid).path / "energies_jungfrau.h5") as converted:
        unknown = np.isnan(converted["entry/data/energy"][()]).mean(axis=(0, 2))
    result["silent"] = {**described(uid, summary), "reason": summary["reason"],
                        "incomplete": books.incomplete,
                        "unknown": [float(unknown[:64].max()), float(unknown[64:].min())]}

    def interrupted(plan, after_s):
        # Run a plan, and pause it when its detector has exposed for a time.
        begun = threading.Event()
        watching = s.RE.subscribe(lambda name, doc: begun.set(), "descriptor")

        def interrupt():
            begun.wait(30)
            deadline = time.monotonic() + 30
            while cam.detector_state.get() not in ("Running", "Waiting") and (
                time.monotonic() < deadline
            ):
                time.sleep(0.01)
            time.sleep(after_s)
            s.RE.request_pause()

        held = threading.Thread(target=interrupt)
        held.start()
        try:
            s.RE(plan)
        except RunEngineInterrupted:
            pass
        held.join()
        s.RE.unsubscribe(watching)
        deadline = time.monotonic() + 10
        while d.shutter.state.get() != "Closed" and time.monotonic() < deadline:
            time.sleep(0.02)
        return list(starts)[-1], {**left(), "engine": s.RE.state}

    # The longer the period, the surer a pause is within the series.
    slow = dict(num_frames=PEDESTAL_FRAMES, exposure_s=EXPOSURE_S, frame_period_s=0.05)
    cells = [3, 4]
    uid, while_paused = interrupted(plans.jungfrau_pedestal(
        jungfrau, d.shutter, extra_storage_cells=1, storage_cell_start=cells[0], **slow), 0.5)
    (uid,) = s.RE.resume()
    acquisitions += 4
    result["paused_pedestal"] = measured(uid, s.wait(uid, 60), cells)
    result["paused_pedestal"]["while_paused"] = while_paused

    uid, while_paused = interrupted(plans.jungfrau_series(
        jungfrau, d.shutter, d.rotation, num_frames=FRAMES, exposure_s=EXPOSURE_S,
        frame_period_s=0.06, trigger="external", rotation_start_deg=3.0, rotation_step_deg=0.5,
        pedestal=result["pedestal"]["uid"]), 1.2)
    (uid,) = s.RE.resume()
    acquisitions += 2
    result["paused_series"] = {**described(uid, s.wait(uid, 60)), "while_paused": while_paused,
                               "energies": energies(uid, 0.5, start_deg=3.0)}

    uid, _ = interrupted(plans.jungfrau_pedestal(
        jungfrau, d.shutter, num_frames=3000, exposure_s=EXPOSURE_S, frame_period_s=0.02), 0.5)
    acquisitions += 1
    s.RE.abort("enough")
    summary = s.wait(uid, 60)
    result["abort"] = {"state": summary["state"], "left": left(), "engine": s.RE.state,
                       "detector": cam.detector_state.get(use_monitor=False)}
    uid, summary = series()
    result["after_abort"] = described(uid, summary)
print("RESULT", json.dumps(result))
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory, repository):
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("jungfrau")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = subprocess.run(
        [sys.executable, "-c", SESSION, str(folder)],
        env={**kept, "APSBER_DATA_ROOT": str(folder / "data")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(done.stdout.rpartition("RESULT ")[2])


SAFE = {"shutter": "Closed", "acquire": 0, "gain_mode": "dynamic", "cells": [15]}


@pytest.mark.parametrize(
    ("run", "cells"),
    [("pedestal", [15]), ("pedestal_cells", CELLS), ("paused_pedestal", [3, 4])],
)
def test_pedestals_are_the_simulated_ones_within_their_statistical_error(result, run, cells):
    found = result[run]
    total = 3 * PEDESTAL_FRAMES * len(cells)
    assert found["state"] == "complete"
    assert found["frames"]["written"] == found["frames"]["expected"] == total
    assert [int(cell) for cell in found["cells"]] == cells
    for maps in found["cells"].values():
        # Student's t with 29 degrees of freedom has a standard deviation of 1.036.
        assert maps["spread"] == pytest.approx([1.036] * 3, abs=0.03)
        assert maps["bias"] == pytest.approx([0] * 3, abs=0.1)
        assert maps["noise"] == pytest.approx([10, 4, 4], rel=0.03)
    assert found["left"] == SAFE


@pytest.mark.parametrize("run", ["internal", "external", "cells", "paused_series"])
def test_energies_of_a_series_are_the_simulated_ones_within_the_noise_in_each_stage(result, run):
    found = result[run]
    assert found["state"] == "complete"
    assert found["warnings"] == []
    assert found["frames"]["written"] == FRAMES
    for stage, noise in (("0", 10.0), ("1", 4.0), ("2", 4.0)):
        own = found["energies"][stage]
        assert own["pixels"] > 500
        # The pedestal's error adds to the noise of a frame.
        error = noise * (1 + 1 / PEDESTAL_FRAMES) ** 0.5
        assert own["adu"] == pytest.approx(error, rel=0.15)
        assert abs(own["bias"]) < 6 * error / own["pixels"] ** 0.5 + 0.1
    assert found["left"] == SAFE


def test_a_series_records_which_pedestals_it_used(result):
    newest, first = result["pedestal_cells"]["uid"], result["pedestal"]["uid"]
    assert result["internal"]["pedestal_run"] == newest
    assert result["external"]["pedestal_run"] == first
    metadata = result["cells"]["metadata"]
    assert metadata["storage_cells"] == CELLS
    assert metadata["first_frame_number"] == 1


@pytest.mark.parametrize("run", ["start", "step"])
def test_one_pulse_starts_a_series_and_software_triggers_step(result, run):
    found = result[run]
    assert found["state"] == "complete"
    assert (
        found["frames"]["written"] == found["frames"]["expected"] == {"start": FRAMES}.get(run, 3)
    )


REFUSALS = {
    "gate": "cannot be triggered by 'gate'",
    "fixg0": "can damage the detector",
    "gain_mode": "no gain mode 'g7'",
    "step_cells": "one image per point",
    "command": "refuses 'gainmode g7'",
    "many_cells": "extra_storage_cells is 16; give 0 to 15",
    "cell": "storage_cell_start is -1; give 0 to 15",
    "multiple": "give a multiple of 3",
    "short_period": "4 exposures of 0.01 s take 0.04 s",
    "old": "old, and 0.5 s are allowed",
    "exposure": "of 0.01 s, the series is of 0.02 s",
    "setting": "the series is of highgain0",
    "no_such_run": "no pedestals of jungfrau of run feedcafe",
    "rotation": "nothing ties frames to angles",
    "pedestal_frames": "num_frames is 1; give 2",
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_the_detector_cannot_do_is_refused_before_anything_begins(result, what):
    refused = result["refused"][what]
    assert REFUSALS[what] in refused["message"]
    assert refused["type"] == "InputError"
    assert refused["runs"] == 0
    assert refused["left"] == SAFE


def test_without_pedestals_a_series_says_which_plan_to_run(result):
    assert "run jungfrau_pedestal first" in result["none_yet"]["message"]
    assert result["none_yet"]["runs"] == 0


def test_frames_without_a_silent_module_are_named_and_their_pixels_unknown(result):
    found = result["silent"]
    assert found["state"] == "incomplete"
    assert found["incomplete"] == list(range(FRAMES))
    assert "incomplete" in found["reason"]
    assert found["unknown"] == [0.0, 1.0]
    assert found["left"] == SAFE


@pytest.mark.parametrize("run", ["paused_pedestal", "paused_series"])
def test_a_series_that_is_paused_is_safe_and_goes_on_when_it_is_resumed(result, run):
    safe = result[run]["while_paused"]
    assert (safe["engine"], safe["shutter"], safe["acquire"]) == ("paused", "Closed", 0)
    # What was set for the series is put back at its end.
    assert safe["cells"] == {"paused_pedestal": [3, 4], "paused_series": [15]}[run]
    assert result[run]["left"] == SAFE


def test_a_paused_series_is_made_of_two_acquisitions(result):
    assert result["paused_series"]["energies"]["parts"] == 2


def test_an_abort_leaves_the_detector_ready_for_the_next_series(result):
    assert result["abort"]["state"] == "aborted"
    assert result["abort"]["engine"] == "idle"
    assert result["abort"]["left"] == SAFE
    assert result["abort"]["detector"] in ("Stopped", "Idle")
    assert result["after_abort"]["state"] == "complete"
