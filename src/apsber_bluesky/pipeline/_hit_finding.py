"""Bragg hits are found while the frames come."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    HIT_RATE,
    HITS,
    HITS_NAME,
    HitSettings,
    InputError,
    LiveMetric,
    file_checksum,
)
from apsber_bluesky.pipeline._context import RunContext
from apsber_bluesky.pipeline._feedback import FEEDBACK
from apsber_bluesky.pipeline._frame_stage import FrameStage, missing_frames_of
from apsber_bluesky.pipeline._hits_file import HitsFile
from apsber_bluesky.processing.hits import HitFinder, read_mask


class HitFinding(FrameStage):
    """Flag each frame as a hit or a blank, in ``hits.h5``, and tell the hit rate as it goes.

    A blank is flagged and nothing else: its frame stays where it is.

    Parameters
    ----------
    settings : HitSettings
        What a hit is.
    """

    name = "hits"

    def __init__(self, settings: HitSettings) -> None:
        super().__init__()
        self._settings = settings

    def _begin(self, context: RunContext, shape: tuple[int, int], photon: float) -> _Search:
        return _Search(context, self._settings, shape, photon)


class _Search:
    """The search in one run."""

    def __init__(
        self, context: RunContext, settings: HitSettings, shape: tuple[int, int], photon: float
    ) -> None:
        self._context, self._started_s = context, time.time()
        centre = settings.beam_centre_px or context.run.conditions.get("beam_centre_px")
        self._settings = settings.model_copy(update={"beam_centre_px": centre and tuple(centre)})
        mask = None if settings.mask is None else read_mask(settings.mask)
        self._finder = HitFinder(shape, self._settings, mask=mask, photon=photon)
        self._file = HitsFile(context.folder.path / HITS_NAME, settings.most_peaks)
        self._seen = self._hits = 0

    def look(self, first: int, images: NDArray[Any]) -> None:
        found = [self._finder(np.ascontiguousarray(image)) for image in images]
        self._file.append(first, found)
        self._seen += len(found)
        self._hits += sum(peaks.is_hit for peaks in found)
        run, tell = self._context.run, self._context.progress.message
        for name, value in ((HITS, self._hits), (HIT_RATE, self._hits / self._seen)):
            tell(run.uid, FEEDBACK, LiveMetric(name, value, self._seen).to_dict())
        self._context.report(HitFinding.name, self._seen, self._seen)

    def finish(self) -> None:
        looked_at, hits = self._file.finish(missing_frames_of(self._context))
        if not looked_at:
            raise InputError("no frame of this run came, so none was looked at for hits")
        settings = self._settings
        inputs = {} if settings.mask is None else {"mask": file_checksum(settings.mask)}
        path = self._context.folder.path / HITS_NAME
        self._context.record(
            "find_hits",
            self._started_s,
            {
                **settings.model_dump(mode="json"),
                "num_frames": looked_at,
                "hits": hits,
                "hit_rate": hits / looked_at,
            },
            inputs=inputs,
            outputs={path.name: file_checksum(path)},
        )

    def close(self) -> None:
        self._file.close()
