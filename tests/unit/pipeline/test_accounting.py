"""What the books say of used, missing and incomplete frames, and what it does to a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from apsber_bluesky.core import FrameState, RunLedger

STREAMS = ("darks", "flats", "primary")


def process(pipeline, run, size=None, exit_status="success"):
    """Send a run through, its books written by the receiver before or after the frames."""
    pipeline.begin_run(run.description)
    run.enter_books()
    for stream in STREAMS:
        for frames in run.ranges(stream, size):
            pipeline.frames(frames)
    pipeline.end_run(run.uid, exit_status, "")


def used_of(run) -> dict[str, list[int]]:
    """The frames that are marked as used."""
    with RunLedger(run.folder.ledger) as ledger:
        return {
            stream: np.flatnonzero(ledger.frame_states(stream) & FrameState.USED).tolist()
            for stream in STREAMS
        }


def volume_of(run):
    return zarr.open_array(run.folder.volume / "0", mode="r")[:]


def test_exactly_the_frames_that_were_used_are_marked(make_run, make_pipeline, log):
    missing = {"primary": [0, 7, 8, 47], "flats": [1], "darks": [3]}
    incomplete = {"primary": [20, 21], "flats": [2]}
    run = make_run(missing=missing, incomplete=incomplete)
    process(make_pipeline(), run, 7)
    lost = {s: {*missing.get(s, []), *incomplete.get(s, [])} for s in STREAMS}
    expected = {s: [n for n in range(run.counts[s]) if n not in lost[s]] for s in STREAMS}
    assert used_of(run) == expected
    with RunLedger(run.folder.ledger) as ledger:
        used = {name: own.used for name, own in ledger.books.streams.items()}
    assert used == {stream: len(numbers) for stream, numbers in expected.items()}
    assert log.summary(run.uid)["frames"]["used"] == sum(used.values())


def test_a_cancelled_run_has_marks_of_the_chunks_it_used(make_run, make_pipeline, log):
    run = make_run()
    pipeline = make_pipeline(chunk_projections=16)
    log.on_stage["accumulate"] = pipeline.cancel
    process(pipeline, run)
    assert log.summary(run.uid)["state"] == "aborted"
    assert used_of(run) == {
        "darks": [0, 1, 2, 3],
        "flats": [0, 1, 2, 3],
        "primary": list(range(16)),
    }


@pytest.mark.parametrize("known", ["from the marks, before the series ended", "from the books"])
def test_incomplete_frames_are_as_if_they_were_missing(make_run, make_pipeline, log, known):
    lost = {"primary": [5, 6, 30], "flats": [0], "darks": [2]}
    holed, partial = make_run("holed", missing=lost), make_run("partial", incomplete=lost)
    pipeline = make_pipeline()
    process(pipeline, holed)
    if known == "from the books":
        process(pipeline, partial)
    else:
        pipeline.begin_run(partial.description)
        partial.mark_incomplete()
        for stream in STREAMS:
            for frames in partial.ranges(stream, 5):
                pipeline.frames(frames)
        partial.enter_books()
        pipeline.end_run(partial.uid, "success", "")
    assert np.array_equal(volume_of(partial), volume_of(holed))
    summary = log.summary("partial")
    assert (summary["state"], summary["reason"]) == (
        "incomplete",
        "5 of 56 frames are incomplete",
    )
    assert log.summary("holed")["reason"] == "5 of 56 frames are missing"
    assert summary["frames"] == {"expected": 56, "received": 56, "written": 56, "used": 51}


@pytest.mark.parametrize(
    ("lost", "within"),
    # Of one wedge of 22 degrees the reconstruction cannot know what only it would have shown.
    [([4, 13, 22, 31, 40], 0.02), ([0, 1, 45, 46, 47], 0.02), ([20, 21, 22, 23, 24], 0.05)],
)
def test_five_missing_projections_leave_the_attenuation_as_it_is(
    make_run, make_pipeline, lost, within
):
    whole, holed = make_run("whole"), make_run("holed", missing={"primary": lost})
    pipeline = make_pipeline(centre=21.0)
    for run in (whole, holed):
        process(pipeline, run)
    one, other = volume_of(whole)[3:7], volume_of(holed)[3:7]
    y, x = np.mgrid[:40, :40] - 20
    inside = np.hypot(x, y) < 15
    # Left out without new weights, 5 of 48 would take 10 per cent off.
    assert other[:, inside].mean() / one[:, inside].mean() == pytest.approx(1, abs=within)


def test_quality_and_figure_of_an_incomplete_run_say_so(make_run, make_pipeline, log):
    pictures = {}
    for name, lost in (("whole", []), ("holed", [5, 6])):
        run = make_run(name, missing={"primary": lost}, incomplete={"primary": [9] if lost else []})
        process(make_pipeline(judged=True), run)
        quality = json.loads(run.folder.quality.read_text())
        numbers = {metric["name"]: metric for metric in quality["metrics"]}
        assert quality["complete"] is (not lost)
        assert quality["frames"]["written"] == 56 - len(lost)
        assert quality["frames"]["num_missing"] == len(lost)
        assert quality["frames"]["num_incomplete"] == bool(lost)
        pictures[name] = numbers["missing_frames"]
    assert (pictures["whole"]["verdict"], pictures["whole"]["note"]) == ("pass", "")
    assert pictures["holed"]["note"] == "2 of 48 primary (5-6), 1 incomplete primary (9)"
    assert pictures["holed"]["value"] == pytest.approx(3 / 56)
    assert pictures["holed"]["verdict"] == "fail"


def test_the_figure_of_an_incomplete_run_has_it_in_its_title(make_run, make_pipeline, monkeypatch):
    from matplotlib.figure import Figure

    titles = []
    write = Figure.suptitle

    def note(figure, text, **options):
        titles.append(text)
        return write(figure, text, **options)

    monkeypatch.setattr(Figure, "suptitle", note)
    pipeline = make_pipeline(judged=True)
    process(pipeline, make_run("whole"))
    process(pipeline, make_run("holed", missing={"primary": [5]}))
    assert titles == [
        "head, scan 3 (whole)",
        "head, scan 3 (holed)\nincomplete: 1 of 56 frames are missing",
    ]
