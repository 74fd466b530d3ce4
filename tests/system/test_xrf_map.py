"""A fluorescence map from RE to element maps, on the simulated Vortex."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import RunFolder
from apsber_bluesky.simulation import FluorescencePhantom

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SEED = 1

SESSION = """
import json, threading, time

from apsber_bluesky.core import ApsberError
from apsber_bluesky.session import start

changes = {
    "session": {"connection_timeout_s": 3.0},
    "simulation": {
        "rows": 64, "columns": 64, "energy_keV": 12.0, "seed": 1,
        "detectors": ["eiger", "jungfrau", "vortex", "vortex_mca"],
    },
    "storage": {"archive": False},
    "devices": {
        "apsber_bluesky.devices.VortexDetector": [
            {"name": "vortex", "prefix": "$(P)vortex:", "photon_energy_keV": 12.0,
             "labels": ["detectors"]},
            {"name": "absent", "prefix": "$(P)nowhere:", "labels": ["detectors"]},
        ],
        "apsber_bluesky.devices.VortexMca": [
            {"name": "mca", "prefix": "$(P)vortex_mca:", "labels": ["detectors"]},
        ],
    },
}
said = {}


def refused(**arguments):
    try:
        list(s.plans.xrf_map(d.vortex, d.fly_x, slow, d.shutter, **arguments))
    except ApsberError as error:
        return str(error)
    return "taken"


def pause_in(frames, over):
    # In the middle of a row: some of its frames are on disk, others are not.
    while not over.is_set():
        new = [document for name, document in list(documents) if name == "stream_datum"]
        if new and new[-1]["indices"]["stop"] in frames:
            s.RE.request_pause()
            return
        time.sleep(0.002)


def map_until_paused_in(frames):
    # On a busy machine these frames may come and go between two looks; then the map is whole, and
    # is taken again.
    for _ in range(5):
        del documents[:]
        over = threading.Event()
        thread = threading.Thread(target=pause_in, args=(frames, over))
        thread.start()
        try:
            s.RE(s.plans.xrf_map(d.vortex, d.fly_x, slow, d.shutter, **small))
        except RunEngineInterrupted:
            return "paused"
        finally:
            over.set()
            thread.join()
    return "not"


with start("simulated", changes) as s:
    from bluesky.utils import RunEngineInterrupted

    d = s.devices
    slow = d.sample_stage.y
    said["missing"] = sorted(d.missing)
    small = {"columns": 9, "rows": 4, "fast_start_mm": -0.8, "fast_step_mm": 0.2,
             "slow_start_mm": -0.8, "slow_step_mm": 0.4, "exposure_s": 0.05}
    documents = []
    token = s.RE.subscribe(lambda name, document: documents.append((name, document)))

    (uid,) = s.RE(s.plans.xrf_map(
        d.vortex, d.fly_x, slow, d.shutter, columns=13, rows=8, fast_start_mm=-0.9,
        fast_step_mm=0.15, slow_start_mm=-0.9, slow_step_mm=0.25, exposure_s=0.05, sample="map"))
    said["map"] = s.wait(uid, 60)
    node = s.processed[uid]
    said["published"] = [list(node), node.metadata["technique"]]
    said["read"] = node["maps"]["entry"]["maps"]["Fe"]["data"].read().tolist()
    said["velocity"] = d.fly_x.axis.velocity.get()
    said["elements"] = [d.vortex.read()[k]["value"] for k in sorted(d.vortex.read())
                        if k.endswith("dead_time_percent")]

    runs = []
    s.RE.subscribe(lambda name, document: runs.append(document["uid"]), "start")
    said["paused"] = map_until_paused_in(range(20, 26))
    said["while_paused"] = [d.vortex.cam.acquire.get(), d.fly_x.pulses.armed.get()]
    s.RE.resume()
    said["resumed"] = s.wait(runs[-1], 60)

    map_until_paused_in(range(11, 17))
    s.RE.abort()
    said["aborted"] = s.wait(runs[-1], 60)
    said["safe"] = [d.shutter.state.get(), d.vortex.cam.acquire.get(use_monitor=False),
                    d.fly_x.axis.moving, d.fly_x.pulses.armed.get(use_monitor=False),
                    d.fly_x.axis.velocity.get(use_monitor=False)]

    step = {**small, "columns": 3, "rows": 2, "mode": "step", "elements": ["Ca", "Fe"]}
    (uid,) = s.RE(s.plans.xrf_map(d.vortex, d.sample_x, slow, d.shutter, **step))
    said["step"] = s.wait(uid, 60)
    said["refused"] = {
        "columns": refused(columns=0),
        "fast_step_mm": refused(fast_step_mm=0.0),
        "limits": refused(fast_start_mm=19.5),
        "speed": refused(fast_step_mm=0.2, exposure_s=0.001, pixel_period_s=0.002),
        "pulses": "taken",
    }
    try:
        list(s.plans.xrf_map(d.vortex, d.sample_x, slow, d.shutter))
    except ApsberError as error:
        said["refused"]["pulses"] = str(error)
    from apsber_bluesky.devices import FrameSeries

    for name, series in {
        "start": FrameSeries("", "primary", 5, 0.01, 0.02, "start"),
        "memory": FrameSeries("", "primary", 100_000, 0.01, 0.02, "external"),
    }.items():
        try:
            d.vortex.check(series)
        except ApsberError as error:
            said["refused"][name] = str(error)

    import bluesky.plan_stubs as bps
    import bluesky.plans as bp

    d.mca.set_exposure(0.1)
    del documents[:]

    def count_in_light():
        yield from bps.mv(d.shutter, "open")
        yield from bps.mv(d.sample_x, 0.0, slow, 0.0)
        return (yield from bp.count([d.mca], num=1))

    s.RE(count_in_light())
    key = next(document for name, document in documents
               if name == "descriptor" and document["name"] == "primary")["data_keys"]
    event = [document for name, document in documents if name == "event"
             and "mca_dead_time_percent" in document["data"]][-1]["data"]
    said["mca"] = {
        "dtype": key["mca_mca_mca1_spectrum"]["dtype_numpy"],
        "counts": int(sum(event["mca_mca_mca1_spectrum"])),
        "rate": event["mca_dxp_dxp1_output_count_rate"],
        "input": event["mca_dxp_dxp1_input_count_rate"],
        "real": event["mca_mca_mca1_elapsed_real_time"],
        "live": event["mca_mca_mca1_elapsed_live_time"],
    }
print("RESULT", json.dumps(said))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("map")


@pytest.fixture(scope="module")
def said(run_python: Any, root: Path) -> dict[str, Any]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = run_python(SESSION, env={**kept, "APSBER_DATA_ROOT": str(root)})
    assert done.returncode == 0, done.stdout + done.stderr
    value: dict[str, Any] = json.loads(done.stdout.rpartition("RESULT ")[2])
    return value


def maps_of(root: Path, uid: str) -> h5py.File:
    return h5py.File(RunFolder.of(root, "commissioning", uid).path / "maps.h5")


def truth(maps: h5py.Group, symbol: str) -> np.ndarray:
    # Each pixel sees what the beam passes during its exposure.
    phantom = FluorescencePhantom(SEED)
    fast, slow = maps[symbol]["fast"][:], maps[symbol]["slow"][:]
    ways = np.linspace(-0.4, 0.4, 5) * (fast[1] - fast[0])
    seen = [phantom.densities(*np.meshgrid(fast + way, slow)) for way in ways]
    return np.mean(seen, axis=0)[phantom.elements.index(symbol)]


def correlation(maps: h5py.Group, symbol: str) -> float:
    found = maps[symbol]["data"][:]
    return float(np.corrcoef(found.ravel(), truth(maps, symbol).ravel())[0, 1])


def test_every_pixel_of_the_map_is_on_disk(said, root):
    assert said["map"]["state"] == "complete"
    assert said["map"]["frames"]["written"] == 13 * 8
    folder = RunFolder.of(root, "commissioning", said["map"]["uid"])
    with h5py.File(folder.raw_of("vortex")) as file:
        assert file["entry/primary/data"].shape == (104, 4, 4096)
        assert file["entry/primary/data"].dtype == np.dtype("<u4")


@pytest.mark.parametrize("symbol", FluorescencePhantom(SEED).elements)
def test_the_map_of_each_element_is_that_of_the_phantom(said, root, symbol):
    with maps_of(root, said["map"]["uid"]) as file:
        maps = file["entry/maps"]
        assert correlation(maps, symbol) > 0.995
        # Neither flight direction shifts the map.
        found, shape = maps[symbol]["data"][:], maps[symbol]["data"].shape
        assert shape == (8, 13)
        slopes = [
            np.polyfit(truth(maps, symbol)[rows].ravel(), found[rows].ravel(), 1)[0]
            for rows in (slice(0, None, 2), slice(1, None, 2))
        ]
        assert slopes[0] == pytest.approx(slopes[1], rel=0.05)


def test_only_the_elements_of_the_phantom_are_found(said, root):
    with maps_of(root, said["map"]["uid"]) as file:
        assert set(file["entry/maps"].attrs["elements"]) == set(FluorescencePhantom().elements)


def test_areal_densities_of_two_elements_have_the_ratio_of_the_phantom(said, root):
    with maps_of(root, said["map"]["uid"]) as file:
        maps = file["entry/maps"]
        factors = {
            symbol: maps[symbol]["relative_areal_density"][:].sum() / truth(maps, symbol).sum()
            for symbol in FluorescencePhantom().elements
        }
    spread = np.array(list(factors.values()))
    assert spread / spread.mean() == pytest.approx(1.0, abs=0.03)


def test_a_catalogue_client_reads_the_maps_beside_the_run(said, root):
    assert said["published"] == [["maps"], "fluorescence"]
    with maps_of(root, said["map"]["uid"]) as file:
        np.testing.assert_array_equal(said["read"], file["entry/maps/Fe/data"][:])


def test_dead_times_of_the_elements_are_read_and_the_axis_gets_its_speed_back(said):
    assert len(said["elements"]) == 4
    assert all(0.01 < percent < 20 for percent in said["elements"])
    assert said["velocity"] == 20.0


def test_a_map_that_was_paused_in_a_row_is_complete_and_right(said, root):
    assert said["paused"] == "paused"
    assert said["while_paused"] == [0, 0]
    assert said["resumed"]["state"] == "complete"
    assert said["resumed"]["frames"]["written"] == 36
    with maps_of(root, said["resumed"]["uid"]) as file:
        for symbol in FluorescencePhantom(SEED).elements:
            assert correlation(file["entry/maps"], symbol) > 0.995


def test_an_aborted_map_leaves_everything_safe(said):
    assert said["aborted"]["state"] == "aborted"
    assert said["safe"] == ["Closed", 0, False, 0, 20.0]


def test_a_map_can_be_stepped_with_an_axis_that_gives_no_pulses(said, root):
    assert said["step"]["state"] == "complete"
    assert said["step"]["frames"]["written"] == 6
    with maps_of(root, said["step"]["uid"]) as file:
        assert list(file["entry/maps"].attrs["elements"]) == ["Ca", "Fe"]
        assert file["entry/maps/Ca/data"].shape == (2, 3)


def test_a_detector_that_is_not_there_does_not_stop_the_session(said):
    assert said["missing"] == ["absent"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("columns", "columns is 0"),
        ("fast_step_mm", "fast_step_mm must not be 0"),
        ("limits", "its limits are"),
        ("speed", "mm/s"),
        ("pulses", "gives no pulses"),
        ("start", "cannot be triggered by 'start'"),
        ("memory", "it has memory for 12216"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_moves(said, argument, words):
    assert words in said["refused"][argument]


def test_the_older_electronics_count_for_as_long_as_asked(said):
    mca = said["mca"]
    assert mca["dtype"] == np.dtype(np.int32).str
    assert mca["real"] == pytest.approx(0.1)
    assert mca["counts"] == pytest.approx(mca["rate"] * mca["real"])
    assert mca["counts"] > 100
    # Dead time loses photons, and live time says how many.
    assert mca["live"] < mca["real"]
    assert mca["input"] == pytest.approx(mca["rate"] * mca["real"] / mca["live"], rel=0.1)
