"""Stream documents for frames that a receiver writes to HDF5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from event_model import StreamRange, compose_stream_resource

from apsber_bluesky.core import SeriesTicket

Asset = tuple[str, Any]


@dataclass(slots=True)
class StreamAssets:
    """What one stream of a camera has told the document stream so far.

    Attributes
    ----------
    data_key : str
        Name of the camera's image in the documents.
    chunk_shape : tuple of int
        Shape of a chunk in the file, ``(1, rows, columns)``.
    """

    data_key: str
    chunk_shape: tuple[int, int, int]
    announced: int = 0
    _bundle: Any = field(default=None)

    def advance(self, ticket: SeriesTicket, available: int) -> Iterator[Asset]:
        """Announce the frames up to `available`.

        Parameters
        ----------
        ticket : SeriesTicket
            Where the frames are.
        available : int
            Frames of the stream that can be read.

        Yields
        ------
        tuple of (str, dict)
            ``stream_resource`` once, then one ``stream_datum`` for the new frames.
        """
        if available <= self.announced:
            return
        if self._bundle is None:
            self._bundle = compose_stream_resource(
                mimetype="application/x-hdf5",
                uri=ticket.uri,
                data_key=self.data_key,
                parameters={
                    "dataset": ticket.dataset,
                    "chunk_shape": self.chunk_shape,
                    "swmr": True,
                },
            )
            yield "stream_resource", self._bundle.stream_resource_doc
        indices = StreamRange(start=self.announced, stop=available)
        self.announced = available
        yield "stream_datum", self._bundle.compose_stream_datum(indices)
