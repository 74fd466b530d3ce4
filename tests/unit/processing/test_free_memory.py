"""Limits of control groups count, of both versions and at every level."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from apsber_bluesky.processing import free_memory

GB = 1 << 30


def group(folder: Path, names: tuple[str, str], limit: object, used: int, stat: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{stat}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = ("memory.max", "memory.current")


@pytest.fixture
def own(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "own").write_text(text)
        return tmp_path / "own"

    return write


def test_a_limit_of_version_2_counts_less_what_is_in_use(tmp_path, own):
    (tmp_path / "cgroup.controllers").touch()
    group(tmp_path / "job/step", V2, GB, GB // 2, f"inactive_file {GB // 8}")
    assert free_memory(tmp_path, own("0::/job/step\n")) == GB // 2 + GB // 8


def test_the_tightest_group_above_counts(tmp_path, own):
    (tmp_path / "cgroup.controllers").touch()
    group(tmp_path / "job/step", V2, "max", GB, "inactive_file 0")
    group(tmp_path / "job", V2, GB // 2, GB // 4, "inactive_file 0")
    assert free_memory(tmp_path, own("0::/job/step\n")) == GB // 4


def test_a_limit_of_version_1_counts(tmp_path, own):
    group(tmp_path / "memory/job", V1, GB, GB // 4, f"total_inactive_file {GB // 8}")
    assert free_memory(tmp_path, own("9:name=systemd:/\n4:memory:/job\n")) == GB * 7 // 8


def test_in_a_container_the_group_is_at_the_top(tmp_path, own):
    group(tmp_path / "memory", V1, GB, GB // 4, "total_inactive_file 0")
    assert free_memory(tmp_path, own("4:memory:/docker/0123\n")) == GB * 3 // 4


def test_a_group_that_is_full_leaves_nothing(tmp_path, own):
    group(tmp_path / "memory", V1, GB, GB + 4096, "total_inactive_file 0")
    assert free_memory(tmp_path, own("4:memory:/\n")) == 0


@pytest.mark.parametrize("limit", [9223372036854771712, 1 << 62])
def test_no_limit_is_the_machine(tmp_path, own, limit):
    group(tmp_path / "memory", V1, limit, GB, "total_inactive_file 0")
    free = free_memory(tmp_path, own("4:memory:/\n"))
    assert free == pytest.approx(psutil.virtual_memory().available, rel=0.3)
    assert free_memory(tmp_path / "none", tmp_path / "none") > 0
