"""A run through the pipeline: equal frames give equal bits, and a bad run harms no other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from apsber_bluesky.core import RunLedger, RunState

STREAMS = ("darks", "flats", "primary")


def process(pipeline, run, ranges, exit_status="success", reason=""):
    pipeline.begin_run(run.description)
    run.enter_books()
    for frames in ranges:
        pipeline.frames(frames)
    pipeline.end_run(run.uid, exit_status, reason)


def in_order(run, size=None, streams=STREAMS):
    return [frames for stream in streams for frames in run.ranges(stream, size)]


def state_of(run):
    with RunLedger(run.folder.ledger) as ledger:
        return ledger.state, ledger.reason


def test_a_whole_run_becomes_a_volume_with_books_quality_and_provenance(
    make_run, make_pipeline, log, all_frames
):
    run = make_run()
    process(make_pipeline(judged=True), run, in_order(run, 7))
    summary = log.summary(run.uid)
    assert (summary["state"], summary["reason"]) == ("complete", "")
    assert summary["volume_shape"] == [10, 40, 40]
    assert summary["frames"] == {"expected": 56, "received": 56, "written": 56, "used": 56}
    assert summary["centre_px"] == pytest.approx(19.5 + 1.5, abs=0.5)
    assert json.loads(run.folder.quality.read_text())["verdict"] == summary["verdict"]
    assert (run.folder.figures / "ortho_slices.png").stat().st_size > 1000
    volume = zarr.open_array(run.folder.volume / "0", mode="r")
    assert volume.shape == (10, 40, 40)
    assert np.isfinite(volume[:]).all()
    with RunLedger(run.folder.ledger) as ledger:
        names = [stage.name for stage in ledger.stages]
        assert names == ["accumulate", "centre", "reconstruct", "quality", "figures"]
        assert {stage.state for stage in ledger.stages} == {"done"}
        assert {name: b.used for name, b in ledger.books.streams.items()} == {
            "darks": 4,
            "flats": 4,
            "primary": 48,
        }
        chain = [p["name"] for stage in ledger.stages for p in stage.record["processes"]]
    assert set(chain) <= {"normalise", "centre", "reconstruct", "quality"}
    assert set(summary["seconds"]) == set(names)


def test_the_volume_is_the_phantom(make_run, make_pipeline, log):
    from apsber_bluesky.simulation import make_phantom

    run = make_run()
    process(make_pipeline(), run, in_order(run))
    per_metre = zarr.open_array(run.folder.volume / "0", mode="r")[:]
    truth = make_phantom("shepp_logan").volume(10, 40) / 5e-6
    y, x = np.mgrid[:40, :40] - 20
    inside = np.hypot(x, y) < 17
    middle = slice(3, 7)
    correlation = np.corrcoef(
        per_metre[middle][:, inside].ravel(), truth[middle][:, inside].ravel()
    )
    assert correlation[0, 1] > 0.85


ORDERS = {
    "one by one": lambda run: in_order(run, 1),
    "all at once": lambda run: in_order(run),
    "in sevens": lambda run: in_order(run, 7),
    "flats at the end": lambda run: in_order(run, 5, ("darks", "primary", "flats")),
    "references at the end": lambda run: in_order(run, 3, ("primary", "flats", "darks")),
    "flats before and after": lambda run: [
        *run.ranges("darks"),
        run.range("flats", 0, 2),
        *run.ranges("primary", 11),
        run.range("flats", 2, 4),
    ],
}


@pytest.fixture(scope="module")
def checksums():
    """Volume checksums by order, shared by the tests of this module."""
    return {}


@pytest.mark.parametrize("order", ORDERS)
def test_equal_frames_give_equal_bits_in_whatever_portions_and_order_they_come(
    make_run, make_pipeline, log, checksums, order
):
    run = make_run()
    process(make_pipeline(), run, ORDERS[order](run))
    summary = log.summary(run.uid)
    assert summary["state"] == "complete"
    checksums[order] = summary["volume_checksum"]
    assert checksums[order].startswith("xxh3_128:")
    assert len(set(checksums.values())) == 1, checksums


def test_other_frames_give_other_bits(make_run, make_pipeline, log):
    one, other = make_run("one"), make_run("other", missing={"primary": [5]})
    pipeline = make_pipeline()
    for run in (one, other):
        process(pipeline, run, in_order(run))
    checksums = [log.summary(run.uid)["volume_checksum"] for run in (one, other)]
    assert checksums[0] != checksums[1]


def test_lost_frames_make_the_run_incomplete_and_are_left_out(make_run, make_pipeline, log):
    missing = {"primary": [0, 7, 8, 30, 47], "flats": [1], "darks": [3]}
    run = make_run(missing=missing)
    process(make_pipeline(judged=True), run, in_order(run, 6))
    summary = log.summary(run.uid)
    assert summary["state"] == "incomplete"
    assert summary["reason"] == "7 of 56 frames are missing"
    assert summary["frames"] == {"expected": 56, "received": 49, "written": 49, "used": 49}
    assert summary["quality"]["missing_frames"]["value"] == pytest.approx(7 / 56)
    volume = zarr.open_array(run.folder.volume / "0", mode="r")[:]
    assert np.isfinite(volume).all()
    with RunLedger(run.folder.ledger) as ledger:
        used = {name: books.used for name, books in ledger.books.streams.items()}
    assert used == {"primary": 43, "flats": 3, "darks": 3}


def test_lost_frames_leave_the_volume_close_to_the_whole_one(make_run, make_pipeline):
    whole, holed = make_run("whole"), make_run("holed", missing={"primary": [10, 25]})
    pipeline = make_pipeline()
    for run in (whole, holed):
        process(pipeline, run, in_order(run))
    one, other = (zarr.open_array(run.folder.volume / "0", mode="r")[4:6] for run in (whole, holed))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("leave_out", "reason"),
    [("flats", "the run has no flats"), ("primary", "the run has no projections")],
)
def test_a_run_that_cannot_be_reconstructed_says_why_and_the_next_one_works(
    make_run, make_pipeline, log, leave_out, reason
):
    bad, good = make_run("bad", leave_out=leave_out), make_run("good")
    pipeline = make_pipeline()
    process(pipeline, bad, in_order(bad, 10))
    process(pipeline, good, in_order(good, 10))
    assert log.summary("bad")["state"] == "failed"
    assert reason in log.summary("bad")["reason"]
    assert log.summary("bad")["verdict"] is None
    assert not bad.folder.volume.exists()
    assert log.summary("good")["state"] == "complete"


def test_a_run_without_darks_is_reconstructed(make_run, make_pipeline, log):
    run = make_run(leave_out="darks")
    process(make_pipeline(), run, in_order(run))
    assert log.summary(run.uid)["state"] == "complete"


def test_a_run_that_no_receiver_saw_has_the_books_of_what_was_announced(
    make_run, make_pipeline, log
):
    run = make_run()
    pipeline = make_pipeline()
    pipeline.begin_run(run.description)
    for frames in in_order(run)[:-1] + run.ranges("primary", 46)[:1]:
        pipeline.frames(frames)
    pipeline.end_run(run.uid, "success", "")
    summary = log.summary(run.uid)
    assert summary["state"] == "incomplete"
    assert summary["frames"] == {"expected": 56, "received": 54, "written": 54, "used": 54}
    with RunLedger(run.folder.ledger) as ledger:
        assert ledger.books.streams["primary"].missing == [46, 47]


def test_flats_that_were_all_lost_fail_the_run(make_run, make_pipeline, log):
    run = make_run(missing={"flats": [0, 1, 2, 3]})
    process(make_pipeline(), run, in_order(run))
    assert log.summary(run.uid)["state"] == "failed"
    assert "flats" in log.summary(run.uid)["reason"]


@pytest.mark.parametrize(
    ("exit_status", "reason", "state", "told"),
    [
        ("abort", "stopped by hand", "aborted", "stopped by hand"),
        ("fail", "", "failed", "the plan ended with 'fail'"),
    ],
)
def test_a_run_that_the_plan_gave_up_keeps_its_frames_and_makes_no_volume(
    make_run, make_pipeline, log, exit_status, reason, state, told
):
    run = make_run()
    process(make_pipeline(), run, in_order(run, 20)[:2], exit_status, reason)
    assert (log.summary(run.uid)["state"], log.summary(run.uid)["reason"]) == (state, told)
    assert log.summary(run.uid)["frames"]["written"] == 56
    assert run.folder.raw.exists()
    assert not run.folder.volume.exists()


@pytest.mark.parametrize("stage", ["accumulate", "centre", "reconstruct"])
def test_a_cancelled_run_stops_and_leaves_nothing_half_written(make_run, make_pipeline, log, stage):
    run, after = make_run(), make_run("after")
    pipeline = make_pipeline()
    log.on_stage[stage] = pipeline.cancel
    process(pipeline, run, in_order(run, 16))
    summary = log.summary(run.uid)
    assert summary["state"] == "aborted"
    assert summary["reason"].startswith("cancelled during")
    names = {path.name for path in run.folder.path.iterdir()}
    assert names == {"raw.h5", "ledger.sqlite"}
    log.on_stage.clear()
    process(pipeline, after, in_order(after, 16))
    assert log.summary("after")["state"] == "complete"


def test_a_truncated_file_fails_the_run_while_it_goes_on(make_run, make_pipeline, log):
    run = make_run()
    content = run.folder.raw.read_bytes()
    run.folder.raw.write_bytes(content[: len(content) // 2])
    process(make_pipeline(), run, in_order(run, 8))
    assert log.summary(run.uid)["state"] == "failed"
    assert "raw.h5" in log.summary(run.uid)["reason"]


def test_an_engine_that_does_not_exist_fails_the_run_by_name(make_run, make_pipeline, log):
    run = make_run()
    process(make_pipeline(engine="abacus"), run, in_order(run))
    assert log.summary(run.uid)["state"] == "failed"
    assert "abacus" in log.summary(run.uid)["reason"]


def test_a_run_that_never_ended_is_marked_aborted_when_the_next_begins(
    make_run, make_pipeline, log
):
    lost, good = make_run("lost"), make_run("good")
    pipeline = make_pipeline()
    pipeline.begin_run(lost.description)
    for frames in in_order(lost):
        pipeline.frames(frames)
    process(pipeline, good, in_order(good))
    state, reason = state_of(lost)
    assert state is RunState.ABORTED
    assert "another run began" in reason
    assert log.summary("good")["state"] == "complete"


def test_a_run_that_is_open_when_the_session_ends_is_marked_aborted(make_run, make_pipeline):
    run = make_run()
    pipeline = make_pipeline()
    pipeline.begin_run(run.description)
    pipeline.close()
    assert state_of(run) == (RunState.ABORTED, "the session ended during the scan")
    pipeline.close()


def test_frames_and_ends_of_unknown_runs_are_left_alone(make_run, make_pipeline, log):
    run = make_run()
    pipeline = make_pipeline()
    pipeline.frames(run.range("flats", 0, 1))
    pipeline.end_run("nobody", "success", "")
    assert log.messages == []
    assert not run.folder.ledger.exists()


def test_a_run_that_cannot_have_a_folder_is_told_at_its_end_and_the_next_one_works(
    make_run, make_pipeline, log, tmp_path
):
    good = make_run("good")
    refused = good.description.model_copy(update={"uid": "refused", "proposal": "../../etc"})
    pipeline = make_pipeline()
    pipeline.begin_run(refused)
    pipeline.frames(good.range("flats", 0, 1))
    pipeline.end_run("refused", "success", "")
    process(pipeline, good, in_order(good))
    told = log.summary("refused")
    assert told["state"] == "failed"
    assert "'../../etc' cannot name a folder" in told["reason"]
    assert told.keys() == log.summary("good").keys()
    assert log.summary("good")["state"] == "complete"


def test_a_disk_that_fills_up_during_reconstruction_fails_the_run_and_keeps_the_frames(full_disk):
    told = full_disk(
        """
        import h5py, numpy as np
        from apsber_bluesky.core import *
        from apsber_bluesky.pipeline import Reconstruct, FindCentre, TomographyPipeline
        from apsber_bluesky.storage import VolumeWriter
        from apsber_bluesky.streaming import RingOrFileSource

        class Log:
            def stage(self, *_): pass
            def message(self, uid, event, details):
                if event == "finished":
                    print(event, details["state"], details["reason"], details["volume_shape"])

        scan = TomographyScan(num_projections=30, num_flats=2, rows=40, columns=64, dtype="<u2",
                              exposure_s=0.1)
        run = RunDescription(uid="run-1", scan=scan)
        folder = RunFolder.of(root, run.proposal, run.uid).create()
        with h5py.File(folder.raw, "w") as file:
            for stream, count, value in (("flats", 2, 900), ("primary", 30, 500)):
                file[f"entry/{stream}/data"] = np.full((count, 40, 64), value, "<u2")
        settings = ProcessingSettings(engine="finufft", centre=31.5)
        def open_volume(folder, shape, voxel_size_um):
            return VolumeWriter(folder.volume, shape, voxel_size_um=voxel_size_um)

        stages = [FindCentre(settings), Reconstruct(settings, open_volume)]
        pipeline = TomographyPipeline(root, RingOrFileSource(), settings, stages, Log())
        pipeline.begin_run(run)
        (root / "fill").write_bytes(bytes(1_500_000))
        for stream, count in (("flats", 2), ("primary", 30)):
            uri = folder.raw.as_uri()
            pipeline.frames(FrameRange("run-1", stream, 0, count, uri, f"entry/{stream}/data"))
        pipeline.end_run("run-1", "success", "")
        print(sorted(p.name for p in folder.path.iterdir() if "sqlite" not in p.name))
        """
    ).splitlines()
    assert told[0].startswith("finished failed cannot write the volume at")
    assert "the disk is full" in told[0]
    assert told[0].endswith("None")
    assert told[1] == "['raw.h5']"
