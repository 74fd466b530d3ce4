"""``apsber reconstruct`` and ``apsber estimate`` with what is done before the reconstruction."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

CENTRE, MU = 30.4, 0.02
WORDS = ("--engine", "gridding", "--centre", CENTRE, "--json")
PHASE = ("--phase", 100, "--energy-keV", 20, "--distance-mm", 40, "--pixel-size", 5)


def result_of(outcome) -> dict:
    status, out, err = outcome
    assert status == 0, err
    return json.loads(out)


def read(path):
    with h5py.File(path) as file:
        volume = file["entry/data/data"][:]
        names = sorted(
            (name for name in file["entry"] if name.startswith("process_")),
            key=lambda name: int(name.split("_")[1]),
        )
        records = [json.loads(file[f"entry/{n}/provenance/record"][()]) for n in names]
    return volume, records


def inside(volume: np.ndarray) -> float:
    """Mean attenuation of the first slice within the large cylinder."""
    size = volume.shape[1]
    y, x = np.mgrid[:size, :size] - size // 2
    return float(volume[0][(x - 8) ** 2 + (y + 6) ** 2 < 5**2].mean())


def spoilt(frames):
    """A column that answers too much, and pixels hit by stray photons."""
    frames["data"] = np.rint(frames["data"] * np.where(np.arange(64) == 40, 1.04, 1)).astype("u2")
    for number, row, column in ((3, 15, 20), (30, 16, 33), (31, 16, 33), (60, 39, 12)):
        frames["data"][number, row, column] = 60000


def test_all_steps_are_done_in_order_recorded_and_independent_of_slabs(
    apsber_command, scan_maker, tmp_path
):
    scan = scan_maker.dxchange(change=spoilt)
    words = ("reconstruct", scan, *WORDS, *PHASE[:-2], "--pixel-size", 5)
    words = (*words, "--stripes", "wavelet", "--zingers", 0.3, "--extend-edges")
    result_of(apsber_command("reconstruct", scan, *WORDS, "--pixel-size", 5, "-o", "plain.h5"))
    result_of(apsber_command(*words, "-o", "one.h5", "--jobs", 1))
    cut = result_of(apsber_command(*words, "-o", "cut.h5", "--jobs", 1, "--slab-slices", 16))
    assert cut["plan"]["slabs"] == 3
    # More rows are read than the slabs have.
    assert cut["read_bytes"] > 90 * 40 * 64 * 2
    (one, records), (other, again), (plain, _) = (
        read(tmp_path / f"{name}.h5") for name in ("one", "cut", "plain")
    )
    assert np.abs(other - one).max() < 3e-5 * np.abs(one).max()
    assert np.abs(plain - one).max() > 0.1 * np.abs(one).max()
    assert inside(one) * 5e-6 == pytest.approx(MU, rel=0.05)
    assert [record["name"] for record in records] == ["normalise", "remove stripes", "reconstruct"]
    found = records[0]["parameters"]
    assert (found["zinger_threshold"], found["zingers"], found["phase"]) == (0.3, 4, "Paganin")
    assert again[0]["parameters"] == found
    assert records[1]["parameters"] == {"method": "wavelet"}
    assert records[2]["parameters"]["edges_extended"] is True


@pytest.fixture
def fading_scan(scan_maker):
    """A scan during which the beam becomes weaker by a fifth, with flats before and after it."""
    frames = scan_maker.frames()
    beam = 1 - 0.2 * (np.arange(90) + 0.5) / 90
    dark = frames["data_dark"][:1].astype(float)
    light = (frames["data"] - dark) * beam[:, None, None] + dark
    after = (frames["data_white"] - dark) * 0.8 + dark
    path = scan_maker.folder / "fading.nxs"
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry/instrument/detector")
        stack = [frames["data_dark"], frames["data_white"], np.rint(light), np.rint(after)]
        detector["data"] = np.concatenate(stack).astype(np.uint16)
        detector["image_key"] = [2] * 3 + [1] * 3 + [0] * 90 + [1] * 3
        angles = [np.zeros(6), frames["theta"], np.zeros(3)]
        file["entry/sample/rotation_angle"] = np.concatenate(angles)
    return path


def test_flats_are_interpolated_over_the_scan(apsber_command, scan_maker, fading_scan, tmp_path):
    # Projections that are left out do not shift the time of the others.
    cases = {
        "steady": (scan_maker.dxchange(), "--leave-out", "0-14"),
        "average": (fading_scan, "--leave-out", "6-20"),
        "interpolate": (fading_scan, "--leave-out", "6-20", "--flats", "interpolate"),
    }
    found = {}
    for name, (scan, *options) in cases.items():
        words = ("reconstruct", scan, *WORDS, *options, "-o", f"{name}.h5")
        result_of(apsber_command(*words))
        found[name] = read(tmp_path / f"{name}.h5")
    steady = found["steady"][0]
    off = {name: np.abs(volume - steady).max() for name, (volume, _) in found.items()}
    assert off["interpolate"] < 0.02 * MU
    assert off["average"] > 0.1 * MU
    normalise = found["interpolate"][1][0]
    assert normalise["parameters"]["flats"] == "interpolate"
    assert set(normalise["inputs"]) == {"dark", "flat before", "flat after"}


def test_an_estimate_counts_what_the_preparation_takes(apsber_command, scan_maker):
    scan = scan_maker.dxchange()
    words = ("estimate", scan, *WORDS, "--jobs", 1)
    plain = result_of(apsber_command(*words))
    prepared = result_of(
        apsber_command(*words, *PHASE, "--stripes", "wavelet", "--zingers", 0.3, "--extend-edges")
    )
    held = 90 * 40 * 64 * 4
    assert prepared["plan"]["memory_bytes"] > plain["plan"]["memory_bytes"] + held
    assert prepared["read_seconds"] > plain["read_seconds"]


def test_an_estimate_takes_the_options_of_every_method(apsber_command, scan_maker):
    words = ("estimate", scan_maker.dxchange(), "--centre", CENTRE, "--json")
    options = ("--method", "tv", "--iterations", 5, "--regularisation", 1e-5, "--any-sign")
    assert result_of(apsber_command(*words, *options))["engine"] == "tv"
    options = ("--method", "cgls", "--noise", 0.01, "--leave-out", "1-9", "--pixel-size", 2)
    value = result_of(apsber_command(*words, *options))
    assert (value["projections"], value["voxel_size_um"]) == (81, 2.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stripes", "fourier"], "unknown --stripes 'fourier'; choose one of none, sorting"),
        (["--flats", "last"], "unknown --flats 'last'; choose one of average, interpolate"),
        (["--flats", "interpolate"], "does not say which flats were taken before"),
        (["--zingers", "0"], "--zingers is 0.0; give a positive number"),
        (["--zingers", "nan"], "--zingers is nan"),
        (["--phase", "-3"], "--phase is -3.0; give a positive number"),
        (["--phase", "100"], "needs the photon energy (--energy-keV) and the distance"),
        (["--phase", "100", "--energy-keV", "20", "--distance-mm", "9"], "(--pixel-size)"),
        (["--phase", "100", "--energy-keV", "inf"], "--energy-keV is inf"),
        (["--energy-keV", "20"], "--energy-keV is for phase retrieval; add --phase"),
        (["--distance-mm", "20"], "--distance-mm is for phase retrieval; add --phase"),
        (["--extend-edges", "--method", "sirt"], "an iterative method knows nothing"),
    ],
)
@pytest.mark.parametrize("command", ["reconstruct", "estimate"])
def test_options_that_make_no_sense_are_refused(
    apsber_command, scan_maker, tmp_path, command, options, words
):
    scan = scan_maker.dxchange()
    status, _, err = apsber_command(command, scan, "--centre", CENTRE, *options)
    assert status == 1
    assert err.startswith("error: ")
    assert words in err
    assert [file.name for file in tmp_path.iterdir()] == [scan.name]
