"""The worker's live slices, and where the monitor finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from apsber_bluesky.core import ProcessingSettings, StageProgress
from apsber_bluesky.pipeline import LiveSlices
from apsber_bluesky.streaming import SlicePublisher


@contextmanager
def show_live_slices(
    processing: ProcessingSettings, progress: StageProgress
) -> Iterator[tuple[LiveSlices | None, str | None]]:
    """Show slices of the volume while runs go on, if the settings want them.

    Yields
    ------
    tuple of (LiveSlices, str) or (None, None)
        Who makes them, and the address that a `SliceSubscriber` connects to.
    """
    if not processing.live_slices.hz:
        yield None, None
        return
    publisher = SlicePublisher()
    try:
        live = LiveSlices(processing, publisher.show, progress)
        try:
            yield live, publisher.address
        finally:
            live.close()
    finally:
        publisher.close()
