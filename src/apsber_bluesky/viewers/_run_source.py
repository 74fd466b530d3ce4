"""Where a run that is looked at comes from: its folder, or the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import (
    ELEMENT_MAPS_NAME,
    RunFolder,
    RunLedger,
    describe_run,
)
from apsber_bluesky.storage import (
    ElementMapImages,
    FrameReader,
    FrameSeries,
    open_volume,
    read_element_maps,
    read_volume_info,
)
from apsber_bluesky.viewers._run_image import IMAGE_NAMES, RunImage


class Frames(Protocol):
    """Frames of a run; a `FrameReader` is one."""

    @property
    def series(self) -> Mapping[str, FrameSeries]:
        """What there is, by stream."""
        ...

    def read(self, stream: str, indices: NDArray[np.int64], row: int | None = None) -> NDArray[Any]:
        """Read frames in even steps, or one row of each."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...


class RunSource(Protocol):
    """What is known of a run, and its images."""

    @property
    def uid(self) -> str:
        """Bluesky run uid."""
        ...

    def describe(self) -> dict[str, Any]:
        """As `core.describe_run`, with the chain of transformations as ``processes``."""
        ...

    def image_names(self) -> tuple[str, ...]:
        """Which of `IMAGE_NAMES` there are."""
        ...

    def image(self, name: str) -> RunImage:
        """Open one of them; no pixel is read."""
        ...

    def open_frames(self) -> AbstractContextManager[Frames] | None:
        """The frames of the detector, if they are within reach."""
        ...

    def element_maps(self) -> ElementMapImages | None:
        """The element maps, if there are any."""
        ...


class FolderSource:
    """A run on disk; see `RunSource`."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return str(self.folder.path)

    @property
    def uid(self) -> str:
        """Bluesky run uid."""
        return self.folder.uid

    def describe(self) -> dict[str, Any]:
        """What the ledger says."""
        value = describe_run(self.folder)
        with RunLedger(self.folder.ledger) as ledger:
            records = [stage.record or {} for stage in ledger.stages]
        value["processes"] = [one for record in records for one in record.get("processes", ())]
        return value

    def image_names(self) -> tuple[str, ...]:
        """Which volumes are there."""
        return tuple(name for name in IMAGE_NAMES if self.folder.product(name).is_dir())

    def image(self, name: str) -> RunImage:
        """Open a volume."""
        path = self.folder.product(name)
        info = read_volume_info(path)
        levels = tuple(open_volume(path, level) for level in range(len(info.levels)))
        return RunImage(name, levels, info.quantity, info.unit, info.voxel_size_um, info.classes)

    def open_frames(self) -> FrameReader | None:
        """Frames of the detector; of several the first, of a Jungfrau its energies."""
        files = [*sorted(self.folder.path.glob("energies_*.h5")), self.folder.raw]
        files += sorted(self.folder.path.glob("raw_*.h5"))
        found = next((path for path in files if path.is_file()), None)
        return None if found is None else FrameReader(found)

    def element_maps(self) -> ElementMapImages | None:
        """The element maps."""
        path = self.folder.path / ELEMENT_MAPS_NAME
        return read_element_maps(path) if path.is_file() else None
