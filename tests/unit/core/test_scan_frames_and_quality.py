"""Scans, frames and verdicts: the words that every package uses."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from apsber_bluesky.core import (
    DEFAULT_PROPOSAL,
    KEY_OF_STREAM,
    FrameRange,
    ImageKey,
    InputError,
    ProcessRecord,
    QualityMetric,
    RunDescription,
    SeriesRequest,
    TomographyScan,
    Verdict,
    judge,
)


def scan(**changes) -> TomographyScan:
    values = {"num_projections": 4, "rows": 2, "columns": 3, "dtype": "<u2", "exposure_s": 0.1}
    return TomographyScan(**{**values, **changes})


@pytest.mark.parametrize(
    ("start", "stop", "angles"),
    [(0, 180, [0, 45, 90, 135]), (10, -30, [10, 0, -10, -20]), (-180, 180, [-180, -90, 0, 90])],
)
def test_angles_begin_at_the_start_and_end_before_the_stop(start, stop, angles):
    own = scan(rotation_start_deg=start, rotation_stop_deg=stop)
    np.testing.assert_allclose(own.angles_deg, angles)
    assert own.step_deg == angles[1] - angles[0]


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.integers(1, 3000))
def test_angles_are_as_many_as_projections_and_evenly_spaced(start, stop, count):
    if start == stop:
        return
    own = scan(rotation_start_deg=start, rotation_stop_deg=stop, num_projections=count)
    assert own.angles_deg.shape == (count,)
    assert own.angles_deg[0] == start
    np.testing.assert_allclose(np.diff(own.angles_deg), own.step_deg, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_projections": 0},
        {"num_flats": -1},
        {"rows": 0},
        {"exposure_s": -0.1},
        {"exposure_s": math.nan},
        {"pixel_size_um": 0},
        {"rotation_stop_deg": 0},
        {"rotation_stop_deg": math.inf},
        {"rotation_start_deg": math.nan},
        {"colour": "red"},
    ],
)
def test_a_scan_with_a_wrong_value_is_refused_by_name(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        scan(**wrong)


def test_a_run_is_described_by_its_start_document():
    start = {
        "uid": "abc",
        "scan_id": 7,
        "plan_name": "fly_tomography",
        "sample": "tooth",
        "proposal_id": "GUP-1",
        "beamline_id": "2-BM",
        "instrument_name": "tomography",
        "time": 12.5,
        "tomography": scan(energy_keV=25).model_dump(),
        "anything": "else",
    }
    run = RunDescription.from_start(start)
    assert (run.uid, run.scan_id, run.sample, run.proposal) == ("abc", 7, "tooth", "GUP-1")
    assert run.start_time_s == 12.5
    assert run.scan == scan(energy_keV=25)
    assert RunDescription(**json.loads(run.model_dump_json())) == run


@pytest.mark.parametrize(
    ("names", "sample"),
    [
        ({"sample_name": "root", "sample": "x"}, "root"),
        ({"sample": {"name": "root"}}, "root"),
        ({"sample": 5}, "5"),
        ({}, ""),
    ],
)
def test_a_sample_is_found_however_it_is_named(names, sample):
    run = RunDescription.from_start({"uid": "u", "tomography": scan().model_dump(), **names})
    assert run.sample == sample
    assert run.proposal == DEFAULT_PROPOSAL


def test_a_start_document_with_another_tomography_key_is_refused_by_name():
    with pytest.raises(InputError, match=r"'tomography'.*num_projections is -1"):
        RunDescription.from_start(
            {"uid": "u", "tomography": {**scan().model_dump(), "num_projections": -1}}
        )
    with pytest.raises(InputError, match=r"'tomography'.*'yes'"):
        RunDescription.from_start({"uid": "u", "tomography": "yes"})


@pytest.mark.parametrize(("stream", "key"), [("primary", 0), ("flats", 1), ("darks", 2)])
def test_streams_have_the_image_keys_of_nexus(stream, key):
    request = SeriesRequest("u", stream, 1, 2, 3, "<u2")
    frames = FrameRange("u", stream, 0, 1, "file:///x", "/entry/data")
    assert request.image_key == frames.image_key == KEY_OF_STREAM[stream] == ImageKey(key)
    assert SeriesRequest(**request.to_dict()) == request
    assert FrameRange(**frames.to_dict()) == frames


@pytest.mark.parametrize(
    ("value", "warn", "fail", "verdict"),
    [
        (0.0, 0.1, 0.2, "pass"),
        (0.1, 0.1, 0.2, "pass"),
        (0.15, 0.1, 0.2, "warn"),
        (0.2, 0.1, 0.2, "warn"),
        (0.3, 0.1, 0.2, "fail"),
        (10, 5, 2, "pass"),
        (5, 5, 2, "pass"),
        (4, 5, 2, "warn"),
        (1, 5, 2, "fail"),
        (math.nan, 5, 2, "fail"),
        (math.inf, 5, 2, "pass"),
        (-math.inf, 5, 2, "fail"),
        (0.5, 0.1, 0.1, "fail"),
    ],
)
def test_a_number_is_judged_against_its_limits_in_either_direction(value, warn, fail, verdict):
    assert judge(value, warn=warn, fail=fail) == verdict


@given(st.lists(st.sampled_from(list(Verdict))))
def test_the_worst_verdict_is_that_of_the_worst_number(verdicts):
    worst = Verdict.worst(verdicts)
    if "fail" in verdicts:
        assert worst is Verdict.FAIL
    elif "warn" in verdicts:
        assert worst is Verdict.WARN
    else:
        assert worst is Verdict.PASS


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_could_not_be_measured_is_none_in_json(value):
    metric = QualityMetric("resolution", value, "px", Verdict.FAIL, 3.0, 5.0, "a paper", "why")
    plain = json.loads(json.dumps(metric.to_dict(), allow_nan=False))
    assert (plain["value"], plain["verdict"], plain["note"]) == (None, "fail", "why")


def test_a_process_record_survives_a_round_trip_through_json():
    record = ProcessRecord("centre", 2, {"centre_px": 1.5}, {"a": "xxh3_128:0"}, {"b": "c"})
    assert ProcessRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
