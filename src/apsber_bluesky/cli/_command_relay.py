"""``apsber relay``: frames of a detector that speaks only PV Access."""

from __future__ import annotations

import threading
from typing import Annotated, Final

import typer

from apsber_bluesky.cli._interrupt import handle_interrupts
from apsber_bluesky.cli._output import JsonOption, Output, ProfileOption, profile_with, ranges_of
from apsber_bluesky.core import InputError

_SCHEME: Final = "pva://"


def relay(
    source: Annotated[
        str, typer.Option("--from", help="NTNDArray to read.", metavar="pva://CHANNEL")
    ],
    to: Annotated[
        str, typer.Option("--to", help="Where to publish frames.", metavar="tcp://ADDRESS:PORT")
    ],
    frames: Annotated[int, typer.Option("--frames", help="Frames to expect.", min=1)],
    series: Annotated[int, typer.Option("--series", help="Number of the series.", min=0)],
    first_id: Annotated[
        int | None,
        typer.Option(help="uniqueId of the first frame; by default the next after the present."),
    ] = None,
    queue_size: Annotated[
        int | None,
        typer.Option(help="Frames that may wait; as many as at the profile's receiver.", min=2),
    ] = None,
    idle_s: Annotated[
        float, typer.Option(help="The series is over after so long without a frame [s].")
    ] = 10.0,
    linger_s: Annotated[
        float, typer.Option(help="How long the receiver may fetch what waits, at the end [s].")
    ] = 2.0,
    profile: ProfileOption = "simulated",
    as_json: JsonOption = False,
) -> None:
    """Send one series of a PV Access channel on to the receiver; Ctrl-C ends it early."""
    from apsber_bluesky.streaming import NtndarrayReader, Relay

    if not source.startswith(_SCHEME) or len(source) == len(_SCHEME):
        raise InputError(f"--from is {source!r}; give pva:// and the name of a channel")
    output = Output(as_json=as_json)
    settings = profile_with(profile, None)
    stop = threading.Event()
    with handle_interrupts() as interrupt, interrupt.calls(stop.set):
        reader = NtndarrayReader(series, frames, first_id=first_id)
        port = Relay(
            source.removeprefix(_SCHEME),
            to,
            reader=reader,
            num_frames=frames,
            queue_size=queue_size or settings.streaming.high_water_mark,
            idle_s=idle_s,
        )
        try:
            output.say(f"frames    {port.address}")
            books = port.run(
                stop.is_set,
                on_ready=lambda: output.say("ready     the detector may begin"),
                on_refused=lambda why: output.say(f"refused   {why}"),
            )
            stop.wait(linger_s)
        finally:
            port.close()
    output.say(f"sent      {books.sent} of {books.expected} frames")
    output.result(books.to_dict())
    if not books.complete:
        output.error(
            f"series {series} is incomplete: missing {ranges_of(books.missing)},"
            f" dropped {books.dropped}"
        )
        raise typer.Exit(1)
