"""What a reconstruction wants of a scan that is already on disk."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import ImageKey


class OpenedScan(Protocol):
    """The frames of a scan whose file is open (``storage.OpenScan`` is one)."""

    def read(self, kind: ImageKey, start: int, stop: int, rows: range) -> NDArray[Any]:
        """Some rows of some frames of a kind, shape ``(stop - start, len(rows), columns)``."""
        ...


class Scan(Protocol):
    """A scan on disk that can be sent to other processes (``storage.ScanFile`` is one)."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def rows(self) -> int:
        """Rows of a frame [pixel]."""
        ...

    @property
    def columns(self) -> int:
        """Columns of a frame [pixel]."""
        ...

    @property
    def dtype(self) -> str:
        """NumPy dtype string of the pixels."""
        ...

    @property
    def angles_deg(self) -> NDArray[np.float64] | None:
        """Angle of each projection [deg]."""
        ...

    @property
    def decodes_whole_frames(self) -> bool:
        """Whether reading some rows of a frame costs as much as reading all of it."""
        ...

    def count(self, kind: ImageKey) -> int:
        """Frames of a kind."""
        ...

    @property
    def pixel_size_um(self) -> float | None:
        """Size of a pixel at the sample [um], if known."""
        ...

    def numbers(self, kind: ImageKey) -> NDArray[np.int64]:
        """What messages call the frames of a kind."""
        ...

    def taken(self, kind: ImageKey) -> NDArray[np.float64] | None:
        """When each frame of a kind was taken, counted in projections; None if nothing says."""
        ...

    def opened(self) -> AbstractContextManager[OpenedScan]:
        """Open the file."""
        ...


def saturation_of(dtype: str) -> int | None:
    """Value of a saturated pixel; None for a dtype that has none."""
    kind = np.dtype(dtype)
    return int(np.iinfo(kind).max) if kind.kind in "iu" else None
