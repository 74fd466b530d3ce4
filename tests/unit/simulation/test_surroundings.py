"""What stands around the sample: the real IOC, driven by the suite's own devices."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def seen(start_beamline: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the client saw, by section."""
    client = Path(__file__).with_name("surroundings_client.py")
    simulation = {"rows": 24, "columns": 40}
    with start_beamline(simulation=simulation) as (_, ready):
        done = subprocess.run(
            [sys.executable, str(client), str(tmp_path_factory.mktemp("frames"))],
            input=json.dumps(ready),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def section(seen: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = seen[request.param]
    assert "failed" not in found, found["failed"]
    return found


def of(name: str) -> Any:
    return pytest.mark.parametrize("section", [name], indirect=True, ids=[""])


@of("connects")
def test_devices_connect_and_name_their_axes(section: dict[str, Any]) -> None:
    assert {"stage_x", "stage_y", "stage_z", "stage_roll"} <= set(section["names"])
    assert section["filters"] == [1, 2, 3]


@of("moves_the_sample")
def test_the_sample_stage_moves_the_rotation_axis_in_the_picture(section: dict[str, Any]) -> None:
    # 20 um at 5 um a pixel.
    assert section["moved_columns"] == pytest.approx(4.0, abs=0.2)
    assert section["same_again"]
    assert section["y_changes"]
    assert section["roll_changes"]


@of("filters_and_energy")
def test_filters_attenuate_as_they_say(section: dict[str, Any]) -> None:
    assert section["states"] == ["Out", "In", "In"]
    assert 0.0 < section["told"] < 0.5
    assert section["seen"] == pytest.approx(section["told"], abs=0.01)


@of("filters_and_energy")
def test_harder_light_goes_through_more(section: dict[str, Any]) -> None:
    soft, hard = section["minima"]
    assert hard > 1.3 * soft


@of("filters_and_energy")
def test_energies_filters_and_words_that_are_not_there_are_named(section: dict[str, Any]) -> None:
    assert "cannot go to 2 keV" in section["too_soft"]
    assert "no filter {4}" in section["no_such"]
    assert "'half'" in section["no_word"]


@of("loses_the_beam")
def test_without_current_or_permit_no_light_arrives(section: dict[str, Any]) -> None:
    assert section["dark"] < 0.02 * section["light"]
    assert section["shut"] < 0.02 * section["light"]
    assert section["again"] == pytest.approx(section["light"])


@of("suspends")
def test_a_plan_waits_until_the_current_is_back(section: dict[str, Any]) -> None:
    assert section["order"] == ["beam", "began", "moved"]
    assert section["left"] == 0


@of("gives_pulses")
def test_generator_and_aerotech_give_the_same_pulses(section: dict[str, Any]) -> None:
    expected = [10.0, 11.5, 13.0, 14.5]
    assert section["generator"] == pytest.approx(expected)
    assert section["aerotech"] == pytest.approx(expected, abs=1e-3)
    assert section["backwards"] == pytest.approx([-3.0, -3.75, -4.5, -5.25, -6.0], abs=1e-3)


@of("gives_pulses")
def test_pulses_that_cannot_be_are_refused_with_the_reason(section: dict[str, Any]) -> None:
    assert "Delta must not be 0" in section["no_step"]
    assert "take steps of" in section["coarse"]
    assert "0 pulses" in section["none"]
    assert section["nonsense"] == ["!", "#"]
