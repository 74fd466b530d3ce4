"""The rule by which a series finds its pedestals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apsber_bluesky.core import (
    CALIBRATION_FOLDER,
    DataFileError,
    InputError,
    PedestalNeed,
    PedestalRecord,
    find_pedestals,
    keep_pedestals,
)

NOW_S = 1_800_000_000.0
NEED = PedestalNeed(
    detector="jungfrau", rows=512, columns=1024, exposure_s=1e-3, setting="gain0", cells=(15,)
)


def record(uid: str, age_s: float = 60.0, **changes: Any) -> PedestalRecord:
    values = {
        "run_uid": uid,
        "detector": "jungfrau",
        "taken_s": NOW_S - age_s,
        "rows": 512,
        "columns": 1024,
        "exposure_s": 1e-3,
        "setting": "gain0",
        "files": {15: f"p/{uid}/pedestal_jungfrau_cell15.h5"},
    }
    return PedestalRecord(**{**values, **changes})


def keep(root: Path, *records: PedestalRecord) -> None:
    for one in records:
        keep_pedestals(root, one)


def find(root: Path, **changes: Any) -> PedestalRecord:
    return find_pedestals(root, NEED, **{"now_s": NOW_S, **changes})


def test_the_newest_that_fit_are_taken_and_those_of_a_run_when_it_is_named(tmp_path):
    keep(tmp_path, record("old", 900), record("new", 60), record("odd", 10, exposure_s=2e-3))
    assert find(tmp_path) == record("new", 60)
    assert find(tmp_path, run_uid="ol").run_uid == "old"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rows": 1024}, "1024 x 1024 pixels, the detector has 512 x 1024"),
        ({"setting": "highgain0"}, "setting highgain0"),
        ({"exposure_s": 1.1e-3}, "of 0.0011 s, the series is of 0.001 s"),
        ({"files": {14: "p/x/a.h5"}}, "lacks storage cells 15"),
    ],
)
def test_pedestals_that_do_not_fit_are_refused_with_the_reason(tmp_path, changes, reason):
    keep(tmp_path, record("abcdefgh-1", **changes))
    with pytest.raises(InputError, match=reason) as caught:
        find(tmp_path)
    assert "abcdefgh" in str(caught.value)


def test_pedestals_that_are_too_old_are_refused_with_their_age(tmp_path):
    keep(tmp_path, record("a", 3 * 3600))
    assert find(tmp_path, max_age_s=4 * 3600).run_uid == "a"
    with pytest.raises(InputError, match="3 h old, and 60 min are allowed"):
        find(tmp_path, max_age_s=3600)


def test_without_any_the_message_says_which_plan_to_run(tmp_path):
    keep(tmp_path, record("a", detector="other"))
    with pytest.raises(InputError, match="no pedestals of jungfrau; run jungfrau_pedestal"):
        find(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"run_uid": 1}', "\xff"])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    folder = tmp_path / CALIBRATION_FOLDER / "jungfrau"
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataFileError, match=r"broken\.json"):
        find(tmp_path)


def test_a_detector_name_that_leaves_the_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot name a folder"):
        keep_pedestals(tmp_path, record("a", detector="../x"))
