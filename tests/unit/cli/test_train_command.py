"""``apsber train``: killed, and continued, it makes the same model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apsber_bluesky.core import file_checksum, read_model_card

WORDS = (
    *("train", "denoiser", "--simulated", "1", "--held-out", "2", "--steps", "40", "--jobs", "1"),
    *("--batch", "1", "--patch", "64", "--checkpoint-steps", "5", "-o", "models", "--json"),
)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)


def test_a_training_that_is_killed_goes_on_to_the_same_bits(tmp_path, apsber_command) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "apsber_bluesky.cli", *WORDS],
        cwd=killed,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for(killed / "models" / "denoiser.checkpoint", process)
        finally:
            process.send_signal(signal.SIGKILL)
    models = killed / "models"
    assert not (models / "denoiser.yaml").exists()
    # The same examples, and nothing else, for one that is left alone.
    for name in ("examples", "held-out"):
        shutil.copytree(models / name, tmp_path / "models" / name)
    status, out, err = apsber_command(*WORDS)
    assert status == 0, err
    assert "training  steps 0 to 40, about" in err
    assert "step      40: loss" in err
    alone = json.loads(out)
    shutil.rmtree(tmp_path / "models")
    models.rename(tmp_path / "models")
    status, out, err = apsber_command(*WORDS)
    assert status == 0, err
    assert "training  steps 0 to" not in err
    continued = json.loads(out)
    assert continued["sha256"] == alone["sha256"]
    assert continued["figures"] == alone["figures"]
    card = read_model_card(Path(continued["card"]))
    assert card.sha256 == file_checksum(tmp_path / "models" / card.file) == alone["sha256"]
    assert card.training["command"] == (
        "apsber train denoiser --simulated 1 --seed 1000 --held-out 2 --steps 40 --batch 1"
        " --patch 64"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seed", "899900"), "seeds 899900 to 900199 reach those that are held out"),
        (("--device", "warp"), "device 'warp' is none that torch knows"),
        (("--device", "cuda:99"), "device 'cuda:99' was asked for"),
        (("--name", "../x"), "name '../x' cannot name a file"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_simulated(
    words: tuple[str, ...], message: str, apsber_command, tmp_path
) -> None:
    status, out, err = apsber_command("train", "segmenter", *words, "--json")
    assert status == 1
    assert message in json.loads(out)["error"]
    assert message in err
    assert not (tmp_path / "models").exists()
