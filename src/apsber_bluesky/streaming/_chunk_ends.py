"""Where the chunks of a dataset end in its file, without a search for each."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# HDF5 tells all places at once for about as much as those of so many single chunks.
_SINGLE_QUESTIONS: Final = 28


class ChunkEnds:
    """The ends of the chunks of one dataset whose chunks are frames.

    HDF5 looks through all chunks for the place of one, so that asking for each costs the square of
    their number: at 40,000 frames 3 ms each. They are asked for all at once when single questions
    have cost as much as that; what lies behind the newest frame is known then, also in a file that
    grows.
    """

    def __init__(self) -> None:
        self._ends: NDArray[np.int64] = np.zeros(0, np.int64)
        self._asked = 0

    def end_of(self, dataset: Any, index: int) -> int | None:
        """Offset behind a chunk [byte].

        Parameters
        ----------
        dataset : h5py.Dataset
            The frames, shape ``(n, rows, columns)``; always the same dataset.
        index : int
            The frame.

        Returns
        -------
        int or None
            None for a frame that has no place in the file: it was lost, or is still to come.
        """
        known = index < len(self._ends)
        if known and self._ends[index] > 0:
            return int(self._ends[index])
        if known and not dataset.file.swmr_mode:
            return None
        if self._asked >= _SINGLE_QUESTIONS:
            self._ask_for_all(dataset)
            return int(self._ends[index]) or None
        self._asked += 1
        chunk = dataset.id.get_chunk_info_by_coord((index, 0, 0))
        return None if chunk.byte_offset is None else int(chunk.byte_offset + chunk.size)

    def _ask_for_all(self, dataset: Any) -> None:
        ends = np.zeros(dataset.shape[0], np.int64)

        def note(chunk: Any) -> None:
            # Some may have been added since the shape was read.
            if chunk.chunk_offset[0] < len(ends):
                ends[chunk.chunk_offset[0]] = chunk.byte_offset + chunk.size

        dataset.id.chunk_iter(note)
        self._ends, self._asked = ends, 0
