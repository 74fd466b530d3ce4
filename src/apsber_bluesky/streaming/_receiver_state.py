"""What a receiver must know to go on where one that was killed has stopped.

A small file, replaced with each change of series: written to outlive the process, not the power,
for the frames that a restarted receiver looks for are in the memory of the same computer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import msgpack

from apsber_bluesky.core import PARTIAL_SUFFIX, SeriesRequest, StorageError, explain_disk_errors


@dataclass(slots=True)
class ReceiverState:
    """One run that is being received.

    Attributes
    ----------
    proposal : str
        Proposal of the run.
    first_request : SeriesRequest
        First series of the run, which set the frame size.
    series_count : int
        Series that this receiver has armed so far.
    arm_id : str
        Name of the client's request that armed the last one, so that it may be repeated.
    request : SeriesRequest or None
        The series that is armed.
    first_index : int
        Its place in the stream.
    source : int or None
        Its number on the wire.
    head : list of list of bytes
        The messages that announced it, for the reader of the detector's format.
    planned : int
        Places that the stream had before it.
    kept : str
        Frames of the series that were on disk already, as `format_ranges`.
    """

    proposal: str
    first_request: SeriesRequest
    series_count: int = 0
    arm_id: str = ""
    request: SeriesRequest | None = None
    first_index: int = 0
    source: int | None = None
    head: list[list[bytes]] = field(default_factory=list)
    planned: int = 0
    kept: str = ""

    @property
    def run_uid(self) -> str:
        """The run."""
        return self.first_request.run_uid

    def save(self, path: Path) -> None:
        """Replace the file.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        partial = path.with_name(path.name + PARTIAL_SUFFIX)
        with explain_disk_errors(path, "write the state of the receiver"):
            partial.write_bytes(msgpack.packb(asdict(self)))
            partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the file; None if there is none, as after a run that was closed.

        Raises
        ------
        StorageError
            If it is damaged.
        """
        if not path.is_file():
            return None
        try:
            values: dict[str, Any] = msgpack.unpackb(path.read_bytes())
            for name in ("first_request", "request"):
                values[name] = None if values[name] is None else SeriesRequest(**values[name])
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise StorageError(
                f"cannot read the state of the receiver at {path}: {error}; remove it"
            ) from error


def forget_state(path: Path) -> None:
    """The run is closed."""
    with explain_disk_errors(path, "remove the state of the receiver"):
        path.unlink(missing_ok=True)
