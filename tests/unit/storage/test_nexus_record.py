"""The NeXus record is valid, readable by others' programs and holds no second copy of frames."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import DataFileError, InputError, ProcessRecord, StorageError
from apsber_bluesky.storage import archive_run, write_nexus

SCRIPTS = Path(sys.executable).parent


def _write(stored, **changes):
    options = {
        "processes": stored.processes,
        "books": stored.books,
        "centre_px": 4.5,
        "quality": stored.quality,
        "exit_status": "success",
    }
    return write_nexus(stored.folder, stored.run, **(options | changes))


def _start(stored):
    return {
        "uid": stored.run.uid,
        "time": 1.7e9,
        "facility": "APS",
        "motors": ["rotation"],
        "hints": {"dimensions": [[["time"], "primary"]]},
        "a/b": 1,
        "a_b": 2**62,
        "": "no\0text",
        "mixed": [1, "a", None],
        "flags": [True, False],
        "nothing": [],
        "tomography": stored.run.scan.model_dump(mode="json"),
    }


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPTS / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def full_record(make_run):
    stored = make_run(missing=(4,))
    current = np.linspace(100.0, 99.0, 11)
    return _write(stored, start=_start(stored), ring_current_mA=current)


def test_pynxtools_finds_the_record_valid(full_record):
    done = _run("pynx", "validate", str(full_record))
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "is valid according to the `NXtomo` application definition" in said
    assert "WARNING" not in said
    assert "ERROR" not in said


@pytest.mark.parametrize(
    ("command", "options", "warnings"),
    [
        ("nxvalidate", ["-a"], []),
        # These three are the DXchange view and what NXtomo adds to or leaves out of NXdetector.
        (
            "nxcheck",
            [],
            [
                "Units of NX_ANY not specified",
                "This field is not defined in NXdetector",
                "This field is not defined in NXroot",
            ],
        ),
    ],
)
def test_nexusformat_finds_no_error(full_record, command, options, warnings):
    done = _run(command, "-w", str(full_record), *options)
    assert done.returncode == 0, done.stderr
    assert "Total number of errors: 0" in done.stdout
    assert f"Total number of warnings: {len(warnings)}" in done.stdout
    assert all(warning in done.stdout for warning in warnings)


def test_nxtomo_loads_the_record(make_run):
    stored = make_run(missing=(4,))
    record = _write(stored, start=_start(stored), ring_current_mA=np.full(11, 100.0))
    script = (
        "import json, sys; from nxtomo import NXtomo; t = NXtomo();"
        "t.load(sys.argv[1], '/entry', detector_data_as='as_numpy_array');"
        "d = t.instrument.detector;"
        "print(json.dumps(dict(shape=d.data.shape, sum=int(d.data.sum()),"
        " key=[int(k.value) for k in d.image_key],"
        " pixel=d.x_pixel_size.to('um').magnitude, distance=d.distance.to('mm').magnitude,"
        " current=t.control.data.to('mA').magnitude.tolist(),"
        " centre=d.x_rotation_axis_pixel_position, name=t.sample.name,"
        " energy=t.instrument.beam.incident_energy.to('keV').magnitude,"
        " angles=t.sample.rotation_angle.to('degree').magnitude.tolist())))"
    )
    done = _run("python", "-c", script, str(record))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["shape"] == [11, 8, 10]
    assert found["sum"] == sum(int(frames.sum()) for frames in stored.frames.values())
    assert found["key"] == [2, 2, 1, 1, 1, 0, 0, 0, 0, 3, 0]
    assert (found["pixel"], found["distance"]) == pytest.approx((5.0, 30.0))
    assert (found["centre"], found["name"], found["energy"]) == (4.5, "tooth", 25.0)
    assert found["current"] == pytest.approx([100.0] * 11)
    assert found["angles"] == [0.0] * 5 + [0.0, 30.0, 60.0, 90.0, 120.0, 150.0]


def test_silx_shows_the_stack_by_default(full_record):
    script = (
        "import sys, silx.io; from silx.io.nxdata import get_default\n"
        "with silx.io.open(sys.argv[1]) as file:\n"
        "    plot = get_default(file)\n"
        "    print(plot.is_valid, plot.signal.shape, plot.axes_dataset_names)"
    )
    done = _run("python", "-c", script, str(full_record))
    assert done.stdout.strip() == "True (11, 8, 10) ['rotation_angle', None, None]", done.stderr


def test_stack_and_dxchange_view_show_the_raw_bytes_without_a_copy(make_run):
    stored = make_run()
    record = _write(stored)
    with h5py.File(record) as file:
        stack = file["/entry/instrument/detector/data"]
        assert stack.is_virtual
        assert {source.file_name for source in stack.virtual_sources()} == {"raw.h5"}
        whole = [stored.frames[stream] for stream in ("darks", "flats", "primary")]
        assert np.array_equal(stack[...], np.concatenate(whole))
        for name, stream in (("data", "primary"), ("data_white", "flats"), ("data_dark", "darks")):
            assert file[f"exchange/{name}"].is_virtual
            assert file[f"exchange/{name}"].dtype == np.dtype("<u2")
            assert np.array_equal(file[f"exchange/{name}"][...], stored.frames[stream])
        assert file["exchange/theta"][...].tolist() == [0.0, 30.0, 60.0, 90.0, 120.0, 150.0]
        assert file["exchange/theta"].attrs["units"] == "deg"
        assert file["implements"].asstr()[()] == "exchange"
        assert file["/entry/data/data"] == stack


def test_the_archived_record_shows_the_archived_frames(make_run, tmp_path, monkeypatch):
    stored = make_run()
    _write(stored)
    receipt = archive_run(stored.folder, tmp_path / "archive")
    shutil.rmtree(stored.folder.path)
    monkeypatch.chdir(tmp_path)
    with h5py.File(Path(receipt.target) / "run.nxs") as file:
        assert np.array_equal(file["exchange/data"][...], stored.frames["primary"])


@pytest.mark.parametrize(
    "counts", [{"primary": 4}, {"darks": 2}, {"flats": 1, "primary": 3}, {"darks": 0, "primary": 1}]
)
def test_streams_that_were_not_taken_are_left_out(make_run, counts):
    stored = make_run(counts)
    record = _write(stored, exit_status="abort")
    taken = {stream: count for stream, count in counts.items() if count}
    with h5py.File(record) as file:
        assert len(file["/entry/instrument/detector/data"]) == sum(taken.values())
        assert len(file["/entry/sample/rotation_angle"]) == sum(taken.values())
        assert ("data" in file["exchange"]) == ("primary" in taken)
        assert ("data_white" in file["exchange"]) == ("flats" in taken)
        assert ("data_dark" in file["exchange"]) == ("darks" in taken)
    done = _run("pynx", "validate", str(record))
    assert done.returncode == 0, done.stderr


def test_angles_that_the_detector_reported_are_kept(make_run):
    stored = make_run()
    with h5py.File(stored.folder.raw, "r+") as file:
        file["entry/primary/angle"][:3] = [0.1, 30.2, 60.3]
        file["entry/flats/angle"][:] = 12.0
    with h5py.File(_write(stored)) as file:
        expected = [0.1, 30.2, 60.3, 90.0, 120.0, 150.0]
        assert file["exchange/theta"][...].tolist() == expected
        assert (
            file["entry/sample/rotation_angle"][...].tolist() == [0.0] * 2 + [12.0] * 3 + expected
        )


def test_each_step_is_one_process_and_reads_back(make_run):
    stored = make_run()
    with h5py.File(_write(stored)) as file:
        entry = file["entry"]
        steps = [g for g in entry.values() if g.attrs.get("NX_class") == "NXprocess"]
        steps.sort(key=lambda group: group["sequence_index"][()])
        assert [g.name for g in steps] == [
            "/entry/process_1_normalise",
            "/entry/process_2_reconstruct_slices",
        ]
        texts = [g["provenance/record"].asstr()[()] for g in steps]
        assert [ProcessRecord.from_dict(json.loads(t)) for t in texts] == stored.processes
        first = steps[0]
        assert first["program"].asstr()[()] == "apsber_bluesky"
        assert first["date"].asstr()[()] == "2023-11-14T22:13:32.500+00:00"
        assert first["parameters/clip"][()] == 1
        assert first["parameters/window"].asstr()[()] == "hann"
        assert first["parameters/range_deg"][...].tolist() == [0.0, 180.0]
        assert first["provenance/duration_s"][()] == 2.5
        assert first["provenance/input_1_checksum"].asstr()[()] == "sha256:00ff"


@pytest.mark.parametrize(
    ("missing", "status", "complete"), [((), "success", 1), ((2,), "success", 0), ((), "abort", 0)]
)
def test_lost_frames_and_aborted_runs_are_visible(make_run, missing, status, complete):
    stored = make_run(missing=missing)
    with h5py.File(_write(stored, exit_status=status)) as file:
        books = file["entry/acquisition"]
        assert books["exit_status"].asstr()[()] == status
        assert books["complete"][()] == complete
        assert books["expected"][()] == 11
        assert books["written"][()] == 11 - len(missing)
        assert books["primary_missing"][...].tolist() == list(missing)
        assert ("fault" in books) is bool(missing)


def test_frames_that_cannot_be_used_are_invalid_and_counted_in_the_record(make_run):
    stored = make_run(missing=(1, 4), incomplete=(2,))
    stored.books.streams["flats"].recovered = 3
    with h5py.File(_write(stored)) as file:
        keys = file["entry/instrument/detector/image_key"][...].tolist()
        assert keys == [2, 2, 1, 1, 1, 0, 3, 3, 0, 3, 0]
        books = file["entry/acquisition"]
        assert books["fault"].asstr()[()] == (
            "2 of 11 frames are missing, 1 of 11 frames are incomplete"
        )
        assert books["complete"][()] == 0
        totals = {name: int(books[name][()]) for name in stored.books.totals()}
        assert totals == stored.books.totals()
        assert (totals["decoded"], totals["recovered"], totals["used"]) == (9, 3, 8)
        assert books["primary_incomplete"][...].tolist() == [2]
        assert books["flats_recovered"][()] == 3


def test_frames_that_the_pixels_have_no_room_for_are_invalid_zeros(make_run):
    stored = make_run(missing=(4, 5))
    # The receiver makes room for pixels as frames come, for the tables at once.
    with h5py.File(stored.folder.raw, "r+") as file:
        file["entry/primary/data"].resize(4, axis=0)
    with h5py.File(_write(stored)) as file:
        detector = file["entry/instrument/detector"]
        assert detector["data"].shape[0] == len(file["entry/sample/rotation_angle"]) == 11
        assert detector["image_key"][...].tolist() == [2, 2, 1, 1, 1, 0, 0, 0, 0, 3, 3]
        assert np.array_equal(detector["data"][5:9], stored.frames["primary"][:4])
        assert not detector["data"][9:].any()
        assert file["exchange/data"].shape[0] == len(file["exchange/theta"]) == 6
    assert _run("pynx", "validate", str(stored.folder.nexus)).returncode == 0


def test_quality_numbers_carry_unit_verdict_and_limits(make_run):
    with h5py.File(_write(make_run())) as file:
        quality = file["entry/quality"]
        assert quality["verdict"].asstr()[()] == "fail"
        number = quality["signal_to_noise"]
        assert number[()] == 12.0
        assert number.attrs["verdict"] == "pass"
        assert (number.attrs["warn_limit"], number.attrs["fail_limit"]) == (5.0, 2.0)
        assert np.isnan(quality["resolution"][()])
        assert quality["resolution"].attrs["note"] == "half scans too short"


def test_start_document_is_kept_where_bluesky_users_look(make_run):
    stored = make_run()
    with h5py.File(_write(stored, start=_start(stored))) as file:
        metadata = file["entry/instrument/bluesky/metadata"]
        assert metadata["uid"].asstr()[()] == stored.run.uid
        assert metadata["motors"].asstr()[...].tolist() == ["rotation"]
        assert json.loads(metadata["hints"].asstr()[()]) == _start(stored)["hints"]
        assert (metadata["a_b"][()], metadata["a_b_2"][()]) == (1, 2**62)
        assert json.loads(metadata["_"].asstr()[()]) == "no\0text"
        assert json.loads(metadata["mixed"].asstr()[()]) == [1, "a", None]
        assert metadata["flags"][...].tolist() == [1, 0]
        assert json.loads(metadata["nothing"].asstr()[()]) == []
        assert file["entry/instrument/source/name"].asstr()[()] == "APS"


def test_unknown_geometry_is_left_out(make_run):
    stored = make_run()
    unknown = dict.fromkeys(("pixel_size_um", "energy_keV", "sample_detector_distance_mm"))
    scan = stored.run.scan.model_copy(update=unknown)
    stored.run = stored.run.model_copy(update={"tomography": scan, "sample": ""})
    record = _write(stored, centre_px=None, quality=[], processes=[])
    with h5py.File(record) as file:
        detector = set(file["entry/instrument/detector"])
        assert detector == {"data", "image_key", "sequence_number", "count_time"}
        assert "beam" not in file["entry/instrument"]
    assert _run("pynx", "validate", str(record)).returncode == 0


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "no frames", "no table"])
def test_bad_raw_files_are_named_and_leave_no_record(make_run, damage):
    stored = make_run()
    raw = stored.folder.raw
    if damage == "missing":
        raw.unlink()
    elif damage == "truncated":
        raw.write_bytes(raw.read_bytes()[:-500])
    elif damage == "text":
        raw.write_text("not HDF5")
    else:
        with h5py.File(raw, "w" if damage == "no frames" else "r+") as file:
            if damage == "no table":
                del file["entry/flats/timestamp"]
    with pytest.raises(DataFileError, match=r"raw\.h5"):
        _write(stored)
    assert not list(stored.folder.path.glob("run.nxs*"))


def test_ring_current_of_another_length_is_refused(make_run):
    with pytest.raises(InputError, match="one reading per frame: 11"):
        _write(make_run(), ring_current_mA=np.ones(6))


def test_a_folder_that_cannot_be_written_is_explained(make_run, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    stored = make_run()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="cannot write the NeXus record"):
        _write(stored)
    assert not list(stored.folder.path.glob("run.nxs*"))
