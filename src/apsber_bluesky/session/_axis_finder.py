"""The arithmetic behind `align_rotation_axis`: frames of the open run, read back from the spool."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from numpy.typing import NDArray

from apsber_bluesky.core import AxisEstimate, FrameRange, RunFolder, StreamName, find_run


class SpoolAxisFinder:
    """Finds the rotation axis in two projections; implements `apsber_bluesky.core.AxisFinder`.

    Parameters
    ----------
    data_root : Path
        Folder below which runs are kept.
    """

    def __init__(self, data_root: Path) -> None:
        self._data_root = data_root

    def find(self, run_uid: str, first: int, *, num_darks: int, num_flats: int) -> AxisEstimate:
        """Compare projections `first` and ``first + 1`` of a run; see `AxisFinder`.

        Raises
        ------
        DataFileError
            If the frames cannot be read.
        InputError
            If the projections do not match anywhere.
        """
        from apsber_bluesky.processing import average_reference, find_axis, normalise

        folder = find_run(self._data_root, run_uid)
        darks = _read(folder, "darks", 0, num_darks)
        flats = _read(folder, "flats", 0, num_flats)
        pair = normalise(
            _read(folder, "primary", first, first + 2),
            average_reference(darks, what="darks"),
            average_reference(flats, what="flats"),
        )
        return find_axis(pair[0], pair[1])


def _read(folder: RunFolder, stream: StreamName, start: int, stop: int) -> NDArray[Any]:
    from apsber_bluesky.streaming import RingOrFileSource

    source = RingOrFileSource()
    uri = f"file://localhost{quote(str(folder.raw.resolve()))}"
    frames = FrameRange(folder.uid, stream, start, stop, uri, f"/entry/{stream}/data")
    try:
        return source.read(frames)
    finally:
        source.close()
