"""A run in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError
from apsber_bluesky.storage import (
    PROCESSED_CONTAINER,
    ElementMapImages,
    FrameSeries,
    explain_catalog_errors,
    products_of,
    run_of,
    volume_of,
)
from apsber_bluesky.viewers._run_image import IMAGE_NAMES, RunImage
from apsber_bluesky.viewers._run_source import Frames

_STREAMS: Final = ("darks", "flats", "primary")
_STATES: Final = {"success": "complete", "abort": "aborted", "fail": "failed"}


class TiledSource:
    """A run in Tiled; see `RunSource`.

    Parameters
    ----------
    node : tiled client
        The run, or something that was made of it.

    Raises
    ------
    InputError
        If it is neither.
    """

    def __init__(self, node: Any) -> None:
        with explain_catalog_errors("find the run"):
            made = PROCESSED_CONTAINER in getattr(node, "path_parts", ())
            self._run = run_of(node) if made else node
            self._products: Any = None
            self._find_products()

    def __repr__(self) -> str:
        return f"Tiled at {self._run.uri.split('?')[0]}"

    @property
    def uid(self) -> str:
        """Bluesky run uid."""
        return str(self._run.path_parts[-1])

    def _find_products(self) -> Any:
        """What was made of it; None while there is nothing."""
        if self._products is None:
            try:
                self._products = products_of(self._run)
            except InputError:
                # One that is no run has no start document either.
                if "start" not in getattr(self._run, "metadata", {}):
                    raise
        return self._products

    def describe(self) -> dict[str, Any]:
        """What the catalogue says."""
        with explain_catalog_errors("describe the run"):
            products = self._find_products()
            made = {} if products is None else dict(products.metadata)
            start = self._run.metadata["start"]
            stop = self._run.metadata.get("stop") or {}
        quality = dict(made.get("quality", {}))
        verdict = quality.pop("verdict", None)
        ended = _STATES.get(str(stop.get("exit_status")), "acquiring")
        return {
            "uid": self.uid,
            "proposal": start.get("proposal_id"),
            "scan_id": start.get("scan_id"),
            "plan_name": start.get("plan_name"),
            "sample": made.get("sample", start.get("sample")),
            "technique": made.get("technique", start.get("technique")),
            "detectors": list(start.get("detectors", ())),
            "start_time_s": start.get("time"),
            "scan": dict(made.get("scan") or start.get("tomography") or {}),
            # Nothing was made of it: it is on its way, or its session ended before.
            "state": made.get("state") or ("processing" if ended == "complete" else ended),
            "reason": str(stop.get("reason", "")),
            "frames": dict(made.get("frames", {})) or {"streams": {}},
            "stages": [],
            "quality": {"verdict": verdict, "metrics": list(quality.values())} if verdict else {},
            "products": {},
            "processes": [dict(record) for record in made.get("processes", ())],
        }

    def image_names(self) -> tuple[str, ...]:
        """Which volumes there are."""
        with explain_catalog_errors("list the volumes"):
            products = self._find_products()
            there = () if products is None else tuple(products)
        return tuple(name for name in IMAGE_NAMES if name in there)

    def image(self, name: str) -> RunImage:
        """Open a volume; Tiled serves the full level only."""
        with explain_catalog_errors(f"open the {name}"):
            array = volume_of(self._run, name)
            about = array.metadata
        return RunImage(
            name,
            (_RemoteArray(array, name),),
            str(about.get("quantity", "")),
            str(about.get("unit", "")),
            about.get("voxel_size_um"),
            tuple(map(str, about.get("classes", ()))),
        )

    def open_frames(self) -> AbstractContextManager[Frames] | None:
        """The frames of the first detector."""
        with explain_catalog_errors("find the frames"):
            images = {name: _first_image(self._run, name) for name in _STREAMS}
        found = {name: array for name, array in images.items() if array is not None}
        return _RemoteFrames(found) if found else None

    def element_maps(self) -> ElementMapImages | None:
        """The element maps."""
        products = self._find_products()
        if products is None or "maps" not in products:
            return None
        with explain_catalog_errors("read the element maps"):
            entry = products["maps"]["entry"]
            maps, spectrum = entry["maps"], entry["data"]
            elements = [str(name) for name in maps.metadata["elements"]]
            first = maps[elements[0]]
            return ElementMapImages(
                counts={name: np.asarray(maps[name]["data"][...]) for name in elements},
                fast_mm=np.asarray(first["fast"][...]),
                slow_mm=np.asarray(first["slow"][...]),
                energy_eV=np.asarray(spectrum["energy"][...]),
                spectrum=np.asarray(spectrum["data"][...]),
                fit=np.asarray(spectrum["fit"][...]),
            )


def _first_image(run: Any, stream: str) -> Any:
    if stream not in run:
        return None
    start = run.metadata["start"]
    names = (f"{detector}_image" for detector in start.get("detectors", ()))
    columns = set(run[stream])
    name = next((name for name in names if name in columns), None)
    return None if name is None else run[stream][name]


class _RemoteArray:
    """An array that is fetched when it is indexed, whose errors are clear."""

    def __init__(self, array: Any, name: str) -> None:
        self._array, self._name = array, name
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, len(array.shape)
        self.chunks = array.chunks

    def __getitem__(self, place: Any) -> NDArray[Any]:
        with explain_catalog_errors(f"read the {self._name}"):
            return np.asarray(self._array[place])


class _RemoteFrames:
    """Frames that are fetched when they are asked for."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = arrays
        self.series = {
            name: FrameSeries(name, array.shape, np.dtype(array.dtype), np.arange(len(array)))
            for name, array in arrays.items()
            if len(array.shape) == 3 and array.shape[0]
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def read(self, stream: str, indices: NDArray[np.int64], row: int | None = None) -> NDArray[Any]:
        """Fetch some frames in even steps, or one row of each, in one request."""
        step = int(indices[1] - indices[0]) if len(indices) > 1 else 1
        frames = slice(int(indices[0]), int(indices[-1]) + 1, step)
        with explain_catalog_errors(f"read frames of {stream}"):
            array = self._arrays[stream]
            return np.asarray(array[frames] if row is None else array[frames, row])
