"""Warnings of the stream on the terminal of a run."""

from __future__ import annotations

import io

from rich.console import Console

from apsber_bluesky.cli._display import RunDisplay


def test_a_warning_is_printed_when_it_comes_and_when_it_goes():
    text = io.StringIO()
    display = RunDisplay(Console(file=text, width=200))
    health = {"type": "health", "run_uid": "run-1", "kind": "ring", "message": "behind [80 %]"}
    display({**health, "active": True})
    display({**health, "active": False})
    lines = [line.strip() for line in text.getvalue().splitlines()]
    assert lines == ["warning: frames: behind [80 %]", "over: behind [80 %]"]
