"""Every source through processes of their own to disk and to a consumer, as in the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FRAMES = 240
SOURCES = ["eiger1-lz4", "eiger2-bslz4", "jungfrau", "pva", "xspress3"]


def run_benchmark(repository: Path, folder: Path, *options: str) -> dict[str, dict[str, float]]:
    result = subprocess.run(
        [
            *(sys.executable, repository / "benchmarks" / "lossless.py", "--json"),
            *("--frames", str(FRAMES), "--folder", folder, *options),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, (result.stdout, result.stderr)
    return json.loads(result.stdout)["sources"]


@pytest.mark.parametrize("source", SOURCES)
def test_every_frame_of_a_source_reaches_disk_and_consumer_once_and_as_it_was_sent(
    repository, tmp_path, source
):
    figures = run_benchmark(repository, tmp_path, "--source", source)[source]
    assert (figures["sent"], figures["written"]) == (FRAMES, FRAMES)
    assert figures["read_from_ring"] + figures["read_from_file"] == FRAMES
    for fault in ("lost", "misnamed", "duplicated", "refused", "wrong", "wrong_on_disk"):
        assert figures[fault] == 0
    # The ring holds them all; but what came before a decode worker was there is read from disk.
    if not source.startswith("eiger"):
        assert figures["read_from_ring"] == FRAMES


def test_a_consumer_at_a_third_of_the_rate_gets_every_frame_from_disk_and_holds_nobody_up(
    repository, tmp_path
):
    figures = run_benchmark(repository, tmp_path, "--source", "slow-consumer")["slow-consumer"]
    assert figures["written"] == FRAMES
    assert figures["wrong"] == figures["source_waits"] == 0
    # The ring has 16 frames; those that it was late for lay in the file.
    assert figures["read_from_file"] > 0
