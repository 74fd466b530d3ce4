"""Each browser gets the newest, and never a queue."""

from __future__ import annotations

import asyncio
import json

import pytest

from apsber_bluesky.dashboard import _board
from apsber_bluesky.dashboard._board import Board


def parse(event: str) -> dict:
    assert event.startswith("data: ")
    assert event.endswith("\n\n")
    return json.loads(event[6:])


def test_a_listener_begins_with_everything_and_goes_on_with_what_changes():
    async def listen():
        board = Board()
        board.show("a", 1)
        board.show("b", {"text": "\n\ndata: <b>"})
        events = board.listen()
        first = parse(await anext(events))
        board.show("a", 1)
        board.show("b", 2)
        second = parse(await anext(events))
        await events.aclose()
        return first, second, len(board._wakers)

    first, second, left = asyncio.run(listen())
    assert first == {"a": 1, "b": {"text": "\n\ndata: <b>"}}
    assert second == {"b": 2}
    assert left == 0


def test_a_slow_listener_skips_what_was_overwritten():
    async def listen():
        board = Board()
        board.show("count", -1)
        slow, other = board.listen(), board.listen()
        await anext(slow)
        await anext(other)
        for number in range(10_000):
            board.show("count", number)
        return [parse(await anext(one)) for one in (slow, other)]

    assert asyncio.run(listen()) == [{"count": 9999}] * 2


def test_a_quiet_board_shows_that_it_is_there_and_lets_go_when_it_is_closed(monkeypatch):
    monkeypatch.setattr(_board, "HEARTBEAT_S", 0.01)

    async def listen():
        board = Board()
        board.show("a", 1)
        events = board.listen()
        await anext(events)
        quiet = await anext(events)
        board.close()
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        return quiet

    assert asyncio.run(listen()) == ":\n\n"


def test_what_is_no_json_is_not_shown():
    with pytest.raises(ValueError, match="JSON"):
        Board().show("a", float("nan"))
