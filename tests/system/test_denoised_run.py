"""A simulated soil core, denoised and segmented as it is reconstructed, in a real session."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import RunFolder
from apsber_bluesky.storage import open_volume, read_volume_info

pytest.importorskip("torch")
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SESSION = """
import json

import numpy as np
from tiled.queries import Key

from apsber_bluesky.session import start
from apsber_bluesky.storage import volume_of

model = {"device": "cpu", "deterministic": True}
settings = {
    "simulation": {"rows": 24, "columns": 64, "phantom": "soil"},
    "processing": {
        "slab_slices": 8,
        "models": MODELS,
        "denoise": {"model": "random-denoiser", **model},
        "segment": {"model": "random-segmenter", "probabilities": True, **model},
    },
    "analysis": {"inference": [{"model": "random-segmenter", "on": "slices", **model},
                               {"model": "nobody", "on": "volume"}]},
}
messages = []
with start("simulated", settings) as s:
    d = s.devices
    plan = s.plans.fly_tomography(
        d.camera, d.rotation, d.shutter, d.sample_x,
        num_projections=48, exposure_s=0.02, num_darks=2, num_flats=3, sample="core",
    )
    (uid,) = s.RE(plan)
    summary = s.wait(uid, 120)
    run = s.catalog[uid]
    found = {}
    for name in ("volume", "denoised", "labels", "uncertainty", "probabilities"):
        served = volume_of(run, name)
        found[name] = {"shape": list(served.shape), "dtype": str(served.dtype),
                       "middle": np.asarray(served[..., 12, 30, 30:34], float).tolist(),
                       "unit": served.metadata["unit"],
                       "classes": list(served.metadata.get("classes", []))}
    query = Key("models.segment.name") == "random-segmenter"
    print("RESULT", json.dumps({
        "uid": uid, "summary": summary, "served": found,
        "by_model": list(s.processed.search(query)),
    }))
"""


@pytest.fixture(scope="module")
def denoised_run(run_python, tmp_path_factory, random_models):
    root = tmp_path_factory.mktemp("denoised")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EPICS_", "APSBER_"))}
    environment = {**kept, "APSBER_DATA_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    done = run_python(f"MODELS = {str(random_models)!r}\n{SESSION}", env=environment, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.rpartition("RESULT ")[2])
    return RunFolder(next(root.glob(f"*/{told['uid']}"))), told, done.stderr, environment


def test_the_run_is_complete_with_all_its_products(denoised_run):
    folder, told, _, _ = denoised_run
    assert told["summary"]["state"] == "complete"
    shape = [24, 64, 64]
    served = told["served"]
    assert [served[name]["shape"] for name in ("volume", "denoised", "labels")] == [shape] * 3
    assert served["probabilities"]["shape"] == [3, *shape]
    assert served["denoised"]["unit"] == served["volume"]["unit"] == "1/m"
    assert served["labels"]["classes"] == ["air", "soil", "stone"]
    assert served["labels"]["dtype"] == "uint8"
    for name, own in served.items():
        stored = open_volume(folder.product(name))[..., 12, 30, 30:34]
        assert np.allclose(stored, own["middle"], rtol=1e-6)
    assert told["by_model"] == [told["uid"]]
    assert len(np.unique(open_volume(folder.labels)[:])) > 1


def test_the_chain_is_in_the_record_with_what_could_not_be_done(denoised_run):
    folder, _, _, _ = denoised_run
    with h5py.File(folder.nexus) as file:
        entry = file["entry"]
        steps = sorted(
            (int(group["sequence_index"][()]), group["provenance/step"].asstr()[()])
            for name, group in entry.items()
            if name.startswith("process_")
        )
        names = [name for _, name in steps]
        assert names[names.index("reconstruct") :][:3] == ["reconstruct", "denoise", "segment"]
        assert entry["results"].attrs["default"] == "labels"
        assert entry["results/labels/data"].shape == (64, 64)
        notes = [entry[name]["description"].asstr()[()] for name in entry if "note_" in name]
    assert any("there is no model 'nobody'" in note for note in notes)
    assert (folder.path / "random-segmenter_slices.h5").is_file()


def test_status_tells_of_the_stages(denoised_run, run_python):
    _, told, _, environment = denoised_run
    command = f"""
import sys
sys.argv = ["apsber", "status", {told["uid"]!r}, "--json"]
from apsber_bluesky.cli import main
main()
"""
    done = run_python(command, env=environment)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    stages = {stage["name"]: stage for stage in value["stages"]}
    assert (stages["denoise"]["state"], stages["segment"]["state"]) == ("done", "done")
    assert stages["denoise"]["seconds"] > 0
    assert stages["infer nobody on volume"]["state"] == "failed"
    assert {"denoised", "labels", "uncertainty"} <= set(value["products"])


def test_the_same_comes_of_the_run_when_it_is_reconstructed_from_disk(
    denoised_run, run_python, random_models, tmp_path
):
    folder, told, _, environment = denoised_run
    words = [
        "apsber", "reconstruct", str(folder.path), "-o", str(tmp_path / "v.zarr"),
        "--centre", str(told["summary"]["centre_px"]), "--jobs", "1", "--device", "cpu",
        "--denoise", "random-denoiser", "--segment", "random-segmenter",
        "--models", str(random_models),
    ]  # fmt: skip
    code = f"import sys\nsys.argv = {words!r}\nfrom apsber_bluesky.cli import main\nmain()"
    done = run_python(code, env=environment)
    assert done.returncode == 0, done.stderr
    live, offline = open_volume(folder.denoised)[:], open_volume(tmp_path / "v_denoised.zarr")[:]
    volume = open_volume(folder.volume)[:]
    apart = np.abs(open_volume(tmp_path / "v.zarr")[:] - volume).max()
    assert apart < 1e-3 * np.abs(volume).max()
    assert np.abs(live - offline).max() < 1e-2 * np.abs(live).max()
    labels = open_volume(tmp_path / "v_labels.zarr")[:]
    assert np.mean(labels == open_volume(folder.labels)[:]) > 0.99
    assert read_volume_info(tmp_path / "v_labels.zarr").classes == ("air", "soil", "stone")
