"""What this place has for a scan: asked by plans before anything moves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from apsber_bluesky.core import Profile, StorageError, TomographyScan

_GIGABYTE = 1e9


class SessionResources:
    """Disk and memory of a session; implements `apsber_bluesky.core.ScanResources`.

    Parameters
    ----------
    profile : Profile
        How scans are processed, and where they are kept.
    receiver : ReceiverClient, optional
        Who writes the frames, and knows the room on its disk; without one the data root is looked
        at from here.
    """

    def __init__(self, profile: Profile, receiver: Any = None) -> None:
        self._profile = profile
        self._receiver = receiver

    @property
    def free_disk_bytes(self) -> int:
        """Room for frames and results [byte].

        Raises
        ------
        ServiceError
            If the receiver does not answer.
        StorageError
            If the data root cannot be looked at.
        """
        if self._receiver is not None and (health := self._receiver.health()).spool_size_gb:
            return int(health.spool_free_gb * _GIGABYTE)
        return _free_below(self._profile.session.data_root)

    @property
    def free_memory_bytes(self) -> int:
        """Memory that processing may still take [byte]."""
        from apsber_bluesky.processing import free_memory

        return free_memory()

    @property
    def first_slice_projections(self) -> int:
        """Projections that the first live slice waits for; 0 if none are shown."""
        processing = self._profile.processing
        return processing.chunk_projections if processing.live_slices.hz else 0

    def memory_bytes(self, scan: TomographyScan) -> int:
        """Memory that processing a scan takes [byte]."""
        from apsber_bluesky.pipeline import scan_memory_bytes

        return scan_memory_bytes(scan, self._profile.processing)

    def result_bytes(self, scan: TomographyScan) -> int:
        """Disk that the results of a scan take beside its frames [byte]."""
        from apsber_bluesky.pipeline import volume_bytes

        return volume_bytes(scan, self._profile.processing)


def _free_below(folder: Path) -> int:
    # The folder may be made only when it is first used.
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        return shutil.disk_usage(existing).free
    except OSError as error:
        raise StorageError(f"cannot look at data root {folder}: {error.strerror}") from error
