"""Whatever is wrong with a scan or an option is said in one line, and nothing is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

ENGINE = ("--engine", "finufft")


def refused(outcome, *words) -> None:
    status, out, err = outcome
    assert status == 1, err
    # The bars may have been there, without anything to show.
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in err
    assert "written" not in out


def nan_in(frames):
    frames.update({key: frames[key].astype(np.float32) for key in frames if key != "theta"})
    frames["data"][17, 5, 9] = np.nan


def saturated(frames):
    frames["data"][17, :, 3:] = 65535


def lost(frames):
    frames["data"][17] = 0


def zero_flats(frames):
    frames["data_white"][:] = 0


def saturated_flats(frames):
    frames["data_white"][:] = 65535


def dark_flats(frames):
    frames["data_white"][:] = frames["data_dark"]


def nan_flats(frames):
    frames.update({key: frames[key].astype(np.float32) for key in frames if key != "theta"})
    frames["data_white"][1, 2, 3] = np.nan


def one_projection(frames):
    frames["data"], frames["theta"] = frames["data"][:1], frames["theta"][:1]


def no_projections(frames):
    frames["data"], frames["theta"] = frames["data"][:0], frames["theta"][:0]


def short_angles(frames):
    frames["theta"] = frames["theta"][:-3]


def nan_angle(frames):
    frames["theta"][4] = np.nan


def few_angles(frames):
    frames["data"], frames["theta"] = frames["data"][:40], frames["theta"][:40]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nan_in, ["projection 17", "NaN or infinite", "--leave-out 17"]),
        (saturated, ["projection 17", "is saturated in", "--leave-out 17"]),
        (lost, ["projection 17", "nothing but zeros", "--leave-out 17"]),
        (zero_flats, ["flats are zero", "shutter"]),
        (saturated_flats, ["all flats", "are saturated"]),
        (dark_flats, ["nowhere brighter than darks"]),
        (nan_flats, ["flats", "NaN"]),
        (one_projection, ["1 projection", "at least two"]),
        (no_projections, ["0 projections", "at least two"]),
        (short_angles, ["87 angles", "90 projections"]),
        (nan_angle, ["angle 4", "not a number"]),
        (few_angles, ["do not determine the rotation centre", "give it by hand"]),
        (lambda frames: frames.pop("data_white"), ["has no flats"]),
        (lambda frames: frames.pop("data"), ["neither a DXchange scan", "NXtomo"]),
        (lambda frames: frames.update(data=frames["data"][0]), ["not a stack of frames"]),
        (lambda frames: frames.update(data_dark=frames["data_dark"][:, :9]), ["differ"]),
    ],
)
def test_a_bad_scan_is_refused(apsber_command, scan_maker, tmp_path, change, words):
    scan = scan_maker.dxchange(change=change)
    refused(apsber_command("reconstruct", scan, *ENGINE), *words)
    assert [file.name for file in tmp_path.iterdir()] == [scan.name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--centre", "64.5"], ["centre 64.5 lies outside the frame of 64 columns"]),
        (["--centre", "-1"], ["centre -1 lies outside"]),
        (["--centre", "middle"], ["centre 'middle' is no number"]),
        (["--centre", "nan"], ["is no number"]),
        (["--slices", "30:50"], ["slices 30:50 are not within the 40 rows"]),
        (["--slices", "9"], ["'9' are no range"]),
        (["--roi", "0:70,0:9"], ["region 0:70,0:9 is not within slices of 64 x 64"]),
        (["--roi", "3:9"], ["write columns and rows"]),
        (["--bin", "50"], ["bin less"]),
        (["--tilt", "40"], ["too large"]),
        (["--filter", "hamming"], ["unknown filter 'hamming'", "ramp"]),
        (["--method", "art"], ["unknown method 'art'", "fbp, cgls"]),
        (["--iterations", "9"], ["--iterations is for iterative methods"]),
        (["--any-sign"], ["--non-negative is for iterative methods"]),
        (["--method", "tv", "--filter", "hann"], ["tv has no filter"]),
        (["--method", "sirt", "--regularisation", "1"], ["sirt has no weight"]),
        (["--method", "sirt", "--noise", "nan"], ["noise is nan; give a positive number"]),
        (["--engine", "fastest"], ["'fastest'", "finufft"]),
        (["--stitch", "20"], ["angles over 180 degrees cannot be stitched"]),
        (["--stitch", "auto"], ["cannot be stitched"]),
        (["--angles", "nowhere.txt"], ["neither a file nor degrees"]),
        (["--angles", "few.txt"], ["2 angles were given for the 90 projections"]),
        (["--angles", "text.txt"], ["cannot read angles"]),
        (["--leave-out", "90"], ["frames 90 to leave out are no projections"]),
        (["--leave-out", "0-88"], ["fewer than two projections"]),
        (["--pixel-size", "0"], ["positive length"]),
        (["--try-centres", "1:2"], ["A:B:STEP"]),
        (["--try-centres", "1:2:0"], ["A:B:STEP"]),
        (["--try-centres", "60:70:1"], ["centre 64 lies outside the frame"]),
        (["-o", "scan.dat"], ["cannot tell what to write", ".zarr"]),
        (["-o", "nowhere/v.h5"], ["there is no folder"]),
        (["-o", "there.h5"], ["is there already", "--overwrite"]),
        (["-o", "scan.h5", "--overwrite"], ["something else than a volume"]),
        (["-o", "there", "--overwrite"], ["something else than a volume"]),
        (["--cluster", "tcp://127.0.0.1:1"], ["no Dask cluster with workers"]),
        (["--executor", "nowhere:made"], ["no executor 'nowhere:made'"]),
        (["--executor", "builtins:dict"], ["which is no executor"]),
        (["--cluster", "a", "--executor", "b:c"], ["exclude each other"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_bad_option_is_refused(apsber_command, scan_maker, tmp_path, monkeypatch, options, words):
    monkeypatch.setattr("apsber_bluesky.pipeline._executors._CONNECT_TIMEOUT_S", 1)
    scan_maker.dxchange()
    (tmp_path / "few.txt").write_text("0\n1\n")
    (tmp_path / "text.txt").write_text("zero one two\n")
    (tmp_path / "there.h5").write_bytes(b"mine")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine.txt").write_text("mine")
    before = sorted(file.name for file in tmp_path.iterdir())
    own = () if "--engine" in options else ENGINE
    refused(apsber_command("reconstruct", "scan.h5", *own, *options), *words)
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert (tmp_path / "there.h5").read_bytes() == b"mine"


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def text(path):
    path.write_text("a scan\n")


def missing(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "damaged or truncated"),
        (text, "is not an HDF5 file"),
        (missing, "there is no file"),
    ],
)
@pytest.mark.parametrize("command", ["reconstruct", "estimate"])
def test_a_damaged_file_is_refused(apsber_command, scan_maker, tmp_path, command, damage, words):
    scan = scan_maker.dxchange()
    damage(scan)
    refused(apsber_command(command, scan, *ENGINE), words)


def test_pixels_that_cannot_be_read_are_named(apsber_command, scan_maker, tmp_path):
    scan = scan_maker.dxchange(compression="gzip")
    with h5py.File(scan) as file:
        place = file["exchange/data"].id.get_chunk_info(50)
    with scan.open("r+b") as stream:
        stream.seek(place.byte_offset)
        stream.write(b"\xff" * place.size)
    outcome = apsber_command("reconstruct", scan, *ENGINE, "--centre", 30)
    refused(outcome, "damaged or truncated", "projections 0 to 89")
    assert [file.name for file in tmp_path.iterdir()] == [scan.name]


def test_a_few_saturated_pixels_are_used_and_told(apsber_command, scan_maker):
    def change(frames):
        frames["data"][3:5, 10, 20] = 65535

    scan = scan_maker.dxchange(change=change)
    status, out, _ = apsber_command("reconstruct", scan, *ENGINE, "--centre", 30.4)
    assert status == 0
    assert "warning   2 pixels are saturated in projections 3-4" in out


def test_pixels_that_are_saturated_in_the_flats_are_bad(apsber_command, scan_maker):
    def change(frames):
        for key in ("data", "data_white"):
            frames[key][:, 10:12, 20] = 65535

    scan = scan_maker.dxchange(change=change)
    outcome = apsber_command("reconstruct", scan, *ENGINE, "--centre", 30.4, "--json")
    status, out, _ = outcome
    assert status == 0
    assert '"bad_pixels": 2, "saturated_pixels": 0' in out


def test_a_scan_without_darks_is_used_and_told(apsber_command, scan_maker):
    scan = scan_maker.dxchange(change=lambda frames: frames.pop("data_dark"))
    status, out, _ = apsber_command("reconstruct", scan, *ENGINE)
    assert status == 0
    assert "has no darks; they are taken as 0" in out


@pytest.mark.parametrize(("name", "jobs"), [("v.zarr", "2"), ("v.h5", "1")])
def test_ctrl_c_leaves_nothing_half_written(scan_maker, tmp_path, name, jobs):
    scan = scan_maker.dxchange(rows=256, columns=400, angles=np.arange(400) * 0.45)
    command = [sys.executable, "-m", "apsber_bluesky.cli", "reconstruct", str(scan), *ENGINE]
    command += ["-o", name, "--centre", "200", "--slab-slices", "16", "--jobs", jobs]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    partial = tmp_path / f"{name}.partial"
    try:
        while not partial.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "cancelled" in err
    assert "Traceback" not in err
    assert [file.name for file in tmp_path.iterdir()] == [scan.name]
