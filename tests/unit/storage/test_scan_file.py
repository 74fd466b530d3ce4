"""Scans of the suite's own runs, and what a file of a scan may look like."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import DataFileError, ImageKey, InputError, ProcessRecord, RunLedger
from apsber_bluesky.storage import open_scan, write_nexus


def all_projections(scan) -> np.ndarray:
    with scan.opened() as opened:
        count = scan.count(ImageKey.PROJECTION)
        return opened.read(ImageKey.PROJECTION, 0, count, range(scan.rows))


def kept_run(make_run, *, processes=None, **options):
    stored = make_run(**options)
    with RunLedger(stored.folder.ledger, create=True) as ledger:
        ledger.describe(stored.run.model_dump(mode="json"))
        for stream, books in stored.books.streams.items():
            ledger.set_books(stream, books)
        for record in processes or ():
            ledger.start_stage(record.name)
            ledger.finish_stage(record.name, "done", {"processes": [record.to_dict()]})
    write_nexus(
        stored.folder,
        stored.run,
        processes=processes or stored.processes,
        books=stored.books,
        centre_px=4.5,
        quality=stored.quality,
        exit_status="success",
    )
    return stored


@pytest.mark.parametrize("what", ["folder", "raw.h5", "run.nxs"])
def test_a_run_is_read_by_any_of_its_names(make_run, what):
    stored = kept_run(make_run)
    path = stored.folder.path if what == "folder" else stored.folder.path / what
    scan = open_scan(path)
    assert scan.layout == ("NXtomo" if what == "run.nxs" else "run")
    assert [scan.count(kind) for kind in (ImageKey.DARK, ImageKey.FLAT)] == [2, 3]
    assert np.allclose(scan.angles_deg, np.arange(6) * 30)
    assert scan.pixel_size_um == pytest.approx(5.0)
    assert np.array_equal(all_projections(scan), stored.frames["primary"])
    assert scan.notes == ()


@pytest.mark.parametrize("what", ["folder", "run.nxs"])
def test_missing_and_incomplete_frames_of_a_run_are_left_out(make_run, what):
    stored = kept_run(make_run, missing=(1,), incomplete=(4,))
    path = stored.folder.path if what == "folder" else stored.folder.path / what
    scan = open_scan(path)
    good = [0, 2, 3, 5]
    assert np.array_equal(all_projections(scan), stored.frames["primary"][good])
    assert np.allclose(scan.angles_deg, np.array(good) * 30)
    assert scan.notes[0].startswith("2 frames are")


def test_a_run_without_its_ledger_has_no_angles_unless_the_detector_told(make_run):
    stored = make_run()
    assert open_scan(stored.folder.raw).angles_deg is None
    with h5py.File(stored.folder.raw, "r+") as file:
        file["entry/primary/angle"][:] = np.arange(6) * 7.0
    assert np.array_equal(open_scan(stored.folder.raw).angles_deg, np.arange(6) * 7.0)


def test_a_record_whose_frames_were_left_behind_is_refused(make_run):
    stored = kept_run(make_run)
    stored.folder.raw.rename(stored.folder.path / "elsewhere.h5")
    with pytest.raises(DataFileError, match=r"shows the frames of raw.h5, which is not beside it"):
        open_scan(stored.folder.nexus)
    with pytest.raises(DataFileError, match=r"a folder without raw\.h5"):
        open_scan(stored.folder.path)


@pytest.mark.parametrize("what", ["folder", "run.nxs"])
def test_raw_frames_that_need_a_calibration_are_refused(make_run, what):
    stored = kept_run(make_run, processes=[ProcessRecord("jungfrau_energy", 1)])
    path = stored.folder.path if what == "folder" else stored.folder.path / what
    with pytest.raises(DataFileError, match="raw frames of a Jungfrau"):
        open_scan(path)


def test_a_run_that_ended_before_its_projections_is_refused(make_run):
    stored = make_run(counts={"darks": 2, "flats": 3})
    with pytest.raises(DataFileError, match="has no projections"):
        open_scan(stored.folder.path)


def test_any_rows_of_any_frames_are_read_and_by_another_process_too(make_run):
    stored = kept_run(make_run, missing=(2,))
    scan = pickle.loads(pickle.dumps(open_scan(stored.folder.path)))
    with scan.opened() as opened:
        part = opened.read(ImageKey.PROJECTION, 1, 4, range(3, 7))
        flats = opened.read(ImageKey.FLAT, 0, 3, range(8))
    assert np.array_equal(part, stored.frames["primary"][[1, 3, 4], 3:7])
    assert np.array_equal(flats, stored.frames["flats"])


def test_projections_that_are_left_out_take_their_angles_along(make_run):
    scan = open_scan(kept_run(make_run).folder.path).without([0, 4])
    assert np.allclose(scan.angles_deg, [30, 60, 90, 150])
    assert scan.numbers(ImageKey.PROJECTION).tolist() == [1, 2, 3, 5]
    with pytest.raises(InputError, match="frames 4, 9 to leave out are no projections"):
        scan.without([9, 4])


@pytest.mark.parametrize(
    ("unit", "value", "size_um"),
    [("m", 2e-6, 2.0), ("mm", 0.002, 2.0), ("nm", 650, 0.65), ("pixel", 2.0, None), ("m", 0, None)],
)
def test_the_pixel_size_is_read_in_any_unit(tmp_path, unit, value, size_um):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        detector = file.create_group("entry/instrument/detector")
        detector["data"] = np.ones((4, 3, 5), np.uint16)
        detector["image_key"] = [1, 0, 0, 0]
        detector["x_pixel_size"] = float(value)
        detector["x_pixel_size"].attrs["units"] = unit
        file["entry/sample/rotation_angle"] = [0.0, 0.0, 60.0, 120.0]
    scan = open_scan(tmp_path / "a.nxs")
    assert scan.pixel_size_um == (None if size_um is None else pytest.approx(size_um))
    assert scan.angles_deg.tolist() == [0.0, 60.0, 120.0]
