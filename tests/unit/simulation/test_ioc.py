"""The IOC as a process, driven by ophyd and Bluesky in another (see ioc_client.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROWS, COLUMNS = 24, 40


@pytest.fixture(scope="module")
def seen(
    start_beamline: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What the client saw, by section."""
    folder = tmp_path_factory.mktemp("frames")
    client = Path(__file__).with_name("ioc_client.py")
    simulation = {"rows": ROWS, "columns": COLUMNS, "seed": 3}
    with start_beamline(simulation=simulation) as (_, ready):
        done = subprocess.run(
            [sys.executable, str(client), str(folder)],
            input=json.dumps(ready),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)
        results["ready"] = ready
        results["folder"] = str(folder)
        yield results


@pytest.fixture
def section(seen: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = seen[request.param]
    assert "failed" not in found, found["failed"]
    return found


def of(name: str) -> Any:
    return pytest.mark.parametrize("section", [name], indirect=True, ids=[""])


@of("motors")
def test_motor_moves_and_reports_on_the_way(section: dict[str, Any]) -> None:
    assert section["position"] == 30.0
    assert section["intermediate"] >= 3
    assert section["readbacks"], "the readback went back"


@of("motors")
def test_motor_stops_mid_way_and_takes_its_place_as_the_target(section: dict[str, Any]) -> None:
    assert section["moving"] is True
    assert 60.0 < section["stopped_at"] < 300.0


@of("motors")
def test_motor_takes_a_new_velocity_but_no_negative_one(section: dict[str, Any]) -> None:
    assert (section["turned_to"], section["velocity"]) == (-360.0, 720.0)
    assert section["velocity_kept"] == 720.0


@of("motors")
def test_motor_limits_refuse_and_nothing_moves(section: dict[str, Any]) -> None:
    assert section["ophyd_refuses"] is True
    assert section["refused"] == {"LVIO": 1, "VAL": -360.0, "RBV": -360.0, "DMOV": 1}
    assert section["sample_limits"] == [-20.0, 20.0]


@of("motors")
def test_motor_put_completes_when_the_motion_has_ended(section: dict[str, Any]) -> None:
    assert section["completed"] == {"LVIO": 0, "VAL": 0.0, "RBV": 0.0, "DMOV": 1}


@of("motors")
def test_motor_position_can_be_redefined_and_its_limits_shift(section: dict[str, Any]) -> None:
    assert section["redefined"] == {
        "RBV": 90.0,
        "OFF": 87.5,
        "LLM": -632.5,
        "HLM": 807.5,
        "DRBV": 2.5,
    }
    assert section["record"] == ["deg", "sample rotation"]


@of("records")
def test_every_signal_of_the_ophyd_classes_connects(section: dict[str, Any]) -> None:
    assert section["count"] > 500
    assert section["data_type"] == "UInt16"
    assert section["read_only"] is False


@of("records")
def test_camera_keeps_what_it_cannot_change_and_takes_what_it_can(
    section: dict[str, Any],
) -> None:
    assert section["exposure_kept"] == 0.01
    assert section["size"] == [COLUMNS, COLUMNS, ROWS]
    assert section["temperature"] == 21.5


@of("records")
def test_storage_ring_has_current_and_permit(section: dict[str, Any]) -> None:
    assert section["current"] == pytest.approx(102.0, abs=0.1)
    assert section["permit"] == 1


@of("series_of_each_kind")
def test_shutter_and_sample_decide_what_a_frame_shows(
    section: dict[str, Any], seen: dict[str, Any]
) -> None:
    assert section["address"] == seen["ready"]["frame_address"]
    assert section["shutter"] == "Open"
    dark, flat, projection = (section[key]["means"] for key in ("closed", "out", "in"))
    assert dark == pytest.approx([100.0] * 3, rel=0.05)
    assert flat == pytest.approx([40000.0] * 2, rel=0.05)
    assert 0.2 < projection[0] / flat[0] < 0.9


@of("series_of_each_kind")
def test_each_acquisition_is_one_series_numbered_from_0(section: dict[str, Any]) -> None:
    for key, series, number in (("closed", 11, 3), ("out", 12, 2), ("in", 13, 1)):
        found = section[key]
        assert (found["series"], found["announced"], found["ended"]) == (series, number, number)
        assert found["numbers"] == list(range(number))
    assert section["sent"] == [1, 0]


@of("flies")
def test_fly_gives_every_pulse_a_frame_with_its_exact_angle(section: dict[str, Any]) -> None:
    assert section["angles"] == [float(i) for i in range(40)]
    assert section["numbers"] == list(range(40))
    assert (section["announced"], section["ended"], section["missed"]) == (40, 40, 0)
    assert section["pulses"] == [40, 0]
    assert section["counter"] == 540


@of("flies")
def test_the_same_fly_gives_the_same_frames(section: dict[str, Any]) -> None:
    assert section["equal"] is True


@of("flies_backwards_too_fast")
def test_pulses_during_an_exposure_are_missed_and_counted(section: dict[str, Any]) -> None:
    assert section["angles"] == [-3.0 * i for i in range(10)]
    assert section["numbers"] == list(range(10))
    assert section["missed"] == 20
    assert (section["announced"], section["ended"]) == (30, 10)


@of("refuses_to_arm")
def test_pulse_output_does_not_arm_without_a_distance(section: dict[str, Any]) -> None:
    assert section == {"armed": 0, "arm": 0, "message": "Delta must not be 0"}


@of("stops_early")
def test_stopping_ends_the_series_with_the_frames_so_far(section: dict[str, Any]) -> None:
    assert section["frames"] == section["ended"] == section["counter"] >= 3
    assert section["acquire"] == [0, 0]
    assert section["state"] == "Aborted"


@of("counts_through_the_run_engine")
def test_run_engine_counts_into_a_file_with_the_right_frames(
    section: dict[str, Any], seen: dict[str, Any]
) -> None:
    assert section["shape"] == [6, ROWS, COLUMNS]
    assert section["chunks"] == [1, ROWS, COLUMNS]
    assert section["dtype"] == "<u2"
    assert section["ids"] == list(range(6))
    assert section["angles"] == [0.0] * 6
    assert section["image_is_last"] is True
    assert section["state"] == 0
    assert section["file"].startswith(seen["folder"])


@of("counts_through_the_run_engine")
def test_run_engine_gets_resource_and_datum_documents(section: dict[str, Any]) -> None:
    names = section["documents"]
    assert (names.count("resource"), names.count("datum"), names.count("event")) == (1, 3, 3)
    assert section["described"] == [[2, ROWS, COLUMNS], "<u2"]


@of("counts_through_the_run_engine")
def test_file_plugin_is_unprimed_until_a_frame_has_passed(section: dict[str, Any]) -> None:
    assert section["unprimed"] is True


@of("writes_files_in_the_other_modes")
def test_file_plugin_writes_single_files_and_captures(section: dict[str, Any]) -> None:
    assert section["single"] == [1, 1, 1]
    assert section["captured"] == [2, 0]
    assert (section["before_write"], section["after_write"]) == ([], [2])


@of("writes_files_in_the_other_modes")
def test_file_plugin_creates_folders_only_when_asked(section: dict[str, Any]) -> None:
    assert (section["not_there"], section["created"]) == (0, 1)
    status, message, capturing = section["bad_folder"]
    assert status == "Write error"
    assert "No such file or directory" in message
    assert capturing == 0


@of("serves_pv_access")
def test_pv_access_serves_the_frame_with_its_id_angle_and_time(section: dict[str, Any]) -> None:
    assert section == {
        "angle": 12.5,
        "kind": 0,
        "dimensions": [COLUMNS, ROWS],
        "recent": True,
        "same_as_image1": True,
    }
