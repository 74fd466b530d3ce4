"""A command in the background: how it starts, and how it does not."""

from __future__ import annotations

import psutil
import pytest

from apsber_bluesky.cli._background import run_in_background
from apsber_bluesky.core import ApsberError, RunCancelled, ServiceError


@pytest.fixture
def log(tmp_path):
    return tmp_path / "folder" / "command.log"


@pytest.fixture(autouse=True)
def nothing_left():
    before = psutil.Process().children()
    yield
    assert [child for child in psutil.Process().children() if child not in before] == []


def test_what_it_says_first_is_returned_and_the_rest_is_in_the_log(tmp_path, log):
    answer, process = run_in_background(["status", "--data-root", str(tmp_path)], log)
    assert process.wait(60) == 0
    assert answer == {"data_root": str(tmp_path), "session": None, "runs": []}
    assert "no runs below" in log.read_text()


def test_a_command_that_fails_says_why(tmp_path, log):
    with pytest.raises(ServiceError, match=r"no run 'latest' below .* \(log: .*command.log\)"):
        run_in_background(["status", "latest", "--data-root", str(tmp_path)], log)


def test_a_command_that_dies_without_an_answer_has_its_last_word_told(log):
    with pytest.raises(ServiceError, match=r"No such command 'nothing'.* \(log: .*command.log\)"):
        run_in_background(["nothing"], log)


def test_who_gives_up_leaves_nothing_running(log):
    def give_up():
        raise RunCancelled("enough")

    with pytest.raises(RunCancelled, match="enough"):
        run_in_background(["simulate"], log, give_up)


def test_a_log_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ApsberError, match="write the log"):
        run_in_background(["status"], tmp_path / "file" / "status.log")
