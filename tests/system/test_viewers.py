"""A run as viewers see it: through Tiled as from its folder, in a report and in napari's reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SESSION = """
import json, sys, warnings

import numpy as np

from apsber_bluesky.core import ApsberError
from apsber_bluesky.session import start
from apsber_bluesky.viewers import browse_slices, open_run
from apsber_bluesky.viewers._napari_reader import read_layers

size = {"rows": 32, "columns": 40}
with start("simulated", {"simulation": size, "storage": {"archive": False}}) as s:
    d = s.devices
    scan = {"num_projections": 50, "exposure_s": 0.02, "num_darks": 4, "num_flats": 4}
    (uid,) = s.RE(
        s.plans.fly_tomography(
            d.camera, d.rotation, d.shutter, d.sample_x, sample="<i>root</i>", **scan
        )
    )
    summary = s.wait(uid)
    run, key = s.catalog[uid], s.catalog.context.api_key
    server = s.catalog.uri.split("/api/")[0]
    address = f"{server.replace('http', 'tiled')}/raw/{uid}?api_key={key}"
    served, on_disk = open_run(run), open_run(summary["folder"])
    reports = {"tiled": served.report(), "folder": on_disk.report()}
    said = {name: [p.title for row in r.panels for p in row] for name, r in reports.items()}
    images = {
        name: [p.values for row in r.panels for p in row if hasattr(p, "values")]
        for name, r in reports.items()
    }
    said["equal"] = [
        bool(np.allclose(a, b)) for a, b in zip(images["tiled"], images["folder"], strict=True)
    ]
    said["metrics"] = {
        name: sorted((m["name"], m["verdict"]) for m in r.metrics) for name, r in reports.items()
    }
    said["uids"] = [open_run(node).uid == uid for node in (run, address, s.processed[uid])]
    said["card"] = served._repr_html_()
    ((data, options, kind),) = read_layers(address)
    slice_ = np.asarray(data[7])
    said["layer"] = [kind, list(data.shape), options["scale"], options["units"]]
    said["slice"] = bool(np.allclose(slice_, on_disk.image().read_slice("z", 7)))
    browser = browse_slices(run)
    browser.axis.value = "y"
    said["browser"] = [browser.position.max, browser.picture.value[:4].hex()]
    said["refused"] = []
    for wrong in (f"{address.split('?')[0]}", address.replace(uid, "nothing"), s.catalog):
        try:
            open_run(wrong)
        except ApsberError as error:
            said["refused"].append(str(error))
print("SAID", json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What viewers made of a run that a session took."""
    folder = tmp_path_factory.mktemp("viewers")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        env={**kept, "APSBER_DATA_ROOT": str(folder / "data")},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert "SAID " in done.stdout, done.stderr
    return json.loads(done.stdout.rpartition("SAID ")[2])


def test_the_report_is_the_same_through_tiled(said):
    assert said["tiled"] == said["folder"]
    assert len(said["tiled"]) == 6
    # Three slices, sinogram, projection.
    assert said["equal"] == [True] * 5
    assert said["metrics"]["tiled"] == said["metrics"]["folder"]
    assert len(said["metrics"]["tiled"]) >= 4


def test_a_run_is_found_by_client_address_and_product(said):
    assert said["uids"] == [True, True, True]


def test_the_card_of_a_run_in_tiled_is_escaped(said):
    assert "&lt;i&gt;root&lt;/i&gt;" in said["card"]
    assert "<i>" not in said["card"]


def test_napari_reads_single_slices_from_tiled(said):
    assert said["layer"] == ["image", [32, 40, 40], [5.0, 5.0, 5.0], ["um", "um", "um"]]
    assert said["slice"]


def test_slices_in_tiled_are_browsed(said):
    assert said["browser"] == [39, b"\x89PNG".hex()]


def test_addresses_of_nothing_are_refused(said):
    unknown, nothing, container = said["refused"]
    assert "cannot connect to the catalogue" in unknown
    assert "nothing" in nothing
    assert "is no run" in container
