"""The file with the flag of each frame and its peaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from apsber_bluesky.core import PARTIAL_SUFFIX, explain_disk_errors, sync_directory, sync_file
from apsber_bluesky.processing.hits import FramePeaks

HIT: Final = 1
BLANK: Final = 0
NOT_LOOKED_AT: Final = -1

_CHUNK: Final = 64
_NO_PEAK: Final = np.float32(-1)
# As peak finders for CrystFEL write them (CXI file format).
_PEAK_NAMES: Final = {
    "peakXPosRaw": "columns",
    "peakYPosRaw": "rows",
    "peakTotalIntensity": "photons",
    "peakSNR": "snr",
}


class HitsFile:
    """``hits.h5``, filled while frames come; it has its name once it is whole.

    ``/entry/hits`` (NXdata) has ``frame``, ``num_peaks``, ``photons`` and ``flag``;
    ``/entry/result_1`` has the peaks of each frame as a CXI file has them, which CrystFEL reads
    (``--peaks=cxi``); ``/entry/veto`` the numbers of the blanks.

    Parameters
    ----------
    path : Path
        Its name.
    most_peaks : int
        Peaks of a frame that are kept.
    """

    def __init__(self, path: Path, most_peaks: int) -> None:
        self._path = path
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._most_peaks = most_peaks
        self._count = 0
        self._file: Any = None
        with explain_disk_errors(path, "write the hits"):
            self._create()

    def _create(self) -> None:
        import h5py

        self._file = h5py.File(self._partial, "w", libver="latest")
        entry = self._file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "hits"})
        self._file.attrs["default"] = "entry"
        hits = entry.create_group("hits")
        hits.attrs.update({"NX_class": "NXdata", "signal": "num_peaks", "axes": ["frame"]})
        for name, dtype in (("frame", "<i8"), ("num_peaks", "<i4"), ("photons", "<f4"),
                            ("flag", "i1")):  # fmt: skip
            hits.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1024,))
        hits["flag"].attrs["meaning"] = "1 hit, 0 blank, -1 frame missing"
        peaks = entry.create_group("result_1")
        peaks.create_dataset("nPeaks", (0,), "<i4", maxshape=(None,), chunks=(1024,))
        for name in _PEAK_NAMES:
            peaks.create_dataset(
                name,
                (0, self._most_peaks),
                "<f4",
                maxshape=(None, self._most_peaks),
                chunks=(_CHUNK, self._most_peaks),
                compression="gzip",
                compression_opts=1,
                fillvalue=_NO_PEAK,
            )

    def append(self, first: int, found: Sequence[FramePeaks]) -> None:
        """Add frames, the first of which has the number `first`."""
        with explain_disk_errors(self._path, "write the hits"):
            begin, self._count = self._count, self._count + len(found)
            entry = self._file["entry"]
            counts = [len(peaks) for peaks in found]
            values = {
                "frame": np.arange(first, first + len(found)),
                "num_peaks": counts,
                "photons": [float(peaks.photons.sum()) for peaks in found],
                "flag": [HIT if peaks.is_hit else BLANK for peaks in found],
            }
            for name, value in values.items():
                _extend(entry["hits"][name], begin, np.asarray(value))
            _extend(entry["result_1/nPeaks"], begin, np.asarray(counts))
            for name, of in _PEAK_NAMES.items():
                rows = np.full((len(found), self._most_peaks), _NO_PEAK, np.float32)
                for row, peaks in zip(rows, found, strict=True):
                    row[: len(peaks)] = getattr(peaks, of)
                _extend(entry["result_1"][name], begin, rows)

    def finish(self, missing: Sequence[int]) -> tuple[int, int]:
        """Mark frames that are missing, add the veto list, and give the file its name.

        Returns
        -------
        tuple of int
            Frames that were looked at, and hits among them.
        """
        with explain_disk_errors(self._path, "write the hits"):
            hits = self._file["entry/hits"]
            frame, flag = hits["frame"][:], hits["flag"][:]
            flag[np.isin(frame, missing)] = NOT_LOOKED_AT
            hits["flag"][:] = flag
            veto = self._file["entry"].create_dataset("veto", data=frame[flag == BLANK])
            veto.attrs["meaning"] = "frames without enough peaks; none of them was deleted"
            self._file.close()
            self._file = None
            sync_file(self._partial)
            self._partial.replace(self._path)
            sync_directory(self._path.parent)
        return int(np.count_nonzero(flag != NOT_LOOKED_AT)), int(np.count_nonzero(flag == HIT))

    def close(self) -> None:
        """Close the file; one that is not finished is removed."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial.unlink(missing_ok=True)


def _extend(dataset: Any, begin: int, values: Any) -> None:
    dataset.resize(begin + len(values), axis=0)
    dataset[begin:] = values
