"""``apsber check``: what a plan will take, without anything moving or being left running."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def answer(apsber, tmp_path_factory):
    root = tmp_path_factory.mktemp("check")
    done = apsber(
        "check", "fly_tomography", "num_projections=400", "exposure_s=0.05", "--data-root", root,
        "--json",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    return done.json, root


def test_time_frames_disk_and_memory_are_predicted(answer):
    found, _ = answer
    assert found["frames"] == 420
    # 400 periods of 52 ms, and what is around them.
    assert 20.8 < found["beam_time_s"] < found["duration_s"] < 35
    assert 0 < found["first_slice_s"] < found["duration_s"]
    # 256 x 256 pixels: frames of 2 bytes, and the volume of 4.
    assert 420 * 256**2 * 2 + 256**3 * 4 < found["disk_bytes"] < 2e8
    assert 0 < found["memory_bytes"] < found["free_memory_bytes"]
    assert found["problems"] == []


def test_nothing_is_taken(answer):
    _, root = answer
    assert [path.name for path in root.iterdir()] == [".apsber"]


def test_what_cannot_fit_is_refused_with_what_to_change(apsber, tmp_path):
    done = apsber(
        "check", "step_tomography", "num_projections=50000000", "--data-root", tmp_path, "--json"
    )
    assert done.status == 1
    assert any("take fewer frames" in problem for problem in done.json["problems"])
    assert "of disk" in done.stderr
