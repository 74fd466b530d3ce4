"""Slices that are shown while a run goes through the pipeline."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from apsber_bluesky.core import LiveSliceSettings, ProcessingSettings, TomographyScan
from apsber_bluesky.pipeline import FindCentre, LiveSlices, Reconstruct, TomographyPipeline
from apsber_bluesky.pipeline._live_frame import (
    BUDGET,
    LiveFrame,
    choose_binning,
    provisional_centre,
)
from apsber_bluesky.streaming import RingOrFileSource

STREAMS = ("darks", "flats", "primary")


def until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return value


@pytest.fixture
def make_live(log):
    made = []

    def make(show=None, **settings):
        seen = []
        slices = {"hz": 20, **settings.pop("live_slices", {})}
        live = LiveSlices(
            ProcessingSettings(live_slices=slices, **settings), show or seen.append, log
        )
        made.append(live)
        return live, seen

    yield make
    for live in made:
        live.close()


@pytest.fixture
def make_live_pipeline(tmp_path, log, make_run, make_live):
    """A pipeline with live slices, and what they showed."""
    made = []

    def make(show=None, **settings):
        live, seen = make_live(show, **settings)
        processing = ProcessingSettings(slab_slices=4, engine="finufft", chunk_projections=8)
        volumes = []

        class Volume:
            checksum = ""

            def __init__(self, *_):
                self.slabs = []

            def __enter__(self):
                return self

            def __exit__(self, *_):
                volumes.append(np.concatenate(self.slabs))

            def write(self, _first, slab):
                self.slabs.append(slab)

        stages = [FindCentre(processing), Reconstruct(processing, Volume)]
        pipeline = TomographyPipeline(
            tmp_path, RingOrFileSource(), processing, stages, log, None, live
        )
        made.append(pipeline)
        return pipeline, live, seen, volumes

    yield make
    for pipeline in made:
        pipeline.close()


def send(pipeline, run, live=None):
    pipeline.begin_run(run.description)
    run.enter_books()
    for stream in STREAMS:
        for frames in run.ranges(stream, 8):
            if live is not None:
                live.announced(frames)
            pipeline.frames(frames)
    pipeline.end_run(run.uid, "success", "")


def told(log, run):
    return [d for uid, event, d in log.messages if (uid, event) == (run.uid, "live_slices")]


def test_after_the_scan_the_slices_are_those_of_the_volume(make_run, make_live_pipeline, log):
    pipeline, live, seen, volumes = make_live_pipeline()
    first, second = make_run("run-1"), make_run("run-2")
    for run in (first, second):
        send(pipeline, run, live)
        until(lambda run=run: seen and (seen[-1].run_uid, seen[-1].used) == (run.uid, 48))
    assert all(view.total == 48 and view.dropped == 0 for view in seen)
    at_first, later = seen[0], seen[-1]
    assert (at_first.centre_px, at_first.centre_from) == (19.5, "middle of the frame")
    centre = log.summary(first.uid)["centre_px"]
    assert (later.centre_px, later.centre_from) == (centre, "last run")
    volume = volumes[-1]
    for name, expected in {
        "xy": volume[5],
        "xz": volume[:, 20],
        "yz": volume[:, :, 20],
    }.items():
        error = later.planes[name] - expected
        assert np.sqrt(np.mean(error**2)) < 1e-2 * volume.max()
    until(lambda: told(log, second) and told(log, second)[-1]["used"] == 48)
    details = told(log, second)[-1]
    assert details["latency_s"] >= 0
    assert (details["centre_from"], details["binning"], details["window_deg"]) == (
        "last run",
        1,
        0.0,
    )


def test_what_is_lost_is_not_in_the_slices(make_run, make_live_pipeline):
    pipeline, _, seen, _ = make_live_pipeline()
    run = make_run(missing={"primary": [3, 20, 21]})
    send(pipeline, run)
    until(lambda: seen and seen[-1].used == 45)


def test_the_volume_is_the_same_with_and_without_and_when_the_display_fails(
    make_run, make_live_pipeline, log
):
    volumes = []

    def fail(_view):
        raise RuntimeError("no screen")

    for number, (hz_show, uid) in enumerate([(None, "run-1"), (fail, "run-2")]):
        pipeline, _, _, written = make_live_pipeline(hz_show)
        run = make_run(uid)
        send(pipeline, run)
        assert log.summary(uid)["state"] == "complete", number
        volumes += written
    np.testing.assert_array_equal(volumes[0], volumes[1])
    warnings = until(lambda: [d for uid, e, d in log.messages if (uid, e) == ("run-2", "warning")])
    assert warnings == [{"stage": "live_slices", "message": "RuntimeError: no screen"}]


def test_a_display_that_hangs_holds_nothing_up_and_drops_the_oldest(
    make_run, make_live, monkeypatch
):
    monkeypatch.setattr("apsber_bluesky.pipeline._live_slices._MOST_WAITING", 3 * 4 * 10 * 40 * 4)
    held, seen = threading.Event(), []

    def show(view):
        seen.append(view)
        assert held.wait(30)

    live, _ = make_live(show)
    run = make_run()
    live.begin_run(run.description)
    chunk = np.ones((4, 10, 40), np.float32)
    live.add(run.uid, chunk, 0)
    until(lambda: seen)
    for first in range(4, 48, 4):
        live.add(run.uid, chunk, first)
    live.frames_over(run.uid)
    held.set()
    last = until(lambda: seen[-1].used > 4 and seen[-1])
    until(lambda: seen[-1].used == 16)
    assert (seen[-1].dropped, last.total) == (32, 48)
    # Twelve of the last were kept; all weigh together as much as a whole scan.
    assert seen[-1].planes["xy"][20, 20] == pytest.approx(seen[0].planes["xy"][20, 20], rel=0.05)


def test_they_are_shown_no_more_often_than_wanted_but_the_last_ones_at_once(make_run, make_live):
    live, seen = make_live(live_slices={"hz": 0.01})
    run = make_run()
    live.begin_run(run.description)
    chunk = np.zeros((1, 10, 40), np.float32)
    for number in range(48):
        live.add(run.uid, chunk, number)
        if number == 0:
            until(lambda: seen)
    assert len(seen) == 1
    live.frames_over(run.uid)
    until(lambda: len(seen) == 2)
    assert [view.used for view in seen] == [1, 48]


def test_projections_of_another_run_are_not_mixed_in(make_run, make_live):
    live, seen = make_live()
    one, two = make_run("run-1"), make_run("run-2")
    chunk = np.zeros((2, 10, 40), np.float32)
    live.add("run-1", chunk, 0)
    live.begin_run(one.description)
    live.add("run-2", chunk, 0)
    live.begin_run(two.description)
    live.add("run-1", chunk, 4)
    live.add("run-2", chunk, 8)
    live.frames_over("run-1")
    live.frames_over("run-2")
    until(lambda: seen and seen[-1].used == 2)
    assert {view.run_uid for view in seen} == {"run-2"}


def test_a_slice_outside_the_volume_is_a_warning_and_nothing_more(
    make_run, make_live_pipeline, log
):
    pipeline, _, seen, _ = make_live_pipeline(live_slices={"z": 10})
    run = make_run()
    send(pipeline, run)
    assert log.summary(run.uid)["state"] == "complete"
    assert seen == []
    messages = [d["message"] for _, event, d in log.messages if event == "warning"]
    assert messages == ["processing.live_slices.z is 10, but the volume has 10; give 0 to 9"]


def scan_of(rows=1024, columns=1024, exposure_s=0.01, stop=180.0):
    return TomographyScan(
        num_projections=720,
        rows=rows,
        columns=columns,
        dtype="<u2",
        exposure_s=exposure_s,
        rotation_stop_deg=stop,
    )


@pytest.mark.parametrize(
    ("scan", "edge"),
    [
        (scan_of(exposure_s=1.0), 1),
        (scan_of(exposure_s=0.05), 1),
        (scan_of(exposure_s=0.01), 2),
        (scan_of(exposure_s=0.001), 8),
        (scan_of(64, 64, 1e-6), 2),
        (scan_of(2, 640, 1e-3), 1),
        (scan_of(1, 2, 1e-9), 1),
        (scan_of(2048, 2048, 10.0, stop=3600.0), 4),
    ],
)
def test_binning_is_the_smallest_that_keeps_pace_and_fits_the_memory(scan, edge):
    speed = 15e-9
    assert choose_binning(scan, LiveSliceSettings(), speed) == edge
    if edge > 1 and scan.exposure_s < 1 and scan.columns > 64:
        assert scan.rows * scan.columns * speed / edge**2 <= BUDGET * scan.exposure_s


def test_binning_that_was_set_is_used_as_far_as_the_frame_allows():
    settings = LiveSliceSettings(binning=4)
    assert choose_binning(scan_of(exposure_s=1.0), settings, 1e-8) == 4
    assert choose_binning(scan_of(rows=3), settings, 1e-8) == 3


@pytest.mark.parametrize("edge", [2, 3])
def test_binned_slices_lie_where_the_others_do_and_keep_the_attenuation(edge):
    from apsber_bluesky.processing import bin_images

    scan = scan_of(rows=12, columns=96)
    angles = np.deg2rad(scan.angles_deg)
    x0, y0, width, mu, centre = 12.0, -9.0, 7.0, 0.02, 49.0
    # A Gaussian blob is one in every projection, too.
    offset = x0 * np.cos(angles) + y0 * np.sin(angles)
    away = np.arange(96) - centre - offset[:, None]
    blob = mu * width * np.sqrt(2 * np.pi) * np.exp(-(away**2) / (2 * width**2))
    # Only rows 6 to 11 hold it.
    lines = np.zeros((len(angles), 12, 96), np.float32)
    lines[:, 6:] = blob[:, None]
    settings = LiveSliceSettings(z=9, y=48 + int(y0), x=48 + int(x0))
    for binning in (1, edge):
        frame = LiveFrame(scan, binning, centre, "profile", "ramp")
        sums = frame.begin(settings)
        sums.add(bin_images(lines, binning), 0)
        planes, used = sums.planes()
        assert used == 720
        n = 96 // binning
        assert planes["xy"].shape == (n, n)
        middle = n // 2 + round(y0 / binning), n // 2 + round(x0 / binning)
        assert planes["xy"][middle] == pytest.approx(mu, rel=0.03)
        assert planes["xz"][9 // binning, middle[1]] == pytest.approx(mu, rel=0.03)
        assert planes["yz"][9 // binning, middle[0]] == pytest.approx(mu, rel=0.03)
        assert abs(planes["xz"][0]).max() < 0.01 * mu


def test_a_scan_of_several_turns_is_seen_through_a_window(make_live):
    from apsber_bluesky.core import RunDescription

    live, seen = make_live()
    scan = TomographyScan(
        num_projections=300, rows=4, columns=32, dtype="<u2", exposure_s=1.0,
        rotation_stop_deg=1500.0,
    )  # fmt: skip
    live.begin_run(RunDescription(uid="turns", scan=scan))
    for first in range(0, 300, 20):
        live.add("turns", np.ones((20, 4, 32), np.float32), first)
    live.frames_over("turns")
    until(lambda: seen and seen[-1].used == 36)
    assert seen[-1].planes["xy"].any()
    assert (seen[-1].window_deg, seen[-1].total) == (180.0, 300)


@pytest.mark.parametrize(
    ("given", "last", "expected"),
    [
        (17, (1024, 500.0), (17.0, "profile")),
        ("auto", (1024, 500.0), (500.0, "last run")),
        ("auto", (1000, 500.0), (511.5, "middle of the frame")),
        ("auto", (1024, float("nan")), (511.5, "middle of the frame")),
        ("auto", None, (511.5, "middle of the frame")),
    ],
)
def test_the_centre_is_the_best_that_is_known(given, last, expected):
    assert provisional_centre(scan_of(), given, last) == expected
