"""``apsber frames``: account for every frame of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from apsber_bluesky.cli._output import (
    DataRootOption,
    JsonOption,
    Output,
    ProfileOption,
    RunArgument,
    profile_with,
    ranges_of,
)
from apsber_bluesky.core import (
    DataFileError,
    FrameBooks,
    FrameState,
    RunFolder,
    RunLedger,
    SeriesBooks,
    find_run,
)

_COUNTS = (
    "expected",
    "received",
    "written",
    "decoded",
    "used",
    "recovered",
    "duplicated",
    "refused",
)
#: A script gets all of them.
_RANGES_SHOWN = 200
#: Lines of `--each` are printed in blocks; one at a time, a million would take minutes.
_LINES_AT_ONCE = 1000
_ORDER = {"darks": 0, "flats": 1, "primary": 2}


@dataclass(frozen=True, slots=True)
class _Account:
    """What ledger and spool together say of a run."""

    state: str
    books: FrameBooks
    states: dict[str, NDArray[np.uint8]]
    index: dict[str, NDArray[Any]]
    open_streams: list[str]
    problem: str | None


def frames(
    run: RunArgument = "latest",
    each: Annotated[
        bool, typer.Option("--each", help="Print a line for every frame, too.")
    ] = False,
    checksums: Annotated[
        bool,
        typer.Option(
            help="Read the frames of a series that was never closed, and compare their checksums."
        ),
    ] = True,
    profile: ProfileOption = "simulated",
    data_root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Account for every frame of a run; those that are missing are named."""
    output = Output(as_json=as_json)
    folder = find_run(profile_with(profile, data_root).session.data_root, run)
    account = _account(folder, checksums=checksums)
    books = account.books
    output.say_title(f"run {folder.uid}", f"{account.state} {books.fault}")
    _say_books(output, books)
    if account.open_streams:
        output.say(
            f"{', '.join(account.open_streams)}: the series has not ended, or its receiver died;"
            f" counted in {folder.raw.name}"
        )
    if account.problem is not None:
        output.say(f"warning: {account.problem}")
    value = {
        "uid": folder.uid,
        "state": account.state,
        **books.to_dict(),
        "open_streams": account.open_streams,
        "problem": account.problem,
    }
    if each:
        lines = list(_each(account))
        _print_each(output, lines)
        value["each"] = lines
    output.result(value)


def _account(folder: RunFolder, *, checksums: bool) -> _Account:
    from apsber_bluesky.streaming import audit_spool, read_spool_index, reconcile_books

    index: dict[str, NDArray[Any]] = {}
    problem = None
    try:
        index = read_spool_index(folder.raw) if folder.raw.exists() else {}
    except DataFileError as error:
        # The ledger's word still stands.
        problem = str(error)
    with RunLedger(folder.ledger) as ledger:
        books, state = ledger.books, str(ledger.state)
        marked = {name: ledger.frame_states(name) for name in {*index, *books.streams}}
    ended = {name: own.expected for name, own in books.streams.items()}
    open_streams = [name for name, rows in index.items() if len(rows) > ended.get(name, 0)]
    if open_streams:
        # What the ledger has is believed; only the frames behind it are looked at.
        whole = audit_spool(folder.raw, checksums=checksums, first=ended)
        books = reconcile_books(books, {name: whole[name] for name in open_streams})
    streams = dict(sorted(books.streams.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))))
    states = {name: _states(own, marked[name]) for name, own in streams.items()}
    for name, own in streams.items():
        # The worker enters what it used at its end; one that never came to it has left the marks.
        own.used = max(own.used, int(np.count_nonzero(states[name] & FrameState.USED)))
    return _Account(state, FrameBooks(streams), states, index, open_streams, problem)


def _states(books: SeriesBooks, marked: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """States of the frames of a stream: the marks, and what follows from the books."""
    states = np.zeros(max(books.expected, len(marked)), np.uint8)
    states[: len(marked)] = marked
    there = np.ones(len(states), bool)
    there[books.expected :] = False
    there[[n for n in books.missing if n < len(there)]] = False
    if books.written == books.expected - len(books.missing):
        states[there] |= np.uint8(FrameState.SEEN | FrameState.WRITTEN)
    states[[n for n in books.incomplete if n < len(states)]] |= np.uint8(FrameState.INCOMPLETE)
    return states


def _say_books(output: Output, books: FrameBooks) -> None:
    """A column for each stream and one for all, then the frames that are missing or incomplete."""
    columns: list[SeriesBooks | FrameBooks] = [*books.streams.values(), books]
    table = Table("frames", *books.streams, "total", box=None, pad_edge=False)
    for count in _COUNTS:
        table.add_row(count, *(str(getattr(own, count)) for own in columns))
    table.add_row("missing", *(str(own.num_missing) for own in columns))
    table.add_row("incomplete", *(str(own.num_incomplete) for own in columns))
    output.say(table)
    for what in ("missing", "incomplete"):
        for stream, own in books.streams.items():
            if numbers := getattr(own, what):
                output.say(f"{what} in {stream}: {ranges_of(numbers, _RANGES_SHOWN)}")


def _each(account: _Account) -> Iterator[dict[str, Any]]:
    """Every frame of the run as plain JSON values, stream by stream."""
    for stream, states in account.states.items():
        rows = account.index.get(stream, ())
        missing = frozenset(account.books.streams[stream].missing)
        for number, state in enumerate(states.tolist()):
            line: dict[str, Any] = {
                "stream": stream,
                "index": number,
                "states": [str(one.name).lower() for one in FrameState(state)],
                "angle_deg": None,
                "timestamp_s": None,
                "checksum": None,
            }
            if number in missing:
                line["states"].append("missing")
            if number < len(rows) and rows[number]["frame_number"] >= 0:
                row = rows[number]
                line["angle_deg"] = _finite(row["angle"])
                line["timestamp_s"] = _finite(row["timestamp"])
                line["checksum"] = f"{int(row['checksum']):016x}"
            yield line


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _print_each(output: Output, lines: list[dict[str, Any]]) -> None:
    head = (
        f"{'stream':8} {'index':>7} {'angle_deg':>10} {'timestamp_s':>17} {'checksum':>16}  states"
    )
    for first in range(0, len(lines), _LINES_AT_ONCE):
        block = lines[first : first + _LINES_AT_ONCE]
        output.say("\n".join([*([head] if first == 0 else []), *map(_line, block)]))


def _line(line: dict[str, Any]) -> str:
    angle, time = line["angle_deg"], line["timestamp_s"]
    return (
        f"{line['stream']:8} {line['index']:7} {'-' if angle is None else f'{angle:.4f}':>10}"
        f" {'-' if time is None else f'{time:.6f}':>17} {line['checksum'] or '-':>16}"
        f"  {' '.join(line['states'])}"
    )
