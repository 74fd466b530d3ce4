"""Quality of a run: what is written, what is told while frames come, and of other techniques."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from apsber_bluesky.core import (
    AnalysisSettings,
    FrameRange,
    InputError,
    Limits,
    RunDescription,
    RunFolder,
    RunLedger,
    SeriesBooks,
)
from apsber_bluesky.pipeline import AssessFrames, FrameRunPipeline
from apsber_bluesky.streaming import RingOrFileSource


def told(log, uid: str) -> dict[str, list[tuple[float, int]]]:
    found: dict[str, list[tuple[float, int]]] = {}
    for run_uid, event, details in log.messages:
        if (run_uid, event) == (uid, "feedback"):
            found.setdefault(details["name"], []).append((details["value"], details["projections"]))
    return found


def quality(run) -> tuple[dict, dict]:
    value = json.loads(run.folder.quality.read_text())
    return {metric["name"]: metric for metric in value["metrics"]}, value["left_out"]


def test_numbers_of_detector_beam_and_sample_are_written_with_reasons_for_those_left_out(
    make_run, make_pipeline, log
):
    run = make_run()
    run.send_through(make_pipeline(judged=True))
    numbers, left_out = quality(run)
    assert {"ring_score", "reprojection_residual", "saturated_pixels", "dead_pixels"} <= set(
        numbers
    )
    assert numbers["saturated_pixels"]["value"] == 0
    assert numbers["flat_stability"]["verdict"] == "pass"
    assert "flats were taken once" in numbers["flat_stability"]["note"]
    assert not set(numbers) & set(left_out)
    assert set(numbers) | set(left_out) == {
        "signal_to_noise", "contrast_to_noise", "resolution", "resolution_3d", "ring_score",
        "centre_residual", "drift", "motion", "reprojection_residual", "missing_frames",
        "saturated_pixels", "dead_pixels", "flat_stability",
    }  # fmt: skip
    record = next(r for r in log.summary(run.uid)["quality"].values() if r["name"] == "ring_score")
    assert record["source"]


def test_saturation_is_told_before_the_first_projection_and_the_user_is_warned(
    make_run, make_pipeline, log, all_frames
):
    run = make_run()
    level = int(np.percentile(all_frames["flats"], 60))
    pipeline = make_pipeline(judged=True, saturation_counts=level)
    pipeline.begin_run(run.description)
    run.enter_books()
    for stream in ("darks", "flats"):
        for frames in run.ranges(stream):
            pipeline.frames(frames)
    early = told(log, run.uid)
    value, projections = early["saturated_pixels"][-1]
    assert projections == 0
    assert value == pytest.approx(np.mean(all_frames["flats"] >= level))
    assert early["flat_stability"][0][0] < 0.02
    warnings = [d["message"] for _, event, d in log.messages if event == "warning"]
    assert len(warnings) == 1
    assert "pixels are saturated" in warnings[0]
    for frames in run.ranges("primary", 16):
        pipeline.frames(frames)
    pipeline.end_run(run.uid, "success", "")
    every = np.concatenate([all_frames["flats"], all_frames["primary"]])
    number = quality(run)[0]["saturated_pixels"]
    assert number["value"] == pytest.approx(np.mean(every >= level))
    assert number["verdict"] == "fail"


def test_missing_frames_and_drift_are_told_as_far_as_they_are_known(make_run, make_pipeline, log):
    run = make_run(missing={"primary": [7, 8]})
    run.send_through(make_pipeline(chunk_projections=16, judged=True))
    known = told(log, run.uid)
    assert known["missing_frames"][-1][0] == pytest.approx(2 / 56)
    value, projections = known["drift"][-1]
    assert value == pytest.approx(quality(run)[0]["drift"]["value"], abs=0.3)
    assert projections == 48


def spectra(frames: int = 12) -> np.ndarray:
    images = np.random.default_rng(0).poisson(40, (frames, 20, 30)).astype("<u2")
    images[:, 3, 4] = 65535  # masked
    images[:, 5:9, 6] = 0  # four that do not answer
    images[:, 10, 10:13] = np.where(np.arange(frames)[:, None] == 5, 65535, 40)
    return images


class Bench:
    def __init__(self, root, log, limits=None) -> None:
        stage = AssessFrames(AnalysisSettings(limits=limits or {}))
        self.root, self.log = root, log
        self.pipeline = FrameRunPipeline(root, RingOrFileSource(None), {"scattering": [stage]}, log)

    def take(self, uid, images, missing=(), conditions=None) -> RunFolder:
        run = RunDescription(
            uid=uid, technique="scattering", detectors=("eiger",), conditions=conditions or {}
        )
        folder = RunFolder.of(self.root, run.proposal, uid).create()
        with h5py.File(folder.raw_of("eiger"), "w") as file:
            file["entry/primary/data"] = images
        number, have = len(images), len(images) - len(missing)
        with RunLedger(folder.ledger, create=True) as ledger:
            ledger.set_books(
                "eiger:primary", SeriesBooks(number, have, have, missing=list(missing))
            )
        self.pipeline.begin_run(run)
        uri, place = folder.raw_of("eiger").as_uri(), "/entry/primary/data"
        for start in range(0, number, 4):
            stop = min(start + 4, number)
            self.pipeline.frames(FrameRange(uid, "primary", start, stop, uri, place, "eiger"))
        self.pipeline.end_run(uid, "success", "")
        return folder


def test_other_techniques_are_judged_by_their_frames(tmp_path, log):
    images = spectra()
    images[2] = 0  # lost
    folder = Bench(tmp_path, log).take("a", images, missing=[2])
    value = json.loads(folder.quality.read_text())
    numbers = {metric["name"]: metric for metric in value["metrics"]}
    assert numbers["missing_frames"]["value"] == pytest.approx(1 / 12)
    assert numbers["saturated_pixels"]["value"] == pytest.approx(3 / (11 * 600))
    assert numbers["dead_pixels"]["value"] == pytest.approx(5 / 600)
    assert "11 frames were looked at" in numbers["dead_pixels"]["note"]
    assert value["verdict"] == "fail"
    assert log.summary("a")["verdict"] == "fail"
    assert told(log, "a")["saturated_pixels"][-1][1] == 12


def test_what_frames_do_not_show_is_left_out_with_the_reason(tmp_path, log):
    raw = Bench(tmp_path, log).take("j", spectra(), conditions={"kind": "jungfrau_series"})
    left_out = json.loads(raw.quality.read_text())["left_out"]
    assert "no frame was looked at" in left_out["saturated_pixels"]
    short = Bench(tmp_path, log).take("s", spectra(2).astype(np.float32))
    left_out = json.loads(short.quality.read_text())["left_out"]
    assert "no full scale" in left_out["saturated_pixels"]
    assert "too few" in left_out["dead_pixels"]


def test_limits_of_an_unknown_number_are_refused_at_the_start():
    with pytest.raises(InputError, match="unknown quality number 'beauty'"):
        AssessFrames(AnalysisSettings(limits={"beauty": Limits(warn=1, fail=2)}))
